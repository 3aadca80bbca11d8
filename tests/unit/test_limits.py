"""Requests and tokens a minute, seconds, dollars: each limit holds, and a mistyped one is found at once."""

import json
import time

import pytest
from loopback import Raw, serve

from distil import cli
from distil.llm.cache import ChatError
from distil.llm.client import Chat
from distil.llm.endpoints import check_endpoint
from distil.llm.limits import Limits

PROMPTS = [[{"role": "user", "content": f"question {i}"}] for i in range(40)]
LOCAL = "http://127.0.0.1:9/v1"


@pytest.mark.parametrize(("name", "value"), [
    ("DISTIL_RPM", "many"),
    ("DISTIL_RPM", "0"),
    ("DISTIL_TPM", "-1"),
    ("DISTIL_TIMEOUT", "nan"),
    ("DISTIL_CONCURRENCY", "1.5"),
    ("DISTIL_PRICE", "0.27"),
    ("DISTIL_PRICE", "0.27/-1"),
    ("DISTIL_MAX_COST", "free"),
    ("DISTIL_EXTRA", '{"model": "other"}'),
    ("DISTIL_EXTRA", "thinking"),
])  # fmt: skip
def test_a_mistyped_limit_is_named_with_what_it_should_be(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    for use in (lambda: Chat("m", LOCAL), lambda: check_endpoint(LOCAL)):
        with pytest.raises(ChatError, match=f"{name}=.*: give .*such as"):
            use()


def test_distil_run_finds_it_before_anything_starts(project, monkeypatch, capsys):
    monkeypatch.setenv("DISTIL_MAX_COST", "5")
    assert cli.main(["run", "--profile", "smoke", "--run", "t"]) == 2
    assert "DISTIL_MAX_COST needs DISTIL_PRICE" in capsys.readouterr().err
    assert not (project / "artifacts").exists()


def test_keyword_arguments_go_before_the_environment(monkeypatch):
    monkeypatch.setenv("DISTIL_RPM", "60")
    monkeypatch.setenv("DISTIL_PRICE", "0.27/1.10")
    assert Limits.read() == Limits(rpm=60.0, price=(0.27, 1.1))
    assert Limits.read(rpm=30, price=(1, 2)) == Limits(rpm=30.0, price=(1.0, 2.0))
    with pytest.raises(TypeError, match="no limit colour"):
        Limits.read(colour="red")


def test_requests_a_minute(project):
    times = []

    def answer(body: dict) -> str:
        times.append(time.monotonic())
        return "yes"

    with serve(answer) as (endpoint, _):
        Chat("m", endpoint, rpm=1200).map(PROMPTS[:21], max_tokens=5)  # one each 50 ms
    assert 0.9 <= times[-1] - times[0] <= 1.5
    assert all(b - a > 0.9 * 9 * 0.05 - 0.05 for a, b in zip(times, times[9:], strict=False)), "evenly, not in bursts"


def test_tokens_a_minute(project):
    with serve(lambda body: "word " * 99) as (endpoint, seen):  # 100 tokens with the prompt's one
        begun = time.monotonic()
        Chat("m", endpoint, tpm=120_000, concurrency=4).map(PROMPTS, max_tokens=100)
        seconds = time.monotonic() - begun
    assert 40 * 100 * 60 / 120_000 * 0.85 <= seconds <= 40 * 100 * 60 / 120_000 * 1.6


def test_cost_is_counted_now_and_before(tmp_path, project):
    with serve(lambda body: "word " * 10) as (endpoint, _):
        for asked, stored in ((10, 0), (10, 10), (0, 20)):
            chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", price="1/2")
            chat.map(PROMPTS[: asked + stored], max_tokens=20)
            assert chat.totals() == {
                "model": "m",
                "endpoint": endpoint,
                "cut_off": 0,
                "left_out": [],
                "asked": asked,
                "from_store": stored,
                "asked_prompt_tokens": asked,
                "asked_completion_tokens": 10 * asked,
                "stored_prompt_tokens": stored,
                "stored_completion_tokens": 10 * stored,
                "dollars": round(asked * 21e-6, 4),
            }
            if asked:
                assert chat.budget.spent == pytest.approx((asked + stored) * 21e-6), "of the run, not of this process"


@pytest.mark.parametrize("concurrency", [1, 16])
def test_max_cost_stops_before_it_is_passed_and_says_how_to_go_on(concurrency, tmp_path, project):
    store = tmp_path / "s.jsonl"
    limits = {"concurrency": concurrency, "price": "1000/100000"}  # 10 tokens of an answer and 1 of the prompt: 1.001
    with serve(lambda body: "word " * 10) as (endpoint, seen):
        for _ in range(2):  # the second time, what is stored has used up the money
            chat = Chat("m", endpoint, store=store, max_cost=20, **limits)
            with pytest.raises(ChatError, match="DISTIL_MAX_COST=20: .* were not asked.*raise DISTIL_MAX_COST"):
                chat.map(PROMPTS, max_tokens=20)
            assert 16 <= chat.budget.spent <= 20
        assert len(seen) == len(chat.store) == round(chat.budget.spent / 1.001)
        assert len(Chat("m", endpoint, store=store, max_cost=100, **limits).map(PROMPTS, max_tokens=20)) == 40
        assert len(seen) == 40, "nothing was asked twice"
    with pytest.raises(ChatError, match="MAX_COST needs DISTIL_PRICE"):
        Chat("m", endpoint, max_cost=1)


def test_a_server_that_counts_no_tokens_is_charged_the_most(project):
    def answer(body: dict) -> str:
        raise Raw(b'{"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}')

    with serve(answer) as (endpoint, seen):
        with pytest.raises(ChatError, match="DISTIL_MAX_COST"):
            Chat("m", endpoint, price="0/100000", max_cost=10, concurrency=4).map(PROMPTS, max_tokens=10)
    assert len(seen) == 10


def test_progress_shows_speed_and_cost_and_a_batch_run_shows_nothing(project, monkeypatch, capfd):
    with serve(lambda body: "word " * 10) as (endpoint, _):
        Chat("m", endpoint, price="1/2").map(PROMPTS, max_tokens=20, label="quiet")
        monkeypatch.setenv("DISTIL_BATCH", "0")
        Chat("m", endpoint, price="1/2").map(PROMPTS, max_tokens=20, label="loud")
    told = capfd.readouterr().err
    assert "quiet" not in told
    assert "loud: 100%" in told and "40/40" in told and "tokens/s, 0.00 dollars" in told


@pytest.mark.parametrize("extra", ['{"api_key": "sk-1"}', '{"extra_headers": {"Authorization": "Bearer sk-1"}}'])
def test_a_key_among_extra_fields_is_refused_and_not_repeated(extra, monkeypatch):
    """They are part of every stored request and of meta.json."""
    monkeypatch.setenv("DISTIL_EXTRA", extra)
    with pytest.raises(ChatError, match="DISTIL_KEYS") as error:
        Limits.read()
    assert "sk-1" not in str(error.value)
    monkeypatch.setenv("DISTIL_EXTRA", '{"stop_token": "</s>", "max_thought_tokens": 9}')
    assert Limits.read().extra["stop_token"] == "</s>"


def test_a_server_that_counts_no_tokens_has_them_estimated_and_says_so(project, tmp_path, capsys):
    """Every chain had 0 tokens: the shortest was any, and 07 showed 0."""

    def answer(body: dict) -> str:
        text = "你好" * 100 if "1" in body["messages"][0]["content"] else "word " * 100
        raise Raw(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode())

    with serve(answer) as (endpoint, _):
        for _ in range(2):
            chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", price="0/1000")
            replies = chat.map(PROMPTS[:2], max_tokens=500)
            assert [r.completion_tokens for r in replies] == [124, 150] and all(r.estimated for r in replies)
    assert chat.totals()["estimated"] == 2 and chat.totals()["stored_completion_tokens"] == 274
    (told, again) = capsys.readouterr().out.splitlines()
    assert told == again and "does not count the tokens of requests" in told and "costs are estimates" in told
    with serve(lambda body: "four words are said") as (endpoint, _):
        chat = Chat("m", endpoint)
        assert chat.map(PROMPTS[:1], max_tokens=9)[0].completion_tokens == 4 and "estimated" not in chat.totals()


@pytest.mark.parametrize(("extra", "why"), [
    ('{"seed": 1}', "seed is set by the parameters of the run, and null leaves it out"),
    ('{"model": null}', "model is set by the parameters of the run$"),
    ("[1]", "it is no object in braces"),
    ("{'seed': null}", "Expecting property name enclosed in double quotes"),
])  # fmt: skip
def test_a_refused_extra_field_says_why(extra, why, monkeypatch):
    monkeypatch.setenv("DISTIL_EXTRA", extra)
    with pytest.raises(ChatError, match=f"DISTIL_EXTRA=.*null leaves a field out.*; {why}"):
        Limits.read()
