"""Published scores of the recipes that the handbook follows, to stand beside one's own, and facts of benchmarks.

`benchmarks.csv`: questions, and answers a question as open-r1 takes them; `dataset` and `task` of those that the Hub's
leaderboards know; in what asking and judging here are `not_as_published`. `published_scores.csv`: accuracy in percent,
and what is to be doubted of the label.
`published_tokens.csv`: mean tokens an answer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from distil.workspace.files import read_csv

HERE = Path(__file__).parent


@cache
def benchmarks() -> dict[str, dict]:
    """{questions, samples, dataset, task, not_as_published} of each benchmark; `dataset` and `task` are None where no
    leaderboard knows it."""
    return {row["suite"]: row for row in read_csv(HERE / "benchmarks.csv")}


def label(suite: str) -> str:
    """What sets our figures of a suite apart from published ones; empty where nobody published any."""
    return benchmarks().get(suite, {"not_as_published": ""})["not_as_published"]


def tokens(suite: str) -> dict[str, int]:
    """Published mean tokens an answer of a suite, by model."""
    return {row["model"]: row["tokens"] for row in read_csv(HERE / "published_tokens.csv") if row["suite"] == suite}


def rows(suite: str) -> list[tuple[str, str, str, str]]:
    """(model, accuracy, tokens an answer, doubt) of a benchmark, as texts; empty for a suite without published ones."""
    lengths, found = tokens(suite), []
    for row in read_csv(HERE / "published_scores.csv"):
        model, score = row["model"], row.get(suite)
        if score is not None:
            questions = benchmarks()[suite]["questions"]
            doubts = [row["doubt"]] if row["doubt"] else []
            if not one_run(score, questions):
                doubts.append(f"no share of {questions} questions: not of one run, or misprinted")
            found.append((model, f"{score:g}%", str(lengths.get(model, "")), "; ".join(doubts)))
        elif model in lengths:
            found.append((model, "", str(lengths[model]), ""))
    return found


def one_run(score: float, questions: int) -> bool:
    """Can a score in percent, rounded to one digit or two, be that of one answer a question?"""
    return abs(score - 100 * round(score * questions / 100) / questions) < 0.06
