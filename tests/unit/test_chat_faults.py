"""Whatever an endpoint does, every row ends stored, or listed with its reason."""

import random
import time
from collections import Counter

import pytest
from factories import a_problem
from loopback import Cut, Raw, Refusal, serve

from distil.chains.collect import collect
from distil.llm.cache import ChatError
from distil.llm.client import Chat
from distil.llm.transport import retry_after_seconds
from distil.verify.chain_text import split_chain

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(80)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch, project):
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.002)


def fault(kind: str) -> str:
    """What a server does with one request. Returns a good answer, or raises."""
    if kind == "hang":
        time.sleep(0.6)
    elif kind in ("500", "503"):
        raise Refusal(int(kind), "out of order")
    elif kind == "429":
        raise Refusal(429, "slower, please", retry_after=0.01)
    elif kind == "cut":
        raise Cut()
    elif kind == "cut within":
        raise Cut("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{")
    elif kind == "no choices":
        raise Raw(b'{"choices": []}')
    elif kind == "not an object":
        raise Raw(b"[1, 2]")
    elif kind == "broken":
        raise Raw(b'{"choices": [{"mess')
    elif kind == "page":
        raise Raw(b"<html>bad gateway</html>", "text/html")
    elif kind == "error in 200":
        raise Raw(b'{"error": {"message": "no such luck"}}')
    return "fine"


KINDS = {
    "hang": "nothing came for 0.2 s",
    "500": "HTTP 500: out of order",
    "503": "HTTP 503: out of order",
    "429": "HTTP 429: slower, please",
    "cut": "ServerDisconnectedError",
    "cut within": "ClientPayloadError",
    "no choices": "no choice with a message in an answer of application/json",
    "not an object": "no choice with a message",
    "broken": "Unterminated string",
    "page": "in an answer of text/html: '<html>bad gateway",
    "error in 200": "no such luck",
}


def test_faults_that_pass_are_mended(tmp_path):
    rng, failed = random.Random(0), Counter()

    def answer(body: dict) -> str:
        content = body["messages"][0]["content"]
        if failed[content] < 2 and rng.random() < 0.7:
            failed[content] += 1
            return fault(rng.choice(list(KINDS)))
        return content

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", concurrency=16, timeout=0.2)
        replies = chat.map(PROMPTS, max_tokens=5)
    assert [r.text for r in replies] == [p[0]["content"] for p in PROMPTS]
    assert chat.failures == [] and len(chat.store) == len(PROMPTS)
    assert len(seen) > len(PROMPTS)


def test_faults_that_stay_are_listed_with_their_reason(tmp_path):
    kinds = [*KINDS, "fine"]

    def answer(body: dict) -> str:
        return fault(kinds[int(body["messages"][0]["content"].split()[1]) % len(kinds)])

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", concurrency=16, timeout=0.2)
        replies = chat.map(PROMPTS[:24], max_tokens=5, label="trials")
        assert chat.map(PROMPTS[11:12], max_tokens=5)[0].text == "fine"
    assert max(Counter(str(body) for body in seen).values()) <= 6, "attempts are bounded"
    assert [r.text if r else None for r in replies] == ([None] * 11 + ["fine"]) * 2
    assert chat.failures == [], "the last map had none"


def test_a_failure_names_its_request_and_its_reason():
    def answer(body: dict) -> str:
        return fault(next((k for k in KINDS if body["messages"][0]["content"] == k), "fine"))

    with serve(answer) as (endpoint, _):
        chat = Chat("m", endpoint, timeout=0.2)
        chat.map([[{"role": "user", "content": text}] for text in ("fine", *KINDS)], max_tokens=5, label="trials")
    assert [f.index for f in chat.failures] == list(range(1, len(KINDS) + 1))
    for failure, (kind, reason) in zip(chat.failures, KINDS.items(), strict=True):
        assert failure.label == "trials" and failure.request["messages"][0]["content"] == kind
        assert reason in failure.reason and "(6 attempts)" in failure.reason


