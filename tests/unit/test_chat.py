import asyncio
import json
import traceback

import pytest
from loopback import Refusal, serve

from distil.llm.cache import ChatError, Reply, Store, request, request_key
from distil.llm.client import Chat
from distil.llm.endpoints import check_endpoint
from distil.llm.replies import split_reasoning
from distil.pipeline import record

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
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.001)
    with pytest.raises(ChatError, match="answered none of 2"):
        Chat("m", "http://127.0.0.1:9/v1").map(PROMPTS[:2], max_tokens=5)


@pytest.fixture
def recording(tmp_path, monkeypatch):
    store = Store()
    store.put(request("m", PROMPTS[0], max_tokens=5), Reply("one", "", "stop", 1, 1))
    store.put(request("m", PROMPTS[1], max_tokens=5, temperature=0.7, seed=3), Reply("two", "", "stop", 1, 1))
    package = tmp_path / "package"
    (package / "recorded" / "r").mkdir(parents=True)
    (package / "recorded" / "r" / "responses.jsonl.xz").write_bytes(record.pack(list(store.rows())))
    monkeypatch.setattr("distil.llm.cache.resources.files", lambda name: package)


def test_recording_replays(recording):
    chat = Chat("m", "recorded:r")
    assert chat.map(PROMPTS[:1], max_tokens=5)[0].text == "one"
    assert chat.totals()["asked"] == 0
    with pytest.raises(ChatError, match="there are: r"):
        Chat("m", "recorded:other")


def test_a_recording_may_lack_one_answer_in_a_hundred(recording, capsys, monkeypatch):
    """A mended verifier accepts a rewrite that was refused when the recording was made; its judge was never asked."""
    monkeypatch.setattr("distil.llm.client.LACKING", 0.5)  # the recording of this test holds one
    chat, lacking = Chat("m", "recorded:r"), [[{"role": "user", "content": f"new {i}"}] for i in range(2)]
    found = chat.map([*[PROMPTS[0]] * 99, lacking[0]], max_tokens=5, label="verdicts")
    assert [reply.text for reply in found[:99]] == ["one"] * 99 and found[99] is None
    assert "recorded:r holds no answer to 1 of 100 verdicts: they stay unanswered" in capsys.readouterr().out
    assert [failure.index for failure in chat.failures] == [99]
    with pytest.raises(ChatError, match="no answer to 2 of 100 verdicts"):
        chat.map([*[PROMPTS[0]] * 98, *lacking], max_tokens=5, label="verdicts")


def test_recording_says_which_prompt_changed(recording):
    chat = Chat("m", "recorded:r")
    prompts = [PROMPTS[0], [{"role": "user", "content": "question 1, changed"}]]
    with pytest.raises(ChatError, match="no answer to 1 of 2 lessons") as caught:
        chat.map(prompts, max_tokens=5, label="lessons")
    assert "-user: question 1" in str(caught.value) and "+user: question 1, changed" in str(caught.value)


def test_recording_says_which_parameter_changed(recording, monkeypatch):
    def why(prompt, model="m", **sampling) -> str:
        with pytest.raises(ChatError) as caught:
            Chat(model, "recorded:r").map([prompt], **sampling)
        return str(caught.value)

    assert "max_tokens is 6, recorded with 5" in why(PROMPTS[0], max_tokens=6)
    assert "model is 'other', recorded with 'm'" in why(PROMPTS[0], "other", max_tokens=5)
    assert "seed is 4, recorded with 3" in why(PROMPTS[1], max_tokens=5, temperature=0.7, seeds=[4])
    monkeypatch.setenv("DISTIL_EXTRA", '{"chat_template_kwargs": {"enable_thinking": false}}')
    assert "chat_template_kwargs is {'enable_thinking': False}, recorded with None" in why(PROMPTS[0], max_tokens=5)


def test_endpoints_are_checked_before_use(project):
    with pytest.raises(ChatError, match="needs a key"):
        check_endpoint("https://api.deepseek.com/v1")
    with pytest.raises(ChatError, match="give recorded:NAME, vllm, or a URL"):
        check_endpoint("api.deepseek.com")
    check_endpoint("http://127.0.0.1:8000/v1")


def test_an_address_that_carries_a_key_is_refused_without_repeating_it(project):
    for address in ("https://u:abc-secret@api.example.com/v1", "https://api.example.com/v1?key=abc-secret"):
        with pytest.raises(ChatError) as caught:
            check_endpoint(address)
        assert "abc-secret" not in str(caught.value)


