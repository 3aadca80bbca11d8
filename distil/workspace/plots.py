"""The pictures: one look for all. Each is saved as PNG, SVG and the CSV behind it, then shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from distil.workspace.files import write_csv
from distil.workspace.rows import AlignedChain, Completion
from distil.workspace.students import recipe_of

# Okabe and Ito's palette, which colour-blind readers can tell apart; a name keeps its colour in every picture
COLOURS = {
    "base": "#999999",
    "slow": "#D55E00",
    "fast": "#0072B2",
    "short": "#56B4E9",
    "shortest": "#56B4E9",
    "unaligned": "#56B4E9",  # in runs kept from before `shortest`
    "random": "#F0E442",
    "surprise": "#882255",  # of Tol's palette: theirs has no more
    "adaptive": "#009E73",
    "preferred": "#CC79A7",
    "reinforced": "#E69F00",
    "teacher": "#000000",
    "easy": "#56B4E9",
    "medium": "#009E73",
    "hard": "#D55E00",
    "unrated": "#999999",
}
IN_HISTOGRAM = ("base", "slow", "fast")  # more than three hide one another
MORE = ["#CC79A7", "#E69F00", "#000000", "#F0E442"]


def colour(name: str, number: int) -> str:
    return COLOURS.get(recipe_of(name), MORE[number % len(MORE)])


def figure(title: str, xlabel: str, ylabel: str):
    """(figure, axes) of the common size, labelled."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return fig, axes