def test_collect_lists_rows_without_an_answer():
    def answer(body: dict) -> str:
        return fault("500" if "9 + 9" in body["messages"][-1]["content"] else "fine")

    problems = [
        a_problem(id=f"p{i}", question=q, answer=a, verifier="math")
        for i, (q, a) in enumerate([("1 + 1", "2"), ("9 + 9", "18")])
    ]
    with serve(answer) as (endpoint, _):
        chains, failed = collect(problems, Chat("m", endpoint), "fast", samples=2, seed=0)
    assert [c.id for c in chains] == ["p0-fast-0", "p0-fast-1"]
    assert [(f["problem_id"], f["style"], f["sample"]) for f in failed] == [("p1", "fast", 0), ("p1", "fast", 1)]
    assert all("HTTP 500: out of order" in f["reason"] for f in failed)


@pytest.mark.parametrize(("status", "words"), [
    (400, "maximum context length is 4096 tokens"),
    (401, "bad key"),
    (402, "insufficient balance"),
    (404, "model m does not exist"),
    (429, "insufficient_quota"),
])  # fmt: skip
def test_what_retrying_cannot_mend_is_asked_once(status, words):
    def answer(body: dict) -> str:
        raise Refusal(status, words)

    with serve(answer) as (endpoint, seen), pytest.raises(ChatError, match=words):
        Chat("m", endpoint, concurrency=1).map(PROMPTS, max_tokens=5)
    assert len(seen) == 1


def test_one_prompt_that_a_content_filter_refuses_does_not_stop_the_rest():
    def answer(body: dict) -> str:
        if body["messages"][0]["content"] == "question 3":
            raise Refusal(400, "Content Exists Risk")
        return "fine"

    with serve(answer) as (endpoint, seen):
        chat = Chat("m", endpoint)
        chat.map(PROMPTS[:8], max_tokens=5)
        assert [f.index for f in chat.failures] == [3] and len(seen) == 8
        replies = chat.map(PROMPTS[:8], max_tokens=5)  # and so again when the run is resumed
    assert replies[3] is None and [f.index for f in chat.failures] == [3] and len(seen) == 9


def test_an_endpoint_that_is_down_is_given_up(monkeypatch):
    monkeypatch.setattr("distil.llm.client.DEAD_AFTER", 5)
    with pytest.raises(ChatError, match="failed 5 requests in a row.*give the command again"):
        Chat("m", "http://127.0.0.1:9/v1", concurrency=2).map(PROMPTS, max_tokens=5)


def test_retry_after_is_honoured_by_all():
    times = []

    def answer(body: dict) -> str:
        times.append(time.monotonic())
        if len(times) == 1:
            raise Refusal(429, "slower", retry_after=0.4)
        return "fine"

    with serve(answer) as (endpoint, _):
        Chat("m", endpoint, concurrency=1).map(PROMPTS[:3], max_tokens=5)
    assert times[1] - times[0] >= 0.4
    assert (
        retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0
        and retry_after_seconds("soon") == 0
        and retry_after_seconds("2.5") == 2.5
    )


def test_a_wait_of_an_hour_is_a_failure():
    def answer(body: dict) -> str:
        if body["messages"][0]["content"] == "question 0":
            raise Refusal(429, "daily limit", retry_after=3600)
        return "fine"

    with serve(answer) as (endpoint, _):
        chat = Chat("m", endpoint)
        chat.map(PROMPTS[:2], max_tokens=5)
    assert "asks to wait 3600 s" in chat.failures[0].reason


def test_a_thought_that_was_cut_off_has_no_solution():
    text = "<|begin_of_thought|>\nOne.\n\nTwo, and then"
    assert split_chain(text, cut=True) == ("One.\n\nTwo, and then", "")
    assert split_chain(text + "<|end_of_thought|>\nall", cut=True)[1] != ""
