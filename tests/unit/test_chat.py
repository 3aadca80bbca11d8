import asyncio
import json

import pytest
from loopback import Refusal, serve

from distil import record
from distil.chat import Chat, ChatError, Reply, Store, check_endpoint, request, request_key, split_reasoning

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(20)]


def test_answers_come_in_order_and_only_once(tmp_path, project):
    with serve(lambda body: body["messages"][0]["content"].upper()) as (endpoint, seen):
        for _ in range(2):
            chat = Chat("m", endpoint, store=tmp_path / "store.jsonl", concurrency=4)
            replies = chat.map(PROMPTS, max_tokens=5)
            assert [r.text for r in replies] == [f"QUESTION {i}" for i in range(20)]
        assert len(seen) == 20
        assert chat.asked == 0 and chat.from_store == 20


def test_seeds_make_different_requests_and_greedy_ones_do_not():
    prompt = PROMPTS[0]
    keys = {request_key(request("m", prompt, max_tokens=5, temperature=0.7, seed=s)) for s in (0, 1)}
    assert len(keys) == 2
    greedy = {request_key(request("m", prompt, max_tokens=5, seed=s)) for s in (0, 1)}
    assert len(greedy) == 1


def test_inside_a_running_loop_as_in_a_notebook(project):
    with serve(lambda body: "yes") as (endpoint, _):

        async def cell():
            return Chat("m", endpoint).map(PROMPTS[:3], max_tokens=5)

        assert [r.text for r in asyncio.run(cell())] == ["yes"] * 3


def test_what_retrying_cannot_mend_stops_at_once_with_the_endpoints_words(project):
    def answer(body):
        raise Refusal(404, "model m does not exist")

    with serve(answer) as (endpoint, seen), pytest.raises(ChatError, match="model m does not exist"):
        Chat("m", endpoint, concurrency=1).map(PROMPTS, max_tokens=5)
    assert len(seen) < len(PROMPTS)


def test_a_passing_fault_is_retried(project):
    failed = []

    def answer(body):
        if not failed:
            failed.append(1)
            raise Refusal(503, "busy")
        return "fine"

    with serve(answer) as (endpoint, _):
        assert Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)[0].text == "fine"


def test_a_dead_endpoint_is_an_error_and_not_an_empty_result(project, monkeypatch):
    import openai

    original = openai.AsyncOpenAI
    monkeypatch.setattr(openai, "AsyncOpenAI", lambda **kw: original(**kw | {"max_retries": 0}))
    with pytest.raises(ChatError, match="answered none of 2"):
        Chat("m", "http://127.0.0.1:9/v1").map(PROMPTS[:2], max_tokens=5)


def test_recording_replays_and_says_what_it_lacks(tmp_path, monkeypatch):
    store = Store(tmp_path / "s.jsonl")
    store.put(request("m", PROMPTS[0], max_tokens=5), Reply("one", "", "stop", 1, 1))
    package = tmp_path / "package"
    (package / "recorded" / "r").mkdir(parents=True)
    (package / "recorded" / "r" / "responses.jsonl.xz").write_bytes(record.pack(list(store.rows.values())))
    monkeypatch.setattr("distil.chat.resources.files", lambda name: package)
    chat = Chat("m", "recorded:r")
    assert chat.map(PROMPTS[:1], max_tokens=5)[0].text == "one"
    with pytest.raises(ChatError, match="holds no answer to 1 of 2 lessons(.|\n)*question 1"):
        chat.map(PROMPTS[:2], max_tokens=5, label="lessons")
    with pytest.raises(ChatError, match="there are: r"):
        Chat("m", "recorded:other")


def test_endpoints_are_checked_before_use(project):
    with pytest.raises(ChatError, match="needs a key"):
        check_endpoint("https://api.deepseek.com/v1")
    with pytest.raises(ChatError, match="give recorded:NAME, or a URL"):
        check_endpoint("api.deepseek.com")
    check_endpoint("http://127.0.0.1:8000/v1")


def test_the_key_is_stored_nowhere(tmp_path, project, monkeypatch):
    secret = "abc-very-secret"
    monkeypatch.setenv("DISTIL_API_KEY", secret)
    with serve(lambda body: "yes") as (endpoint, seen):
        Chat("m", endpoint, store=tmp_path / "s.jsonl").map(PROMPTS[:2], max_tokens=5)
    assert secret not in (tmp_path / "s.jsonl").read_text() and secret not in json.dumps(seen)


@pytest.mark.parametrize(("text", "field", "expected"), [
    ("42", "thinking", ("42", "thinking")),
    ("<think>hm</think>42", None, ("42", "hm")),
    ("hm</think>42", None, ("42", "hm")),
    ("42", None, ("42", "")),
])  # fmt: skip
def test_every_shape_of_reasoning(text, field, expected):
    assert split_reasoning(text, field) == expected