def save(fig, path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """`path`.png, .svg and .csv; then show the figure. `path` has no suffix."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path.with_suffix(".png"), dpi=150)
    fig.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    write_csv(path.with_suffix(".csv"), rows, columns)
    plt.show()
    plt.close(fig)


def token_histogram(groups: Mapping[str, Sequence[int]], title: str, path: Path) -> None:
    """Tokens a chain or an answer, a histogram a group over common bins, the median marked."""
    import numpy as np

    groups = {name: values for name, values in groups.items() if len(values)}
    fig, axes = figure(f"Tokens: {title}", "tokens", "share")
    top = max((np.percentile(values, 99) for values in groups.values()), default=1)
    bins = np.linspace(0, max(top, 10), 31)
    rows = []
    for number, (name, values) in enumerate(groups.items()):
        shares, _ = np.histogram(np.clip(values, 0, bins[-1]), bins)
        shares = shares / len(values)
        shade = colour(name, number)
        axes.stairs(shares, bins, fill=True, alpha=0.35, color=shade)
        axes.stairs(
            shares, bins, color=shade, linewidth=1.5, label=f"{name} (n={len(values)}, median {np.median(values):.0f})"
        )
        axes.axvline(np.median(values), color=shade, linestyle="--", linewidth=1)
        rows += [(name, round(left, 1), round(share, 4)) for left, share in zip(bins, shares, strict=False)]
    axes.legend(frameon=False)
    save(fig, path, ("group", "bin_from", "share"), rows)


def answer_tokens(answers: Mapping[str, Sequence[Completion]], path: Path) -> None:
    """Tokens an answer of the recipes that 07 is about, `IN_HISTOGRAM`, where they were asked."""
    shown = {name: [row.n_tokens for row in answers[name]] for name in IN_HISTOGRAM if name in answers}
    token_histogram(shown, "answers of the students", path)


def difficulty(series: Mapping[str, Sequence[tuple[float, float]]], path: Path) -> None:
    """Tokens against difficulty, as `evaluate.metrics.by_difficulty` gives them."""
    title = "Tokens against difficulty: a point is a family of problems"
    curves(series, title, "wrong answers of all students, %", "mean tokens an answer", path=path)


def flow(aligned: Sequence[AlignedChain], path: Path) -> None:
    """Where chains went, by their first verdict: kept at once, kept after improvement, or rejected."""
    ends = ("kept at once", "kept after improvement", "not kept")
    counts: Counter = Counter()
    for row in aligned:
        end = ends[2] if not row.kept else ends[0] if len(row.trail) == 1 else ends[1]
        counts[row.trail[0]["difficulty"], end] += 1
    verdicts = [v for v in ("easy", "medium", "hard", "unrated") if any(counts[v, e] for e in ends)]
    fig, axes = figure("From the first verdict to the training set", "judge's first verdict", "chains")
    below = [0] * len(verdicts)
    for end, shade in zip(ends, ("#009E73", "#56B4E9", "#999999"), strict=True):
        heights = [counts[v, end] for v in verdicts]
        axes.bar(verdicts, heights, bottom=below, color=shade, label=end, width=0.6)
        for x, (height, base) in enumerate(zip(heights, below, strict=True)):
            if height:
                axes.text(x, base + height / 2, str(height), ha="center", va="center")
        below = [b + h for b, h in zip(below, heights, strict=True)]
    axes.set_ylim(top=1.1 * max(below, default=1))
    axes.legend(frameon=False)
    save(fig, path, ("first_verdict", "end", "chains"), [(*key, n) for key, n in counts.items()])


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], title: str, xlabel: str, ylabel: str, *, path: Path
) -> None:
    """Lines over steps: losses, rewards, margins. A series named `... validation` is dashed."""
    fig, axes = figure(title, xlabel, ylabel)
    rows = []
    for number, (name, points) in enumerate(series.items()):
        base = name.split()[0]
        dashed = name.endswith("validation")
        axes.plot(
            *zip(*points, strict=True),
            label=name,
            color=colour(base, number),
            marker="o" if len(points) < 15 else None,
            markersize=4,
            linewidth=max(1.5, 4.5 - number),  # lines that coincide stay visible, one upon the other
            linestyle="--" if dashed else "-",
        )
        rows += [(name, float(x), y) for x, y in points]
    fig.legend(frameon=False, loc="outside right upper")  # inside it would lie upon a line
    save(fig, path, ("series", xlabel, ylabel), rows)


def accuracy_tokens(results: Sequence[dict], checkpoints: Sequence[dict], path: Path) -> None:
    """Accuracy with its 95% interval against mean tokens an answer, a point a recipe.

    Each of several `checkpoints` of a recipe is a small faint point, without an interval.
    """
    fig, axes = figure("Accuracy against tokens", "mean tokens an answer", "accuracy, % (95% interval)")
    rows = []
    for number, row in enumerate(results):
        x, y = row["tokens_per_answer"], 100 * row["accuracy"]
        low, high = 100 * row["ci_low"], 100 * row["ci_high"]
        axes.errorbar(
            x,
            y,
            yerr=[[y - low], [high - y]],
            fmt="o",
            capsize=max(2, 9 - number),
            markersize=max(7, 18 - 2 * number),  # what lies under another shows as a ring
            markeredgecolor="white",
            markeredgewidth=0.5,
            color=colour(row["student"], number),
            label=row["student"],
        )
        rows.append((row["student"], x, y, low, high))
        of_recipe = [one for one in checkpoints if recipe_of(one["student"]) == row["student"]]
        for one in of_recipe if len(of_recipe) > 1 else ():
            x, y = one["tokens_per_answer"], 100 * one["accuracy"]
            axes.plot(x, y, "o", markersize=3, alpha=0.4, color=colour(row["student"], number))
            rows.append((f"a seed of {row['student']}", x, y, None, None))
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 1.1 * max(row["tokens_per_answer"] for row in [*results, *checkpoints]))
    if len(results) > 5:  # inside it would lie upon points
        fig.legend(frameon=False, loc="outside right upper")
    else:
        axes.legend(frameon=False)
    save(fig, path, ("student", "tokens_per_answer", "accuracy", "ci_low", "ci_high"), rows)


def pass_at_k(curves: Mapping[str, Sequence[tuple[int, float, float]]], path: Path) -> None:
    """pass@k (solid) and majority@k (dashed) of each student, from points (k, pass@k, majority@k)."""
    fig, axes = figure(
        "Several answers a question", "answers a question, k", "right, % (solid pass@k, dashed majority@k)"
    )
    rows = []
    for number, (name, points) in enumerate(curves.items()):
        ks = [k for k, _, _ in points]
        shade = colour(name, number)
        axes.plot(ks, [100 * p for _, p, _ in points], color=shade, marker="o", markersize=4, label=name)
        axes.plot(ks, [100 * m for _, _, m in points], color=shade, marker="s", markersize=4, linestyle="--")
        rows += [(name, k, 100 * p, 100 * m) for k, p, m in points]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_ylim(bottom=0)
    fig.legend(frameon=False, loc="outside right upper")
    save(fig, path, ("student", "k", "pass_at_k_percent", "majority_at_k_percent"), rows)
