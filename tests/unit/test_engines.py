"""A student asked here in batches, here with continuous batching, and behind a real HTTP server."""

import dataclasses
import time

import pytest
from factories import a_problem
from loopback import Refusal, serve

from distil.evaluate import engines, metrics
from distil.evaluate.answers import answer
from distil.evaluate.engines import GenerationRequest
from distil.llm.cache import ChatError
from distil.llm.prompts import student_messages
from distil.models.student import Generated, load, load_tokenizer
from distil.models.weights import tiny_random
from distil.workspace import fingerprint
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl
from distil.workspace.rows import Completion

PROBLEMS = [a_problem(id=f"p{i}", question="What is " + "1 + " * i + "1?", answer=str(i + 1)) for i in range(7)]
SETTINGS = {"weights": "first", "max_new_tokens": 10, "batch_size": 3}
GREEDY = {"max_new_tokens": 12, "temperature": 0.0}
SAMPLED = SETTINGS | {"samples": 3, "temperature": 0.6, "seed": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> tuple:
    folder = str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))
    model = load(folder).float()
    model.get_input_embeddings().weight.data.mul_(0.2)  # less sure of itself, so that samples differ
    return model, load_tokenizer(folder)


def refuse():
    raise AssertionError("everything was answered already")


def without_time(rows: list) -> list:
    """Completions or answers of an engine, as if each had taken no time."""
    return [dataclasses.replace(row, seconds=0) for row in rows]


def test_samples_differ_and_come_again_after_a_kill(tiny, tmp_path):
    whole = answer(PROBLEMS, lambda: tiny, tmp_path / "whole.jsonl", **SAMPLED)
    assert [(row.id, row.sample) for row in whole] == [(p.id, s) for p in PROBLEMS for s in range(3)]
    assert len({row.text for row in whole[:3]}) > 1, "sampled"
    lines = (tmp_path / "whole.jsonl").read_text().split("\n")
    (tmp_path / "cut.jsonl").write_text("\n".join(lines[:8]) + lines[8][:20])  # in the middle of the third batch
    again = answer(PROBLEMS, lambda: tiny, tmp_path / "cut.jsonl", **SAMPLED)
    assert without_time(again) == without_time(whole)
    rows = read_jsonl(tmp_path / "cut.jsonl", Completion)
    assert len(rows) == len({(row.id, row.sample) for row in rows}) == 21, "no answer is there twice"
    assert answer(PROBLEMS, refuse, tmp_path / "cut.jsonl", **SAMPLED) == again


def test_more_samples_leave_the_first_ones_as_they_are(tiny, tmp_path):
    path = tmp_path / "answers.jsonl"
    few = answer(PROBLEMS, lambda: tiny, path, **SAMPLED | {"samples": 2})
    more = answer(PROBLEMS, lambda: tiny, path, **SAMPLED)
    assert [row for row in more if row.sample < 2] == few
    for changed in ({"seed": 2}, {"temperature": 0.7}):
        with pytest.raises(AssertionError, match="answered already"):
            answer(PROBLEMS, refuse, path, **SAMPLED | changed)


def test_answers_of_other_weights_are_removed_and_those_to_other_questions_stay(tiny, tmp_path):
    path = tmp_path / "answers.jsonl"
    first = answer(PROBLEMS, lambda: tiny, path, **SETTINGS)
    fewer = answer(PROBLEMS[:3], lambda: tiny, path, **SETTINGS | {"weights": "second"})
    kept = read_jsonl(path, Completion)
    assert sorted(kept, key=lambda row: row.id) == fewer + first[3:]


def test_answers_are_sampled_alike_whatever_code_and_words_they_are_kept_by(monkeypatch, tmp_path):
    """Seeds are those of runs before: else a mended comma would measure another sample."""
    seen = []

    def answers(engine, load, requests, **_):
        seen.extend(request.seed for request in requests[0])
        yield [Generated("1", 1, "stop", 0.1) for _ in requests[0]]

    monkeypatch.setattr(engines, "answers", answers)
    answer(PROBLEMS[:1], refuse, tmp_path / "a.jsonl", **SAMPLED | {"samples": 1})
    assert seen == [int(digest("first", PROBLEMS[0].question, 10, 3, 0.6, 1, 0), 16) % 2**31]


