"""The answers of a student to problems, kept as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distil.evaluate import engines
from distil.evaluate.engines import Asked
from distil.llm.prompts import prompt_of
from distil.verify.registry import map_problems, verifier_of
from distil.workspace.environment import give_memory_back, quiet
from distil.workspace.files import digest, read_jsonl, write_jsonl
from distil.workspace.rows import Completion, Problem
from distil.workspace.stage import append_jsonl


def answer(
    problems: Sequence[dict],
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
) -> list[dict]:
    """`samples` answers of one student to each problem, in the order of the problems, all answers to one together.

    Rows {id, of, text, n_tokens, finish_reason, seconds, correct, answer, sample}. `weights` says which student this
    is, by a digest or the name of its revision. Answers that lie in `path` are taken only if they are `of` the same
    weights, question and settings; others are removed and answered anew. `load` gives (model, tokenizer), or what else
    `engines.answers` wants of it, and is called only if an answer is missing. A server knows the student by the name of
    the file.

    Here, rows are appended a whole batch at a time, and a batch that is not complete is answered anew as a whole. A
    batch's seed is made of what is asked in it: the same batches make the same answers, killed or not, and more
    samples leave those that are there as they are.
    """
    from tqdm.auto import tqdm

    ordered = sorted(problems, key=lambda p: (len(p["question"]), p["id"]))  # like lengths together: less padding
    way = batch_size if engine == "transformers" else "paged" if engine == "paged" else "served"
    of = {}
    for problem in ordered:
        for sample in range(samples):
            drawn = [temperature, seed, sample] if temperature else []
            of[problem["id"], sample] = digest(weights, problem["question"], max_new_tokens, way, *drawn)
    found = read_jsonl(path, Completion) if path.exists() else []
    done = {key: row for row in found if (key := key_of(row)) not in of or row.get("of") == of[key]}
    batches = [
        [(problem, sample) for problem in ordered[i : i + batch_size]]
        for sample in range(samples)
        for i in range(0, len(ordered), batch_size)
    ]
    missing = [batch for batch in batches if not all((p["id"], sample) in done for p, sample in batch)]
    for batch in missing:
        for problem, sample in batch:
            done.pop((problem["id"], sample), None)
    if len(done) < len(found):
        write_jsonl(path, done.values())
    if missing:
        asked = [
            [Asked(prompt_of(p), int(of[p["id"], sample], 16) % 2**31) for p, sample in batch] for batch in missing
        ]
        waiting = iter([pair for batch in missing for pair in batch])
        bar = tqdm(total=sum(map(len, missing)), desc=path.stem, unit="answer", disable=quiet())
        store = path.with_name(f"{path.stem}-{digest(weights)[:8]}.replies.jsonl")
        for replies in engines.answers(
            engine,
            load,
            asked,
            name=path.stem,
            store=store,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        ):
            pairs = [next(waiting) for _ in replies]
            read = judged([reply["text"] for reply in replies], [problem for problem, _ in pairs])
            rows = [
                Completion(
                    id=problem["id"],
                    of=of[problem["id"], sample],
                    **reply,
                    correct=correct,
                    answer=given,
                    sample=sample,
                )
                for reply, (problem, sample), (given, correct) in zip(replies, pairs, read, strict=True)
            ]
            append_jsonl(path, rows)
            done |= {key_of(row): row for row in rows}
            bar.update(len(rows))
        bar.close()
        give_memory_back()  # the model's, before the next one is loaded
    return [done[problem["id"], sample] for problem in problems for sample in range(samples)]


def key_of(row: dict) -> tuple[str, int]:
    """Question and sample of an answer; rows of an earlier version were the only ones to their questions."""
    return row["id"], row.get("sample", 0)


def right(texts: Sequence[str], problems: Sequence[dict], *, boxed_only: bool = False) -> list[bool]:
    """Is each completion right, as its problem's verifier has it? Programs run several at once.

    Raises SandboxError where they cannot be run safely.
    """

    def is_right(problem: Problem, text: str) -> bool:
        return verifier_of(problem).is_correct(text, problem, boxed_only=boxed_only)

    return map_problems(is_right, problems, texts)


def judged(texts: Sequence[str], problems: Sequence[dict]) -> list[tuple[str | None, bool]]:
    """(answer, is it right?) of each completion. Raises SandboxError as `right` does."""
    return [
        (verifier_of(p).extract(text, p), correct)
        for text, p, correct in zip(texts, problems, right(texts, problems), strict=True)
    ]
