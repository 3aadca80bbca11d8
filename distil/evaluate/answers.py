"""The answers of a student to problems, kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distil.evaluate import engines
from distil.evaluate.engines import GenerationRequest
from distil.llm.prompts import prompt_of
from distil.models import formats
from distil.verify.registry import map_problems, verifier_of
from distil.workspace.bars import bar
from distil.workspace.environment import give_memory_back
from distil.workspace.files import digest
from distil.workspace.fingerprint import code
from distil.workspace.row_cache import RowCache
from distil.workspace.rows import Completion, Problem

JUDGES = ("verify/", "sandbox/", "models/formats.py", "evaluate/answers.py")  # code that says what is right


def answer(
    problems: Sequence[Problem],
    load: Callable[[], tuple | str],
    path: Path,
    *,
    weights: str,
    max_new_tokens: int,
    batch_size: int,
    samples: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    engine: str = "transformers",
    student_format: str = "plain",
    extra: dict | None = None,
) -> list[Completion]:
    """Ask one student for `samples` answers to each problem.

    The answers come in the order of the problems, all answers to one problem together. `weights` says which student
    this is: a digest, or the name of its revision. Answers that lie in `path` are taken if they are `of` the same
    weights, prompt and settings; others are removed and asked for again. Those that are taken are judged again if the
    problem or the verifiers are no longer those that they were judged by. `load` gives (model, tokenizer), or what
    else `engines.answers` wants; it is called only if an answer is missing. A server knows the student by the name of
    the file; `extra` are fields of each request to it. The answer is read after the thought.

    Rows are appended a whole batch at a time. A batch that is not complete is asked for again as a whole. The seed of
    a batch is made of what is asked in it, so the same batches give the same answers, killed or not, and more samples
    leave those that are there as they are.
    """
    ordered = sorted(problems, key=lambda p: (len(p.question), p.id))  # like lengths together: less padding
    way = batch_size if engine == "transformers" else "paged" if engine == "paged" else "served"
    made_by = engines.made_by(engine, extra)
    prompts = {problem.id: prompt_of(problem, student_format) for problem in ordered}
    judges = {problem.id: digest(problem, code(*JUDGES)) for problem in ordered}
    seeds, digests = {}, {}
    for problem in ordered:
        for sample in range(samples):
            drawn = [temperature, seed, sample] if temperature else []
            drawn += [student_format] if student_format != "plain" else []
            asked = digest(weights, problem.question, max_new_tokens, way, *drawn)  # other words leave the seed alone
            seeds[problem.id, sample] = int(asked, 16) % 2**31
            digests[problem.id, sample] = digest(asked, prompts[problem.id], made_by)
    cache = RowCache(path, Completion, key_of, digests)
    judge_kept(cache, {(p.id, sample): p for p in ordered for sample in range(samples)}, judges)
    batches = [
        [(problem, sample) for problem in ordered[i : i + batch_size]]
        for sample in range(samples)
        for i in range(0, len(ordered), batch_size)
    ]
    missing = [batch for batch in batches if not all((p.id, sample) in cache.rows for p, sample in batch)]
    cache.discard([(p.id, sample) for batch in missing for p, sample in batch])
    if missing:
        requests = [[GenerationRequest(prompts[p.id], seeds[p.id, sample]) for p, sample in batch] for batch in missing]
        waiting = iter([pair for batch in missing for pair in batch])
        shown = bar(total=sum(map(len, missing)), desc=path.stem, unit="answer")
        for replies in engines.answers(
            engine,
            load,
            requests,
            name=path.stem,
            store=path.with_name(f"{path.stem}-{digest(weights)[:8]}.replies.jsonl"),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            extra=extra,
        ):
            pairs = [next(waiting) for _ in replies]
            scores = judged([reply.text for reply in replies], [problem for problem, _ in pairs])
            cache.append(
                Completion(
                    id=problem.id,
                    of=digests[problem.id, sample],
                    **vars(reply),
                    correct=correct,
                    answer=given,
                    sample=sample,
                    judged=judges[problem.id],
                )
                for reply, (problem, sample), (given, correct) in zip(replies, pairs, scores, strict=True)
            )
            shown.update(len(replies))
        shown.close()
        give_memory_back()  # the model's, before the next one is loaded
    return [cache.rows[problem.id, sample] for problem in problems for sample in range(samples)]


def judge_kept(cache: RowCache[Completion], problems: dict[tuple[str, int], Problem], judges: dict[str, str]) -> None:
    """Judge kept answers again whose problem, by question and sample, or verifiers changed; `judges` are digests."""
    kept = [(cache.rows[key], problem) for key, problem in problems.items() if key in cache.rows]
    old = [(row, problem) for row, problem in kept if row.judged != judges[row.id]]
    if old:
        scores = judged([row.text for row, _ in old], [problem for _, problem in old])
        cache.replace(
            row.replace(answer=given, correct=correct, judged=judges[row.id])
            for (row, _), (given, correct) in zip(old, scores, strict=True)
        )


def key_of(row: Completion) -> tuple[str, int]:
    """Question and sample of an answer."""
    return row.id, row.sample


Verdicts = dict[tuple[int, str | None], bool]  # is it right? By the problem, a row that lives as long, and the answer


def right(
    texts: Sequence[str], problems: Sequence[Problem], *, boxed_only: bool = False, known: Verdicts | None = None
) -> list[bool]:
    """Is each completion right, as its problem's verifier has it, read after its thought? Programs run several at once.

    What several completions answer to one problem is judged once; `known` holds verdicts of before, and is added to.
    Raises SandboxError where programs cannot be run safely.
    """
    known = {} if known is None else known
    pairs = list(zip(problems, texts, strict=True))
    keys = [(id(p), verifier_of(p).extract(formats.said(text), p, boxed_only=boxed_only)) for p, text in pairs]
    new = {key: problem for key, problem in zip(keys, problems, strict=True) if key not in known}

    def is_right(problem: Problem, answer: str | None) -> bool:
        return verifier_of(problem).is_right(answer, problem)

    verdicts = map_problems(is_right, list(new.values()), [answer for _, answer in new])
    known.update(zip(new, verdicts, strict=True))
    return [known[key] for key in keys]


def judged(
    texts: Sequence[str], problems: Sequence[Problem], known: Verdicts | None = None
) -> list[tuple[str | None, bool]]:
    """(answer, is it right?) of each completion. `known` and SandboxError: see `right`."""
    return [
        (verifier_of(p).extract(formats.said(text), p), correct)
        for text, p, correct in zip(texts, problems, right(texts, problems, known=known), strict=True)
    ]