def asked_again(path, monkeypatch, **changed) -> bool:
    """Is a question asked again that `path` has an answer to?"""
    asked = []

    def answers(engine, load, requests, **_):
        asked.append(requests)
        yield [Generated(r"\boxed{1}", 1, "stop", 0.1) for _ in requests[0]]

    monkeypatch.setattr(engines, "answers", answers)
    answer(PROBLEMS[:1], refuse, path, **SETTINGS | changed)
    return bool(asked)


def test_another_prompt_other_fields_and_other_code_are_asked_again(monkeypatch, tmp_path, project):
    path = tmp_path / "a.jsonl"
    url = {"engine": "http://localhost:8000/v1"}
    assert asked_again(path, monkeypatch) and not asked_again(path, monkeypatch)
    (tmp_path / "student.md").write_text("Be brief. {question}")
    monkeypatch.setenv("DISTIL_PROMPTS", str(tmp_path))
    assert asked_again(path, monkeypatch), "asked.json would tell of words that were not asked"
    monkeypatch.setitem(fingerprint.SOURCES, "models/student.py", b"other = 1")
    fingerprint.said.cache_clear()
    assert asked_again(path, monkeypatch)
    assert asked_again(path, monkeypatch, **url) and not asked_again(path, monkeypatch, **url)
    assert asked_again(path, monkeypatch, extra={"enable_thinking": False}, **url)
    monkeypatch.setenv("DISTIL_EXTRA", '{"top_k": 3}')
    assert asked_again(path, monkeypatch, extra={"enable_thinking": False}, **url)
    fingerprint.said.cache_clear()


def test_a_mended_gold_answer_or_verifier_judges_kept_answers_again(monkeypatch, tmp_path):
    path, problem = tmp_path / "a.jsonl", PROBLEMS[0]
    assert asked_again(path, monkeypatch)
    first = read_jsonl(path, Completion)[0]
    assert first.correct and first.answer == "1"
    (mended,) = answer([problem.replace(answer="2")], refuse, path, **SETTINGS)
    assert not mended.correct and read_jsonl(path, Completion) == [mended], "kept as it is judged now"
    (back,) = answer([problem], refuse, path, **SETTINGS)
    assert back == first
    monkeypatch.setattr("distil.verify.verifier.Verifier.is_right", lambda *_: False)
    assert answer([problem], refuse, path, **SETTINGS) == [first], "programs would be run again for nothing"
    monkeypatch.setitem(fingerprint.SOURCES, "verify/math.py", b"other = 1")
    fingerprint.said.cache_clear()
    (row,) = answer([problem], refuse, path, **SETTINGS)
    fingerprint.said.cache_clear()
    assert not row.correct and row.text == first.text


def test_continuous_batching_gives_the_answers_of_plain_batches(tiny):
    batches = [[GenerationRequest(student_messages(p.question), i) for i, p in enumerate(PROBLEMS)]]
    (plain,) = engines.batched(*tiny, batches, **GREEDY)
    small = {"num_blocks": 16, "block_size": 32, "max_batch_tokens": 64}
    (paged,) = engines.paged(*tiny, batches, **GREEDY, **small)
    assert without_time(paged) == without_time(plain)
    (sampled,), (again,) = (
        engines.paged(*tiny, batches, max_new_tokens=12, temperature=0.6, **small) for _ in range(2)
    )
    assert without_time(sampled) == without_time(again)


