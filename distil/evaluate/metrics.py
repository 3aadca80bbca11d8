"""Accuracy, tokens and time of students, with intervals.

Answers are given by checkpoint, `fast` and `fast@1`; tables and figures go by recipe, over its checkpoints: over the
training seeds that were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean

from distil.evaluate import settings
from distil.evaluate.recipes import Answers, by_recipe, paired
from distil.verify.answers import extract_boxed, normalise_answer
from distil.workspace.files import write_csv, write_text
from distil.workspace.rows import Completion, Problem
from distil.workspace.statistics import (
    difference_over_seeds,
    interval,
    majority_at_k,
    pass_at_k,
    seeds_and_questions,
)

COMPARED = (  # beside each student and the base; `unaligned` is of runs kept from before `shortest`
    ("fast", "slow"), ("fast", "shortest"), ("fast", "unaligned"), ("adaptive", "fast"), ("shortest", "random"),
    ("surprise", "shortest"),
)  # fmt: skip
CHECKPOINTS = "by_checkpoint.csv"  # beside `results.csv`, a row a checkpoint, where one is called by its seed


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


def curves(answers: Answers, seed: int = 0) -> dict[str, list[tuple[int, float, float]]]:
    """The `curve` of each recipe, the mean of those of its checkpoints."""
    found = {}
    for recipe, each in by_recipe(answers).items():
        points = zip(*(curve(rows, seed) for rows in each), strict=True)
        found[recipe] = [(of_k[0][0], fmean(p for _, p, _ in of_k), fmean(m for _, _, m in of_k)) for of_k in points]
    return found


def by_checkpoint(answers: Answers, seed: int = 0) -> list[dict]:
    """The rows of `by_checkpoint.csv`, or of `results.csv` where no checkpoint is called by its seed."""
    return [summarise(name, rows, seed) for name, rows in answers.items()]


def results(answers: Answers, seed: int = 0) -> list[dict]:
    """The rows of `results.csv`, one a recipe; with `seeds` and `by_seed` if a checkpoint is called by its seed."""
    found = by_recipe(answers)
    if found.keys() == answers.keys():
        return by_checkpoint(answers, seed)
    return [over_seeds(recipe, each, seed) for recipe, each in found.items()]


def over_seeds(recipe: str, checkpoints: Sequence[Sequence[Completion]], seed: int) -> dict:
    """One row of `results.csv` for a recipe: `summarise` of all answers, pass@k and majority@k means over checkpoints.

    `seeds` counts its checkpoints, `by_seed` says the accuracy of each. The interval of several is over seeds and
    questions, and at least the one over questions, which is wider on one side where next to nothing is right.
    """
    alone = [summarise(recipe, rows, seed) for rows in checkpoints]
    by_seed = [fmean(shares(rows)) for rows in checkpoints]
    row, told = alone[0], {"seeds": len(alone), "by_seed": " ".join(f"{accuracy:.4g}" for accuracy in by_seed)}
    if len(alone) > 1:
        together = [answer for rows in checkpoints for answer in rows]
        row = summarise(recipe, together, seed)
        questions = interval(shares(together), seed)
        low, high = seeds_and_questions(by_seed, *questions)
        row |= {"ci_low": round(max(0.0, min(low, questions[0])), 4), "samples": alone[0]["samples"]}
        row |= {"ci_high": round(min(1.0, max(high, questions[1])), 4)}
        row |= {key: round(fmean(one[key] for one in alone), 4) for key in ("pass_at_k", "majority_at_k")}
    return row | told


def by_difficulty(answers: Answers, problems: Sequence[Problem]) -> dict[str, list[tuple[float, float]]]:
    """For each student a point a family of problems, the easiest first: (wrong answers of all students in percent, its
    own mean tokens an answer). Whoever thinks as long as a problem needs has a line that rises."""
    import numpy as np

    task = {problem.id: problem.task for problem in problems}

    def mean_of(names: Iterable[str], field: str, family: str) -> float:
        return float(
            np.mean([getattr(row, field) for name in names for row in answers[name] if task[row.id] == family])
        )

    def wrong(family: str) -> float:  # each student counts once, whatever the number of its seeds
        return 100 * (1 - fmean(mean_of([name], "correct", family) for name in answers))

    hardness = {family: wrong(family) for family in dict.fromkeys(task.values())}
    order = sorted(hardness, key=hardness.__getitem__)
    return {name: [(hardness[family], mean_of([name], "n_tokens", family)) for family in order] for name in answers}


def write_results(results: Sequence[dict], checkpoints: Sequence[dict], folder: Path) -> list[str]:
    """Write `results.csv`, and `by_checkpoint.csv` where that says more; returns the names of all files.

    `results.md` is the table a person reads; it ends with what `asked.json` there says is not as published.
    """
    write_csv(folder / "results.csv", results, list(results[0]))
    more = [row["student"] for row in checkpoints] != [row["student"] for row in results]
    if more:
        write_csv(folder / CHECKPOINTS, checkpoints, list(checkpoints[0]))
    apart = settings.not_as_published(folder)
    note = f"\nNot to be set beside published scores as it is: {apart}.\n" if apart else ""
    write_text(folder / "results.md", markdown(results) + note)
    return ["results.csv", "results.md"] + [CHECKPOINTS] * more


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
            f"| {row['student']}{over(row)} | {row['accuracy']:.1%} ({row['ci_low']:.1%} to {row['ci_high']:.1%}) "
            f"| {row['tokens_per_answer']:.0f} | {duration(row['seconds_per_answer'])} | {row['cut_off']:.0%} "
            f"| {row['no_answer']:.0%} |"
        )
    return "\n".join(lines) + "\n"


def over(row: dict) -> str:
    """How many seeds a row is over, in words; empty for one."""
    return f" ({row['seeds']} seeds)" if row.get("seeds", 1) > 1 else ""


def differences(answers: Answers, seed: int) -> list[dict]:
    """{of, to} and `gap` of each recipe to the base, and of the pairs `COMPARED` that are there.

    A pair without a training seed in common is left out.
    """
    names = list(by_recipe(answers))
    pairs = [(name, "base") for name in names if name != "base" and "base" in names]
    pairs += [pair for pair in COMPARED if set(pair) <= set(names)]
    return [{"of": a, "to": b, **found} for a, b in pairs if (found := gap(answers, a, b, seed))]


def gap(answers: Answers, of: str, to: str, seed: int) -> dict | None:
    """{difference, ci_low, ci_high, tokens_ratio}: accuracy of a recipe minus another's; None without a common seed.

    `tokens_ratio` is the mean tokens of an answer of `to` over those of `of`. The interval of one seed is over
    questions: it is about these checkpoints. Of several, it is over seeds and questions; their number (`seeds`),
    `by_seed` and `over_questions` are there then.
    """
    pairs = paired(answers, of, to)
    if not pairs:
        return None
    ours, theirs = ([answers[name] for name in names] for names in zip(*pairs, strict=True))
    found = difference_over_seeds([shares(rows) for rows in ours], [shares(rows) for rows in theirs], seed)
    tokens = [fmean(row.n_tokens for rows in given for row in rows) for given in (theirs, ours)]
    seeds = {"seeds": len(pairs)} if len(pairs) > 1 else {}
    return found | seeds | {"tokens_ratio": round(tokens[0] / tokens[1], 4)}


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
