"""How often does the student solve a problem already? Problems it never or always solves teach it little."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from distil.evaluate.answers import right
from distil.llm.client import Chat
from distil.llm.prompts import prompt_of
from distil.models.student import identity
from distil.problems.errors import ProblemError
from distil.problems.sources import read_rows
from distil.verify.registry import verifiable
from distil.workspace.files import write_jsonl
from distil.workspace.rows import Problem


def pass_rates(asked: Sequence[Problem], texts: Sequence[str | None]) -> dict[str, float]:
    """Share of right answers, 0 to 1, by problem id. A problem stands in `asked` once for each of its answers.

    An answer of None (a request that failed) does not count; a problem without any other has no rate.
    """
    answered = [(problem, text) for problem, text in zip(asked, texts, strict=True) if text is not None]
    problems = [problem for problem, _ in answered]
    found: dict[str, list[bool]] = {problem.id: [] for problem in problems}
    for problem, correct in zip(problems, right([text for _, text in answered], problems), strict=True):
        found[problem.id].append(correct)
    return {name: sum(some) / len(some) for name, some in found.items()}


def by_pass_rate(
    problems: Sequence[Problem], rates: Mapping[str, float], low: float, high: float
) -> tuple[list[Problem], list[Problem]]:
    """(kept, removed): kept are problems with low <= rate <= high. Rows gain `pass_rate`, removed ones `reason`.

    Raises ProblemError unless 0 <= low <= high <= 1.
    """
    if not 0 <= low <= high <= 1:
        raise ProblemError(f"low {low} and high {high}: pass rates lie in 0 to 1, low below high")
    kept, removed = [], []
    for problem in problems:
        rate = rates.get(problem.id)
        row = problem.replace(extra=problem.extra | {"pass_rate": rate})
        if rate is None:
            reason = "no answer came" if verifiable(problem) else "answers cannot be checked"
        elif rate < low:
            reason = "too hard for the student"
        elif rate > high:
            reason = "too easy for the student"
        else:
            kept.append(row)
            continue
        removed.append(row.replace(extra=row.extra | {"reason": reason}))
    return kept, removed


def filter_file(args: Namespace) -> int:
    """The command `distil filter`. Returns the exit code.

    Every answer is kept beside the result, so that the command given again asks only for what is missing. Raises
    ProblemError or ChatError for bad input before anything is asked.
    """
    source, out = Path(args.input), Path(args.output)
    weights = identity(args.model)  # of a folder, which may be trained again under the same name
    known = f".{weights[:8]}" if weights != args.model else ""
    removed_file, store = out.with_suffix(".removed.jsonl"), out.with_suffix(f"{known}.responses.jsonl")
    if out.suffix != ".jsonl" or source.resolve() in (out.resolve(), removed_file.resolve(), store.resolve()):
        raise ProblemError(f"{out}: name another file that ends in .jsonl for the problems that are kept")
    if args.samples < 1 or args.max_tokens < 1:
        raise ProblemError("--samples and --max-tokens must be 1 or more")
    problems = read_rows(source)
    by_pass_rate([], {}, args.low, args.high)  # the bounds are looked at before anything is asked
    chat = Chat(args.model, args.endpoint, store=store)
    asked = [(problem, seed) for problem in problems if verifiable(problem) for seed in range(args.samples)]
    replies = chat.map(
        [prompt_of(problem) for problem, _ in asked],
        max_tokens=args.max_tokens,
        temperature=0.7,
        seeds=[seed for _, seed in asked],
        label="student's answers",
    )
    rates = pass_rates([problem for problem, _ in asked], [reply and reply.text for reply in replies])
    kept, removed = by_pass_rate(problems, rates, args.low, args.high)
    write_jsonl(out, kept)
    write_jsonl(removed_file, removed)
    print(f"{len(kept)} of {len(problems)} problems kept in {out}; the others, with reasons, in {removed_file}")
    for reason in sorted({row.extra["reason"] for row in removed}):
        print(f"  {sum(row.extra['reason'] == reason for row in removed)} {reason}")
    return 0