def test_what_continuous_batching_leaves_is_answered_in_plain_batches(tiny, monkeypatch, capsys):
    model, tokenizer = tiny
    whole = model.generate_batch
    monkeypatch.setattr(model, "generate_batch", lambda *a, **k: dict(list(whole(*a, **k).items())[:2]))
    batches = [[GenerationRequest(student_messages(p.question), i) for i, p in enumerate(PROBLEMS)]]
    (rows,) = engines.paged(model, tokenizer, batches, **GREEDY, num_blocks=16, block_size=32, max_batch_tokens=64)
    (plain,) = engines.batched(model, tokenizer, batches, **GREEDY)
    assert without_time(rows) == without_time(plain)
    assert "answered 2 of 7" in capsys.readouterr().out


def test_without_a_gpu_paged_is_answered_in_plain_batches(tiny, tmp_path, capsys):
    rows = answer(PROBLEMS, lambda: tiny, tmp_path / "a.jsonl", engine="paged", **SETTINGS)
    assert len(rows) == 7 and "needs a GPU" in capsys.readouterr().out


def test_a_served_student_is_asked_once_and_resumes_reply_by_reply(tmp_path, project):
    broken = []

    def reply(body: dict) -> str:
        if len(seen) > 10 and not broken:
            broken.append(body)
            deadline = time.monotonic() + 10
            while not any(tmp_path.glob("*.replies.jsonl")) and time.monotonic() < deadline:
                time.sleep(0.01)  # a refusal that is read first ends the asking before anything is stored
            raise Refusal(400, "model gone")
        return f"The answer is \\boxed{{{body['messages'][0]['content'].count('1')}}}"

    settings = SAMPLED | {"max_new_tokens": 50}
    path = tmp_path / "fast.jsonl"
    with serve(reply) as (endpoint, seen):
        with pytest.raises(ChatError, match="model gone"):
            answer(PROBLEMS, refuse, path, engine=endpoint, **settings)
        before = len(seen)
        rows = answer(PROBLEMS, refuse, path, engine=endpoint, **settings)
        assert 21 <= len(seen) < 21 + before, "what was answered is not asked again"
        assert {body["model"] for body in seen} == {"fast"} and {body["top_p"] for body in seen} == {0.95}
        assert len({body["seed"] for body in seen}) == 21 and {body["max_tokens"] for body in seen} == {50}
    assert answer(PROBLEMS, refuse, path, engine=endpoint, **settings) == rows
    assert all(row.correct and row.seconds > 0 and row.finish_reason == "stop" for row in rows)
    summary = metrics.summarise("fast", rows)
    assert (summary["n"], summary["samples"], summary["accuracy"], summary["tokens_per_answer"]) == (7, 3, 1, 4)


def test_another_students_replies_are_not_taken_for_this_ones(tmp_path, project):
    with serve(lambda body: r"\boxed{1}") as (endpoint, seen):
        for weights in ("first", "second"):
            answer(PROBLEMS, refuse, tmp_path / "fast.jsonl", engine=endpoint, **SETTINGS | {"weights": weights})
        assert len(seen) == 14


def test_a_question_that_a_server_never_answers_is_no_wrong_answer(tmp_path, project):
    def reply(body: dict) -> str:
        if "is 1 + 1 + 1?" in body["messages"][0]["content"]:
            raise Refusal(400, "flagged by the content_filter")
        return r"\boxed{1}"

    with serve(reply) as (endpoint, _), pytest.raises(StageError, match="left 1 of 7 questions to 'fast' unanswered"):
        answer(PROBLEMS, refuse, tmp_path / "fast.jsonl", engine=endpoint, **SETTINGS)


def test_replies_with_reasoning_keep_it_and_stored_ones_have_no_time(tmp_path, project):
    from distil.llm.client import Chat

    batches = [[GenerationRequest(student_messages("1?"), 0)]]
    with serve(lambda body: "<think>well</think>It is \\boxed{1}") as (endpoint, _):
        for known in (False, True):
            chat = Chat("fast", endpoint, store=tmp_path / "store.jsonl")
            ((row,),) = engines.served(chat, batches, **GREEDY)
            assert row.text == "<think>\nwell\n</think>\n\nIt is \\boxed{1}"
            assert (row.seconds is None) == known


