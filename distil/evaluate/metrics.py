"""Accuracy, tokens and time of students, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from distil.evaluate import settings
from distil.verify.answers import extract_boxed, normalise_answer
from distil.workspace.files import write_csv, write_text
from distil.workspace.rows import Completion, Problem
from distil.workspace.statistics import difference, interval, majority_at_k, pass_at_k

COMPARED = (  # beside each student and the base; `unaligned` is of runs kept from before `shortest`
    ("fast", "slow"), ("fast", "shortest"), ("fast", "unaligned"), ("adaptive", "fast"), ("shortest", "random"),
    ("surprise", "shortest"),
)  # fmt: skip


def by_question(rows: Sequence[Completion]) -> list[list[Completion]]:
    """Answers to each question together, in the order of the questions."""
    groups: dict[str, list[Completion]] = {}
    for row in rows:
        groups.setdefault(row.id, []).append(row)
    return list(groups.values())


def shares(rows: Sequence[Completion]) -> list[float]:
    """The share of right answers to each question, in the order of the questions: what intervals are made of."""
    return [sum(row.correct for row in group) / len(group) for group in by_question(rows)]


def vote(row: Completion) -> tuple[str | None, bool]:
    """What an answer adds to a majority: its text without dress, blanks and case, and whether it is right."""
    if row.answer is None:
        return None, False
    return "".join(normalise_answer(row.answer).casefold().split()), row.correct


def at_k(rows: Sequence[Completion], k: int, seed: int = 0) -> tuple[float, float]:
    """(pass@k, majority@k), means over questions. Raises ValueError if a question has fewer than k answers."""
    import numpy as np

    groups = by_question(rows)
    passed = pass_at_k([len(g) for g in groups], [sum(row.correct for row in g) for g in groups], k)
    majority = [majority_at_k([vote(row) for row in g], k, seed + number) for number, g in enumerate(groups)]
    return float(np.mean(passed)), float(np.mean(majority))


def curve(rows: Sequence[Completion], seed: int = 0) -> list[tuple[int, float, float]]:
    """(k, pass@k, majority@k) for k = 1, 2, 4, ... up to the number of answers to a question."""
    most = min(len(group) for group in by_question(rows))
    return [(k, *at_k(rows, k, seed)) for k in sorted({2**i for i in range(most.bit_length())} | {most})]


def summarise(student: str, rows: Sequence[Completion], seed: int = 0) -> dict:
    """One row of `results.csv`, for a student that gave the same number of answers to each question.

    Accuracy is pass@1, the mean over all answers; its interval is that of the mean over questions. Seconds and tokens/s
    are those of batched answering on this machine.
    """
    import numpy as np

    tokens = np.array([row.n_tokens for row in rows])
    seconds = np.nanmean([np.nan if row.seconds is None else row.seconds for row in rows])
    right = shares(rows)
    samples = len(rows) // len(right)
    low, high = interval(right, seed)
    passed, majority = at_k(rows, samples, seed)
    figures = {
        "student": student,
        "n": len(right),
        "accuracy": np.mean(right),
        "ci_low": low,
        "ci_high": high,
        "tokens_per_answer": tokens.mean(),
        "tokens_median": np.median(tokens),
        "tokens_p95": np.percentile(tokens, 95),
        "seconds_per_answer": seconds,
        "tokens_per_second": tokens.mean() / seconds,
        "cut_off": np.mean([row.finish_reason == "length" for row in rows]),
        "no_answer": np.mean([row.answer is None for row in rows]),
        "boxed": np.mean([extract_boxed(row.text) is not None for row in rows]),
        "samples": samples,
        "pass_at_k": passed,
        "majority_at_k": majority,
    }
    digits = {"seconds_per_answer": 6}  # a server takes milliseconds
    return {
        name: round(float(value), digits.get(name, 4)) if isinstance(value, float) else value
        for name, value in figures.items()
    }


def by_difficulty(
    answers: Mapping[str, Sequence[Completion]], problems: Sequence[Problem]
) -> dict[str, list[tuple[float, float]]]:
    """For each student a point a family of problems, the easiest first: (wrong answers of all students in percent, its
    own mean tokens an answer). Whoever thinks as long as a problem needs has a line that rises."""
    import numpy as np

    task = {problem.id: problem.task for problem in problems}

    def mean(names: Iterable[str], field: str, family: str) -> float:
        return float(
            np.mean([getattr(row, field) for name in names for row in answers[name] if task[row.id] == family])
        )

    hardness = {family: 100 * (1 - mean(answers, "correct", family)) for family in dict.fromkeys(task.values())}
    order = sorted(hardness, key=hardness.__getitem__)
    return {name: [(hardness[family], mean([name], "n_tokens", family)) for family in order] for name in answers}


def write_results(results: Sequence[dict], path: Path) -> None:
    """`results.csv`, and beside it `results.md`, the table a person reads; it ends with what `asked.json` there says is
    not as published."""
    write_csv(path, results, list(results[0]))
    apart = settings.not_as_published(path.parent)
    note = f"\nNot to be set beside published scores as it is: {apart}.\n" if apart else ""
    write_text(path.with_suffix(".md"), markdown(results) + note)


def duration(seconds: float) -> str:
    """Seconds in words: two digits after the point, or the first two that are not 0."""
    return f"{seconds:.2f}" if seconds >= 0.1 else f"{seconds:.2g}"


def markdown(results: Sequence[dict]) -> str:
    """The result table in Markdown: accuracy with its interval, tokens, seconds, and what did not end well."""
    lines = [
        "| student | accuracy (95% CI) | tokens an answer | seconds an answer | cut off | no answer |",
        "|---|---|---|---|---|---|",
    ]
    for row in results:
        lines.append(
            f"| {row['student']} | {row['accuracy']:.1%} ({row['ci_low']:.1%} to {row['ci_high']:.1%}) "
            f"| {row['tokens_per_answer']:.0f} | {duration(row['seconds_per_answer'])} | {row['cut_off']:.0%} "
            f"| {row['no_answer']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def differences(answers: dict[str, Sequence[Completion]], seed: int) -> list[dict]:
    """{of, to, difference, ci_low, ci_high} of each student to the base, and of the pairs `COMPARED` that are there.

    The intervals are over questions: they are about these checkpoints, not about other training seeds.
    """
    right = {name: shares(rows) for name, rows in answers.items()}
    pairs = [(name, "base") for name in right if name != "base" and "base" in right]
    pairs += [pair for pair in COMPARED if set(pair) <= set(right)]
    return [{"of": a, "to": b, **difference(right[a], right[b], seed)} for a, b in pairs]


def speed(results: Sequence[dict], against: str) -> list[dict]:
    """For each student how many times fewer tokens and seconds an answer takes than the student `against`."""
    base = next(row for row in results if row["student"] == against)
    return [
        {
            "student": row["student"],
            "tokens_gain": round(base["tokens_per_answer"] / row["tokens_per_answer"], 2),
            "seconds_gain": round(base["seconds_per_answer"] / row["seconds_per_answer"], 2),
        }
        for row in results
    ]
