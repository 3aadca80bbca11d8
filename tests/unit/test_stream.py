"""Streams as servers send them: thoughts and words in pieces, signs of life, silence, a cut, an error, a null."""

import json
import re
import socket
import threading
import time
from contextlib import contextmanager

import pytest
from loopback import Cut, Raw, Refusal, Said, serve

from distil.llm import replies
from distil.llm.cache import ChatError, Reply, Store
from distil.llm.client import Chat
from distil.llm.finish import why_unfinished
from distil.llm.multi_turn import talk

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(60)]
EVENTS = "text/event-stream"
THOUGHT = "Erst 3 + 4 = 7 ✓, then\n\nagain. " * 40


@pytest.fixture(autouse=True)
def impatient(project, monkeypatch):
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.001)


def events(*chunks: dict | str) -> bytes:
    return "".join(f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks).encode()


def delta(finish_reason: str | None = None, **fields: str | None) -> dict:
    return {"choices": [{"delta": fields, "finish_reason": finish_reason}]}


def read(data: bytes, size: int = 1 << 20) -> Reply:
    answer = replies.Answer()
    for i in range(0, len(data), size):
        answer.feed(data[i : i + size])
    return answer.reply()


def ask(answer, **limits) -> tuple[Reply | None, Chat, list]:
    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, **limits)
        (reply, _) = chat.map([PROMPTS[0], PROMPTS[1]], max_tokens=5)
    return reply, chat, seen


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_what_it_thought_and_what_it_said(field, tmp_path):
    said = Said("The sum is \\boxed{7}.", THOUGHT, field=field, tokens=300)
    with serve(lambda body: said) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl")
        (reply,) = chat.map(PROMPTS[:1], max_tokens=5)
        assert (reply.text, reply.reasoning) == ("The sum is \\boxed{7}.", THOUGHT.strip())
        assert reply.completion_tokens == 300 and 290 <= reply.reasoning_tokens < 300, "by the share of characters"
        assert Chat("m", endpoint, store=tmp_path / "s.jsonl").map(PROMPTS[:1], max_tokens=5) == [reply]
    assert seen.raw == [seen[0] | {"stream": True, "stream_options": {"include_usage": True}}]
    (line,) = (tmp_path / "s.jsonl").read_text().splitlines()
    assert "stream" not in json.loads(line)["request"] and line.endswith('"completion_tokens": 300}}')


def test_the_servers_own_count_of_thoughts_goes_before():
    reply, *_ = ask(lambda body: Said("7", THOUGHT, tokens=300, thought=123))
    assert (reply.completion_tokens, reply.reasoning_tokens) == (300, 123)
    hidden, *_ = ask(lambda body: Said("7", tokens=300, thought=299))
    assert (hidden.reasoning, hidden.reasoning_tokens) == ("", 299), "thoughts are counted, not shown"
    plain, *_ = ask(lambda body: Said("7", tokens=300))
    assert plain.reasoning_tokens == 0