def test_long_answers_that_are_left_after_an_interruption_do_not_make_a_student_slow(tmp_path, project):
    from distil.llm.client import Chat

    def reply(body: dict) -> str:
        time.sleep(0.3)
        return " ".join(["word"] * (9 if "long" in body["messages"][0]["content"] else 1))

    short, long = ([GenerationRequest(student_messages(text), 0)] for text in ("short", "long"))
    with serve(reply) as (endpoint, _):
        next(engines.served(Chat("fast", endpoint, store=tmp_path / "store.jsonl"), [short], **GREEDY))
        begun = time.perf_counter()
        rows = next(engines.served(Chat("fast", endpoint, store=tmp_path / "store.jsonl"), [short, long], **GREEDY))
        spent = time.perf_counter() - begun
    assert [row.n_tokens for row in rows] == [1, 9]
    assert 0.3 * 10 / 9 <= sum(row.seconds for row in rows) <= spent * 10 / 9, "one token more than was waited for"


def test_the_teacher_is_a_row_that_its_own_server_answers_for(tmp_path, project):
    from distil.models import published
    from distil.workspace.stage import Stage

    Stage("r", "01_collect", teacher="qwen-big").finish()
    folder, weights = published.place("teacher", "base", Stage("r", "07_eval"))
    asked = {"slow_teacher": {"model": "r1"}, "rewriter": {"model": "qwq"}}
    assert published.teacher_of({"params": {"teacher": "qwen-big"}, "figures": {"usage": asked}}) == "r1"
    assert (folder, weights) == ("", "qwen-big") and published.own("base,teacher,fast") == ["fast"]
    settings = SETTINGS | {"weights": weights}
    with serve(lambda body: r"\boxed{1}") as (endpoint, seen):
        published.check("base,teacher", endpoint)
        rows = answer(PROBLEMS, refuse, tmp_path / "teacher.jsonl", engine=endpoint, **settings)
        assert {body["model"] for body in seen} == {"teacher"} and len(seen) == 7
    with serve(lambda body: r"\boxed{2}") as (endpoint, seen):  # the students' server: the teacher's answers are kept
        assert answer(PROBLEMS, refuse, tmp_path / "teacher.jsonl", engine=endpoint, **settings) == rows
        assert not seen
    with pytest.raises(StageError, match="the teacher answers through a server only"):
        published.check("base,teacher", "transformers:8")
    published.check("base,teacher", "vllm")


@pytest.mark.parametrize(("text", "read"), [
    ("transformers", ("transformers", 75)), ("transformers:8", ("transformers", 8)), ("paged", ("paged", 1024)),
    ("vllm", ("vllm", 512)), ("http://localhost:8000/v1", ("http://localhost:8000/v1", 64)),
])  # fmt: skip
def test_engines_by_name(text, read, project):
    assert engines.read(text) == read


@pytest.mark.parametrize(
    "text", ["vllm:3", "transformers:0", "transformers:many", "paged:3", "http://example.org/v1", ""]
)
def test_engines_that_cannot_be_meant(text, project):
    with pytest.raises((StageError, ChatError), match="engine|needs a key"):
        engines.read(text)


def test_programs_run_and_the_answer_is_the_program(tmp_path):
    from distil.evaluate.answers import judged
    from distil.sandbox.confine import mechanism

    if mechanism() is None:
        pytest.skip("no sandbox works here")
    code = a_problem(question="Double x.", verifier="code", tests=["f(2) == 4"])
    texts = [
        "```python\ndef f(x):\n    return 2 * x\n```",
        "```python\ndef f(x):\n    return x\n```",
        "No.",
        r"\boxed{1}",
    ]
    read = judged(texts, [code, code, code, PROBLEMS[0]])
    assert [correct for _, correct in read] == [True, False, False, True]
    assert read[0][0].startswith("def f(x)") and read[2][0] is None and read[3][0] == "1"
