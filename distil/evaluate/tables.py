"""The tables of 07 for `distil.workspace.show.table`: each function gives (column names, rows of texts)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from distil.evaluate import published_scores
from distil.evaluate.metrics import by_question, duration, over, shares, speed
from distil.workspace.rows import Completion, Problem

Table = tuple[list[str], Sequence[Sequence[str]]]


def results(rows: Sequence[dict]) -> Table:
    """Accuracy with its interval, tokens, what did not end well; with several answers a question pass@k, majority@k.

    The rows of several training seeds say how many there are.
    """
    columns = ["student", "accuracy", "95% interval", "tokens", "median", "p95", "cut off", "no answer"]
    several = rows[0]["samples"]
    best = [f"pass@{several}", f"majority@{several}"] if several > 1 else []
    body = []
    for r in rows:
        tokens = [f"{r[key]:.0f}" for key in ("tokens_per_answer", "tokens_median", "tokens_p95")]
        more = [f"{r[key]:.1%}" for key in ("pass_at_k", "majority_at_k")] if best else []
        interval = f"{r['ci_low']:.1%} to {r['ci_high']:.1%}"
        ends = [f"{r[key]:.0%}" for key in ("cut_off", "no_answer")]
        body.append([f"{r['student']}{over(r)}", f"{r['accuracy']:.1%}", interval, *tokens, *ends, *more])
    return columns + best, body


def gaps(rows: Sequence[dict]) -> Table:
    """Differences of accuracy in points, with what the interval is over, and how many times fewer tokens."""
    body = []
    for r in rows:
        gain, low, high = (f"{100 * r[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
        of_what = f"over {r['seeds']} seeds and questions" if "seeds" in r else "of these checkpoints"
        body.append([f"{r['of']} - {r['to']}", gain, f"{low} to {high}, {of_what}", f"{r['tokens_ratio']:.1f}x"])
    return ["difference", "points", "95% interval", "fewer tokens"], body


def speeds(rows: Sequence[dict], against: str) -> Table:
    """Tokens and seconds an answer, and how many times fewer than the student `against`."""
    columns = ["student", "tokens an answer", f"fewer than {against}"]
    columns += ["seconds an answer", f"faster than {against}", "tokens/s"]
    body = []
    for r, g in zip(rows, speed(rows, against), strict=True):
        tokens = [f"{r['tokens_per_answer']:.0f}", f"{g['tokens_gain']:.1f}x"]
        seconds = [duration(r["seconds_per_answer"]), f"{g['seconds_gain']:.1f}x"]
        body.append([r["student"], *tokens, *seconds, f"{r['tokens_per_second']:.0f}"])
    return columns, body


def families(answers: Mapping[str, Sequence[Completion]], problems: Sequence[Problem]) -> Table:
    """The share of right answers of each student to the problems of each family."""
    task = {p.id: p.task for p in problems}
    body = []
    for family, n in sorted(Counter(task.values()).items()):
        row = [family, str(n)]
        for given in answers.values():
            of_family = [r for r in given if task[r.id] == family]
            row.append(f"{sum(shares(of_family)) / len(by_question(of_family)):.0%}")
        body.append(row)
    return ["family", "problems", *answers], body


def published(suite: str) -> Table:
    """Published figures of a benchmark, with what is to be doubted, below what sets ours apart from them; no rows for
    any other suite."""
    columns, found = ["published", "accuracy", "tokens an answer", "doubt"], published_scores.rows(suite)
    ours = ("not published: the students above", "", "", published_scores.label(suite))
    return columns, [ours, *found] if found else []