def test_answers_of_older_stores_are_read(tmp_path):
    old = {"text": "7", "reasoning": "", "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 2}
    body = {"model": "m", "messages": PROMPTS[0], "max_tokens": 5}
    store = Store(tmp_path / "s.jsonl")
    store.put(body, Reply("", "", "stop", 1, 2))
    row = json.loads(store.path.read_text())
    store.path.write_text(json.dumps(row | {"reply": old}) + "\n")
    assert Store(store.path).get(body) == Reply("7", "", "stop", 1, 2)


def test_pieces_may_be_cut_anywhere(monkeypatch):
    monkeypatch.setattr(replies, "BATCH", 7)
    data = Said("sieben, 七, \\boxed{7}", THOUGHT, tokens=9).stream("m").replace(b"\n", b"\r\n")
    assert {read(data, size) for size in (1, 2, 3, 50, 1 << 20)} == {read(data)}
    assert read(data).text == "sieben, 七, \\boxed{7}" and read(data).reasoning == THOUGHT.strip()
    whole = Said("7", THOUGHT, tokens=9).whole("m")
    assert read(b"\n\n  \n" + whole, 3) == read(whole) == read(Said("7", THOUGHT, tokens=9).stream("m"))


def test_thoughts_between_tags_in_a_stream():
    data = events(delta(content="<thi"), delta(content="nk>hm</th"), delta(content="ink>7"), delta("stop"), "[DONE]")
    assert (read(data).text, read(data).reasoning) == ("7", "hm")


def test_both_fields_at_once_count_once():
    data = events(delta(reasoning="hm", reasoning_content="hm"), delta(content="7"), delta("stop"))
    assert (read(data).text, read(data).reasoning) == ("7", "hm")


def test_a_server_that_answers_with_json_all_the_same():
    def answer(body):
        raise Raw(b"\n\n\n" + Said("7", "hm").whole("m"))

    reply, *_ = ask(answer)
    assert (reply.text, reply.reasoning) == ("7", "hm")


BROKEN = {
    "no end": (events(delta(content="half an ans")), "the stream ended before the answer did"),
    "only life": (b": keep-alive\n\n: keep-alive\n\n", "the stream ended before the answer did"),
    "an error": (
        events(delta(content="7"), {"error": {"message": "out of memory"}}),
        "it sent an error: out of memory",
    ),
    "no json": (events(delta(content="7"), '{"choices'), "in an answer of text/event-stream"),
    "no object": (events("[1]"), "no piece of an answer in the stream"),
    "no text": (events(delta(content=[1])), "no piece of an answer in the stream"),
    "null": (events(delta(role="assistant", content=None), delta("stop"), "[DONE]"), "the message says nothing"),
    "null in json": (Said(None).whole("m"), "the message says nothing"),
    "broken off": (events(delta(content="7"), delta("insufficient_system_resource")), "the server broke off"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_whole_answer_is_asked_again_and_never_stored(kind, tmp_path):
    data, reason = BROKEN[kind]
    mended = []

    def answer(body):
        if body["messages"] == PROMPTS[0] and not mended:
            raise Raw(data, EVENTS)
        return "7"

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl")
        assert [r and r.text for r in chat.map(PROMPTS[:2], max_tokens=5)] == [None, "7"]
        assert reason in chat.failures[0].reason and "(6 attempts)" in chat.failures[0].reason
        assert len(chat.store) == 1 and len(seen) == 7
        mended.append(True)
        assert [r.text for r in chat.map(PROMPTS[:2], max_tokens=5)] == ["7", "7"]
    assert len(seen) == 8


def test_a_connection_cut_within_a_stream_is_asked_again(tmp_path):
    cuts = []

    def answer(body):
        if len(cuts) < 3:
            cuts.append(1)
            raise Cut(f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nContent-Length: 999\r\n\r\n" + "data: {")
        return "whole"

    with serve(answer) as (endpoint, seen):
        assert Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)[0].text == "whole"
    assert len(seen) == 4


@pytest.mark.parametrize("text", ["", None])
def test_who_thinks_until_the_limit_says_nothing(text):
    reply, chat, _ = ask(lambda body: Said(text, THOUGHT, "length", tokens=5))
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", THOUGHT.strip(), "length")
    assert chat.totals()["cut_off"] == 2
    silent, *_ = ask(lambda body: Said(text, "", "length", tokens=5))
    assert (silent.text, silent.reasoning, silent.finish_reason) == ("", "", "length")


def test_a_filter_within_a_stream_is_no_passing_fault():
    def answer(body):
        if body["messages"] == PROMPTS[0]:
            raise Raw(events({"error": {"code": "data_inspection_failed", "message": "no"}}), EVENTS)
        return "7"

    reply, chat, seen = ask(answer)
    assert reply is None and "data_inspection_failed" in chat.failures[0].reason and len(seen) == 2


@contextmanager
def pacing(pieces: list[bytes], pause: float):
    """A server that sends `pieces`, and waits before each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection:
            connection.recv(1 << 16)
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Type: {EVENTS}\r\nConnection: close\r\n\r\n".encode())
            try:
                for piece in pieces:
                    time.sleep(pause)
                    connection.sendall(piece)
            except OSError:  # the client has given up
                pass

    def accept() -> None:
        while True:
            try:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.close()


def test_silence_ends_an_attempt_and_length_does_not():
    life = [b": keep-alive\n\n", b"\n", events(delta(content="7"))]
    with pacing([*life * 3, events(delta("stop"))], 0.1) as endpoint:
        begun = time.monotonic()
        (reply,) = Chat("m", endpoint, timeout=0.5).map(PROMPTS[:1], max_tokens=5)
        assert reply.text == "777" and time.monotonic() - begun > 0.9
    with pacing([*life, events(delta("stop"))], 0.3) as endpoint:
        with pytest.raises(ChatError, match=r"nothing came for 0.15 s \(6 attempts\)"):
            Chat("m", endpoint, timeout=0.15).map(PROMPTS[:1], max_tokens=5)


NEWEST = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
REFUSALS = {
    "temperature": (400, "Unsupported value: 'temperature' does not support 0.7 with this model.", {}),
    "top_p": (400, "unsupported value", {"param": "top_p"}),
    "seed": (422, "extra fields not permitted: seed", {}),
    "stream_options": (400, "Unrecognized request argument supplied: stream_options", {}),
    "stream": (400, "stream is not supported", {}),
    "max_tokens": (400, NEWEST, {"param": "max_tokens", "code": "unsupported_parameter"}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_field_is_learned_once_and_left_out(name, capfd, tmp_path):
    status, words, more = REFUSALS[name]

    def answer(body):
        if name in seen.raw[-1]:
            raise Refusal(status, words, more=more)
        return "7"

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", concurrency=1)
        for _ in range(2):
            assert all(chat.map(PROMPTS[:4], max_tokens=5, temperature=0.7, seeds=[0, 1, 2, 3]))
        chat.map(PROMPTS[4:8], max_tokens=5, temperature=0.7)
    fate = "sent as max_completion_tokens" if name == "max_tokens" else "left out"
    assert len(seen) == 9 and capfd.readouterr().out == f"{endpoint} refuses {name} for m: {fate}\n"
    assert chat.totals()["left_out"] == [f"{name}: {fate}" if name == "max_tokens" else name]
    assert all(name not in body for body in seen.raw[1:])
    assert name == "max_tokens" or all(body["max_tokens"] == 5 for body in seen.raw)
    assert name != "max_tokens" or all(body["max_completion_tokens"] == 5 for body in seen.raw[1:])
    request = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])["request"]
    assert {"max_tokens": 5, "temperature": 0.7, "top_p": 0.95, "seed": 0}.items() <= request.items()


def test_requests_under_way_learn_together(capfd):
    def answer(body):
        time.sleep(0.02)
        for name in ("temperature", "seed"):
            if name in body:
                raise Refusal(400, f"'{name}' is not supported")
        return "7"

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, concurrency=30)
        assert all(chat.map(PROMPTS, max_tokens=5, temperature=0.7))
    assert len(capfd.readouterr().out.splitlines()) == 2 and chat.totals()["left_out"] == ["temperature", "seed"]
    assert len(seen) <= 60 + 2 * 30


@pytest.mark.parametrize("words", [
    "maximum context length is 4096 tokens; max_tokens is 5000, temperature 0.7",
    "'max_tokens' or 'max_completion_tokens' is too large: 9000",
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
    "no such thing as a logit_bias",
    "parameter.enable_thinking must be set to true",
])  # fmt: skip
def test_a_refusal_of_anything_else_stays_an_error(words):
    def answer(body):
        raise Refusal(400, words)

    with (
        serve(answer) as (endpoint, seen),
        pytest.raises(ChatError, match="refused .HTTP 400: " + re.escape(words[:20])),
    ):
        Chat("m", endpoint, concurrency=1).map(PROMPTS, max_tokens=5, temperature=0.7)
    assert len(seen) == 1


def test_who_refuses_whatever_is_sent_is_not_asked_for_ever():
    def answer(body):
        raise Refusal(400, "temperature, top_p, seed, stream and stream_options are nothing")

    with serve(answer) as (endpoint, seen), pytest.raises(ChatError, match="HTTP 400"):
        Chat("m", endpoint, concurrency=1).map(PROMPTS, max_tokens=5, temperature=0.7)
    assert len(seen) == 6


@pytest.mark.slow
def test_most_answers_cut_off_stop_the_asking_and_are_kept(tmp_path):
    def answer(body):
        i = int(body["messages"][0]["content"].split()[1])
        return Said("", "hm " * 9, "length", tokens=7) if i % 5 else Said("7", "hm")

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", concurrency=1)
        words = (
            "16 of the first 20 verdicts were cut off at 7 tokens; 16 of them thought until the limit and said nothing"
        )
        with pytest.raises(ChatError, match=f"{words}. All answers are kept. Raise it with --set verdict_tokens=N"):
            chat.map(PROMPTS, max_tokens=7, label="verdicts", limit="verdict_tokens")
        assert len(seen) == len(chat.store) == 20
        chat.map(PROMPTS[:20], max_tokens=7, limit="verdict_tokens")  # known already: none of them is asked
        chat.map(PROMPTS[20:39], max_tokens=7, limit="verdict_tokens")  # too few to tell
        with pytest.raises(ChatError, match="set slow_tokens=N"):
            talk(
                PROMPTS[39:],
                [()] * 21,
                chat,
                max_tokens=7,
                temperature=0,
                seeds=[0] * 21,
                label="x",
                limit="slow_tokens",
            )
        assert len(chat.map(PROMPTS, max_tokens=8)) == 60, "who names no parameter is not stopped"


def test_half_of_the_answers_cut_off_do_not_stop_the_asking():
    def answer(body):
        return Said("7", "", "length" if int(body["messages"][0]["content"].split()[1]) % 2 else "stop")

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, concurrency=1)
        chat.map(PROMPTS, max_tokens=7, limit="fast_tokens")
    assert len(seen) == 60 and chat.totals()["cut_off"] == 30


@pytest.mark.parametrize("word", ["eos", "end_turn"])
def test_what_other_servers_call_an_end_is_an_end(word):
    assert read(events(delta(content="4"), delta(word))).finish_reason == "stop"
    whole = {"choices": [{"message": {"content": "4"}, "finish_reason": word}]}
    assert read(json.dumps(whole).encode()).finish_reason == "stop"


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize("before", range(170, 215, 3))
def test_no_part_of_a_key_is_left_where_an_error_is_cut_short(before, status, monkeypatch):
    """What an endpoint says is masked whole, and then shortened."""
    monkeypatch.setenv("KEY_OF_MINE", secret := "sk-" + "0123456789abcdef" * 2)
    padding = "x" * (before + (300 if status != 200 else 0)) + " "

    def answer(_: dict) -> str:
        if status == 200:
            raise Raw((padding + secret).encode(), "text/html")
        raise Refusal(status, padding + secret)

    monkeypatch.setattr("distil.llm.transport.MAX_ATTEMPTS", 1)
    with serve(answer) as (endpoint, _):
        monkeypatch.setenv("DISTIL_KEYS", f"{endpoint.split('/')[2]}=KEY_OF_MINE")
        with pytest.raises(ChatError) as error:
            Chat("m", endpoint).map(PROMPTS[:1], max_tokens=9)
    assert "sk-0" not in str(error.value) and "xxx" in str(error.value)


def whole(content, finish_reason, tokens: int = 2, **more) -> dict:
    usage = {"prompt_tokens": 3, "completion_tokens": tokens}
    return {"choices": [{"message": {"content": content} | more, "finish_reason": finish_reason}], "usage": usage}


@pytest.mark.parametrize(("word", "tokens", "reason", "why"), [
    ("eos_token", 2, "stop", None),
    (None, 2, "stop", None),
    (None, 5, "length", "cut off at the token limit"),
    ("MAX_TOKENS", 2, "length", "cut off at the token limit"),
    ("model_length", 2, "length", "cut off at the token limit"),
    ("stop", 5, "stop", None),
    ("content_filter", 2, "content_filter", "refused by the provider's content filter"),
    ("tool_calls", 2, "tool_calls", "ended by tool_calls"),
])  # fmt: skip
def test_only_what_reached_the_limit_is_called_cut_off(word, tokens, reason, why):
    """Every answer that did not end by `stop` was "cut off at the token limit", and so were all of some servers."""

    def answer(body):
        raise Raw(json.dumps(whole("7", word, tokens)).encode())

    reply, chat, _ = ask(answer)
    assert (reply.finish_reason, why_unfinished(reply.text, reply.finish_reason)) == (reason, why)
    assert chat.totals()["cut_off"] == (2 if reason == "length" else 0)


def test_a_stream_that_says_its_end_and_no_reason_is_whole():
    reply, _, seen = ask(lambda body: (_ for _ in ()).throw(Raw(events(delta(content="7"), "[DONE]"), EVENTS)))
    assert (reply.text, reply.finish_reason, len(seen)) == ("7", "stop", 2)


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "7"}]


@pytest.mark.parametrize(
    "content", [PARTS, [{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "7"}]]
)
@pytest.mark.parametrize("streams", [True, False])
def test_a_content_of_parts_is_read_and_paid_once(content, streams):
    """It was asked, and paid, six times, and then refused."""

    def answer(body):
        if streams:
            raise Raw(events(*(delta(content=[part]) for part in content), delta("stop"), "[DONE]"), EVENTS)
        raise Raw(json.dumps(whole(content, "stop")).encode())

    reply, _, seen = ask(answer)
    assert (reply.text, reply.reasoning, len(seen)) == ("7", "hm", 2)


@pytest.mark.parametrize(("code", "requests"), [(402, 1), ("insufficient_quota", 1), (502, 12), (None, 12)])
def test_an_error_with_http_200_is_judged_by_its_code(code, requests):
    def answer(body):
        raise Raw(json.dumps({"error": {"message": "no", "code": code}}).encode())

    with serve(answer) as (endpoint, seen), pytest.raises(ChatError, match="it sent an error: no") as error:
        Chat("m", endpoint, concurrency=1).map(PROMPTS[:2], max_tokens=5)
    assert len(seen) == requests
    assert ("top it up" if requests == 1 else "give the command again later") in str(error.value)


def test_an_answer_that_speaks_of_money_is_no_fault_of_the_account():
    """What to do is told by what the server says, and never by the words of an answer that came in half."""
    half = events(delta(content="insufficient balance, data_inspection, content_filter"))
    with serve(lambda body: (_ for _ in ()).throw(Raw(half, EVENTS))) as (endpoint, seen):
        with pytest.raises(ChatError, match="ended before the answer did.*6 attempts"):
            Chat("m", endpoint).map(PROMPTS[:1], max_tokens=5)
    assert len(seen) == 6


def test_signs_of_life_alone_are_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr("distil.llm.transport.MAX_ATTEMPTS", 1)
    with pacing([b": keep-alive\n\n"] * 40, 0.05) as endpoint:
        begun = time.monotonic()
        with pytest.raises(ChatError, match="nothing but signs of life came for 0.6 s.*raise DISTIL_TIMEOUT"):
            Chat("m", endpoint, timeout=0.2).map(PROMPTS[:1], max_tokens=5)
        assert 0.5 < time.monotonic() - begun < 1.5
    with pacing([*[b": keep-alive\n\n", events(delta(content="7"))] * 12, events(delta("stop"))], 0.05) as endpoint:
        (reply,) = Chat("m", endpoint, timeout=0.2).map(PROMPTS[:1], max_tokens=5)
    assert reply.text == "7" * 12, "longer than that limit, with words in it"


@pytest.mark.parametrize("name", ["seed", "top_p", "max_tokens", "stream"])
def test_null_among_the_extra_fields_leaves_a_field_out(name, tmp_path):
    """It is not sent, and the stored request has it: samples differ by their seeds, and recordings are found."""
    with serve(lambda body: "7") as (endpoint, seen):
        plain = Chat("m", endpoint, store=tmp_path / "plain.jsonl")
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", extra={name: None})
        for each in (plain, chat):
            assert len(each.map(PROMPTS[:1] * 2, max_tokens=5, temperature=0.7, seeds=[1, 2])) == 2
    assert all(name in body for body in seen.raw[:2]) and not any(name in body for body in seen.raw[2:])
    assert len(seen) == 4 and chat.totals()["left_out"] == [name]
    keys = [{json.loads(line)["key"] for line in each.store.path.read_text().splitlines()} for each in (plain, chat)]
    assert keys[0] == keys[1]