def test_a_proxy_of_the_environment_is_used(project, monkeypatch):
    monkeypatch.setenv("DISTIL_API_KEY", "none")  # a key would be refused: the proxy could read it
    with serve(lambda body: "by proxy") as (endpoint, _):
        monkeypatch.setenv("http_proxy", endpoint.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        assert Chat("m", "http://teacher.invalid/v1").map(PROMPTS[:1], max_tokens=5)[0].text == "by proxy"


def test_extra_fields_are_sent_and_are_part_of_the_key_only_if_given(tmp_path, project):
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    with serve(lambda body: "yes") as (endpoint, seen):
        Chat("m", endpoint, store=tmp_path / "s.jsonl").map(PROMPTS[:1], max_tokens=5)
        Chat("m", endpoint, store=tmp_path / "s.jsonl", extra=extra).map(PROMPTS[:1], max_tokens=5)
    assert "chat_template_kwargs" not in seen[0]
    assert seen[1] == seen[0] | extra
    assert request_key(request("m", PROMPTS[0], max_tokens=5)) == (
        "db82a6b7319ddec41c5a5d5c9e61e4ddd0eda678b8a99da9577e3f4a6ee99c52"
    ), "the key of a request is fixed for ever: recordings rest on it"


def test_the_key_is_stored_nowhere(tmp_path, project, monkeypatch):
    secret = "abc-very-secret"
    monkeypatch.setenv("MINE", secret)
    monkeypatch.setenv("DISTIL_KEYS", "127.0.0.1=MINE")
    with serve(lambda body: "yes") as (endpoint, seen):
        Chat("m", endpoint, store=tmp_path / "s.jsonl").map(PROMPTS[:2], max_tokens=5)
    assert [headers["Authorization"] for headers in seen.headers] == [f"Bearer {secret}"] * 2
    assert secret not in (tmp_path / "s.jsonl").read_text() and secret not in json.dumps(seen.raw)


@pytest.mark.parametrize("status", [401, 503])
def test_a_key_that_the_endpoint_echoes_is_masked(status, tmp_path, project, monkeypatch, capfd):
    secret = "abc-very-secret"
    monkeypatch.setenv("MINE", f"{secret}\n")  # as read from a file
    monkeypatch.setenv("DISTIL_KEYS", "127.0.0.1=MINE")
    monkeypatch.setattr("distil.llm.transport.FIRST_BACKOFF", 0.001)

    def answer(body):
        raise Refusal(status, f"bad key {secret}")

    with serve(answer) as (endpoint, _), pytest.raises(ChatError, match=r"bad key \*\*\*") as caught:
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl")
        chat.map(PROMPTS[:2], max_tokens=5)
    told = "".join(traceback.format_exception(caught.value)) + str(chat.failures) + repr(vars(chat))
    assert secret not in told + "".join(capfd.readouterr())
    assert not any(secret.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


@pytest.mark.parametrize(("text", "field", "expected"), [
    ("42", "thinking", ("42", "thinking")),
    ("<think>hm</think>42", None, ("42", "hm")),
    ("hm</think>42", None, ("42", "hm")),
    ("42", None, ("42", "")),
    ("<think>\n\n</think>\n\n42", None, ("42", "")),
    ("<think>hm, cut off", None, ("", "hm, cut off")),
])  # fmt: skip
def test_every_shape_of_reasoning(text, field, expected):
    assert split_reasoning(text, field) == expected


def test_a_request_counts_once_however_often_its_answer_is_looked_at(tmp_path, project):
    """A notebook looks at one chain first; four equal prompts are one request."""
    with serve(lambda body: "four words are said") as (endpoint, seen):
        chat = Chat("m", endpoint, store=tmp_path / "s.jsonl", price="0/100000")
        chat.map(PROMPTS[:1] * 4, max_tokens=9)
        chat.map(PROMPTS[:3], max_tokens=9)
    totals = chat.totals()
    assert len(seen) == 3 and (totals["asked"], totals["from_store"]) == (3, 0)
    assert (totals["asked_completion_tokens"], totals["stored_completion_tokens"], totals["dollars"]) == (12, 0, 1.2)
    stored = [json.loads(line)["dollars"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert stored == [0.4, 0.4, 0.4]
    again = Chat("m", endpoint, store=tmp_path / "s.jsonl")
    again.map(PROMPTS[:3] * 2, max_tokens=9)
    assert (again.totals()["asked"], again.totals()["from_store"]) == (0, 3)
