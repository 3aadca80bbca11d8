"""The response store: nothing lost, nothing twice, whatever is killed, full, or writing beside it."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from conftest import ROOT
from loopback import serve

from distil.llm.cache import ChatError, Reply, Store, request, request_key
from distil.llm.client import Chat

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(600)]
REPLY = Reply("ja, 好", "why", "stop", 3, 4)
JOB = """
import sys
from distil.llm.client import Chat
prompts = [[{"role": "user", "content": f"question {i}"}] for i in range(int(sys.argv[3]))]
Chat("m", sys.argv[1], store=__import__("pathlib").Path(sys.argv[2]), concurrency=8).map(prompts, max_tokens=5)
"""


def body(i: int) -> dict:
    return request("m", PROMPTS[i], max_tokens=5)


def keys(path) -> list[str]:
    return [json.loads(line)["key"] for line in path.read_text().splitlines()]


def start(endpoint: str, path, n: int, **more) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTIL_BATCH": "1"}
    return subprocess.Popen([sys.executable, "-c", JOB, endpoint, str(path), str(n)], env=environment, **more)


def test_answers_are_read_back_and_counted(tmp_path):
    store = Store(tmp_path / "new" / "s.jsonl")
    for i in range(3):
        store.put(body(i), REPLY)
        store.put(body(i), REPLY)
    again = Store(tmp_path / "new" / "s.jsonl")
    assert len(again) == 3 and again.get(body(2)) == REPLY and again.get(body(3)) is None
    assert again.unpriced == {b'"m"': [9, 12]} and again.dollars == 0
    assert [row["key"] for row in again.rows()] == keys(again.path) == [request_key(body(i)) for i in range(3)]


def test_lines_of_another_hand_are_read_and_nonsense_is_named(tmp_path):
    path = tmp_path / "s.jsonl"
    row = {"reply": vars(REPLY), "request": body(0), "key": request_key(body(0))}
    path.write_text(json.dumps(row, indent=None, separators=(",", ":")) + "\n\n")
    assert Store(path).get(body(0)) == REPLY and Store(path).unpriced == {b'"m"': [3, 4]}
    size = path.stat().st_size
    path.write_text(path.read_text() + "nonsense\n")
    with pytest.raises(ChatError, match=f"s.jsonl, the line at byte {size}, holds no answer"):
        Store(path)


@pytest.mark.parametrize("torn", [1, 10, 60, 100])
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path, torn):
    path = tmp_path / "s.jsonl"
    store = Store(path)
    store.put(body(0), REPLY)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:torn])
    again = Store(path)
    assert len(again) == 1
    again.put(body(1), REPLY)
    assert keys(path) == [request_key(body(0)), request_key(body(1))]
    assert store.get(body(0)) == REPLY


def test_two_stores_on_one_file_find_each_others_answers(tmp_path):
    one, two = Store(tmp_path / "s.jsonl"), Store(tmp_path / "s.jsonl")
    for i in range(20):
        (one, two)[i % 2].put(body(i), REPLY)
    one.put(body(19), REPLY)
    assert len(keys(one.path)) == 20 and one.get(body(19)) == REPLY
    assert len(Store(one.path)) == 20


def test_a_chat_finds_what_another_has_asked_since(tmp_path, project):
    with serve(lambda b: "yes") as (endpoint, seen):
        one, two = (Chat("m", endpoint, store=tmp_path / "s.jsonl") for _ in range(2))
        one.map(PROMPTS[:5], max_tokens=5)
        two.map(PROMPTS[:9], max_tokens=5)
        one.map(PROMPTS[:9], max_tokens=5)
    assert len(seen) == 9 and (one.asked, one.from_store) == (5, 4), "each request counts once"


def test_an_interrupt_ends_the_asking(tmp_path):
    asked = []

    def answer(b: dict) -> str:
        asked.append(b)
        time.sleep(0.05)
        return "yes"

    with serve(answer) as (endpoint, _):
        heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a job of a script ignores it
        job = start(endpoint, tmp_path / "s.jsonl", len(PROMPTS), stderr=subprocess.DEVNULL, **heed)
        while len(asked) < 20 and job.poll() is None:
            time.sleep(0.01)
        job.send_signal(signal.SIGINT)
        assert job.wait(60) != 0
    assert len(asked) < len(PROMPTS) / 2


def test_two_processes_at_once(tmp_path):
    path = tmp_path / "s.jsonl"
    with serve(lambda b: "word " * 500) as (endpoint, _):
        jobs = [start(endpoint, path, 150), start(endpoint, path, 150)]
        assert [job.wait(60) for job in jobs] == [0, 0]
    assert sorted(keys(path)) == sorted(request_key(body(i)) for i in range(150))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_cleanly_and_keeps_what_was_stored(tmp_path, project, monkeypatch, code):
    path, original, written = tmp_path / "s.jsonl", os.write, []

    def write(handle: int, data: bytes) -> int:
        if len(written) >= 5:
            raise OSError(code, os.strerror(code))
        written.append(1)
        return original(handle, data[:7] if len(written) == 5 else data)  # the fifth line gets in half

    with serve(lambda b: "yes") as (endpoint, seen):
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(ChatError, match="disk is full. The 4 answers before it are kept; make room"):
                Chat("m", endpoint, store=path, concurrency=1).map(PROMPTS[:20], max_tokens=5)
        assert len(keys(path)) == 4 and path.read_bytes().endswith(b"\n")
        assert len(Chat("m", endpoint, store=path).map(PROMPTS[:20], max_tokens=5)) == 20
    assert len(keys(path)) == 20 and len(seen) == 21, "only the answer that found no room is asked for again"


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_ask_for_nothing_twice(tmp_path):
    path, rng = tmp_path / "s.jsonl", random.Random(1)
    asked: list[str] = []
    needless: set[str] = set()
    stored: set[str] = set()

    def answer(b: dict) -> str:
        key = request_key(b)
        asked.append(key)
        if key in stored:
            needless.add(key)
        time.sleep(0.06)
        return "word " * 200

    kills = 0
    with serve(answer) as (endpoint, _):
        while kills < 20:
            before = len(asked)
            job = start(endpoint, path, len(PROMPTS))
            while len(asked) == before and job.poll() is None:  # it has begun to ask
                time.sleep(0.005)
            time.sleep(rng.uniform(0.01, 0.25))
            job.send_signal(signal.SIGKILL)
            job.wait()
            kills += 1
            stored |= {row["key"] for row in Store(path).rows()}
            assert len(stored) < len(PROMPTS), "it was killed before its end"
        assert start(endpoint, path, len(PROMPTS)).wait(60) == 0
    assert sorted(keys(path)) == sorted(request_key(body(i)) for i in range(len(PROMPTS)))
    assert not needless
    assert sum(Counter(asked).values()) <= len(PROMPTS) + 20 * 8, "again only what was under way at a kill"


def test_an_answer_is_kept_for_who_gave_it(tmp_path):
    """A quantised model behind vLLM and the provider's own shared their answers, by the model's name."""
    path = tmp_path / "s.jsonl"
    near, far, old = (Reply(text, "", "stop", 1, 1) for text in ("near", "far", "old"))
    Store(path).put(body(1), old)  # of a store that notes nobody, as a recording
    Store(path, host="own").put(body(0), near)
    provider = Store(path, host="api.deepseek.com")
    assert provider.get(body(0)) is None and request_key(body(0)) not in provider and provider.get(body(1)) == old
    assert provider.others([request_key(body(i)) for i in range(3)]) == {"own": 1}
    provider.put(body(0), far)
    assert [Store(path, host=host).get(body(0)) for host in ("own", "api.deepseek.com", "")] == [near, far, None]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("host") for line in lines] == [None, "own", "api.deepseek.com"]
    path.write_text("".join(json.dumps(line, indent=None, sort_keys=True) + "\n" for line in lines))
    assert Store(path, host="own").get(body(0)) == near, "also of lines of another hand"


def test_a_server_of_ones_own_may_move_to_another_port(tmp_path, project, capsys):
    with serve(lambda b: "yes") as (one, seen), serve(lambda b: "no") as (other, others):
        for endpoint in (one, other, other.replace("127.0.0.1", "localhost")):
            chat = Chat("m", endpoint, store=tmp_path / "s.jsonl")
            assert [r.text for r in chat.map(PROMPTS[:3], max_tokens=5)] == ["yes"] * 3
        assert (len(seen), len(others)) == (3, 0) and capsys.readouterr().out == ""
        (tmp_path / "s.jsonl").write_text((tmp_path / "s.jsonl").read_text().replace('"own"', '"api.example.com"'))
        again = Chat("m", other, store=tmp_path / "s.jsonl").map(PROMPTS[:4], max_tokens=5, label="chains")
        assert [r.text for r in again] == ["no"] * 4
        assert capsys.readouterr().out == f"api.example.com has answered 3 of 4 chains; {other} is asked itself\n"


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "error", "abort"])
def test_what_a_server_sent_when_it_broke_off_is_asked_again(reason, tmp_path, project):
    """Stores of before hold such answers, and no command asked again, not even --force."""
    path = tmp_path / "s.jsonl"
    for i, word in enumerate((reason, "stop", "length", "tool_calls")):
        Store(path).put(body(i), Reply("half", "", word, 3, 4), 0.5)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for compact in (False, True):  # as we write it, and of another hand
        text = "".join(json.dumps(line, separators=(",", ":") if compact else None) + "\n" for line in lines)
        path.write_text(text)
        store = Store(path)
        assert len(store) == 3 and store.get(body(0)) is None and store.dollars == 2.0, "it was paid for"
        with serve(lambda b: "whole") as (endpoint, seen):
            for _ in range(2):
                replies = Chat("m", endpoint, store=path).map(PROMPTS[:4], max_tokens=5)
            assert [r.text for r in replies] == ["whole", "half", "half", "half"] and len(seen) == 1


def test_answers_of_before_are_read_as_servers_meant_them(tmp_path):
    store = Store(tmp_path / "s.jsonl")
    for i, (word, tokens) in enumerate([("", 4), ("", 5), ("eos_token", 4), ("max_tokens", 4)]):
        store.put(body(i), Reply("yes", "", word, 1, tokens))
    assert [store.get(body(i)).finish_reason for i in range(4)] == ["stop", "length", "stop", "length"]
    store.put(body(4), Reply("four words are said", "why not", "stop", 0, 0))
    read = store.get(body(4))
    assert read.estimated and (read.prompt_tokens, read.completion_tokens, read.reasoning_tokens) == (4, 5, 1)
