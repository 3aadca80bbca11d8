"""What the kept run shows, from its files: who is faster, who more often right, what is left of the teacher, the cost.

A kept run (`artifacts/reference`, made by benchmarks/reference.py) has the files of one measurement of 07 at its top,
other measurements in folders of their own, and of each stage a folder with what it noted down.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from distil.evaluate import metrics, recheck, settings
from distil.evaluate.metrics import speed
from distil.evaluate.recipes import by_recipe, paired
from distil.models.published import TEACHER
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv
from distil.workspace.rows import Completion
from distil.workspace.stage import STAGES

AGAINST = ("base", "slow", "fast", TEACHER)  # whom the other students are set against
OF_WHAT = (  # the intervals are
    "All intervals are at 95%, over questions and paired by question, of these checkpoints: one training seed each"
)
OVER_SEEDS = (  # they are where there are several seeds
    "All intervals are at 95%, over seeds and questions and paired by question: {seeds} training seeds each, where not "
    "one is said"
)
WORDS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
COSTS = ("stage", "minutes", "noted_minutes", "kept_minutes", "peak_ram_gb", "peak_vram_gb", "gpu", "cores", "commit")


def measurements(folder: Path) -> list[Path]:
    """The folders of a kept run that hold a measurement of 07, the main one first."""
    return [folder, *sorted(path.parent for path in folder.glob(f"*/{settings.FILE}"))]


def students(folder: Path) -> list[str]:
    """The checkpoints of a measurement, in the order of its table. Raises StageError if there is no table."""
    if not (folder / "results.csv").exists():
        raise StageError(
            f"{folder / 'results.csv'} is missing, and says who was measured: run 07_eval again, or fetch the file anew"
        )
    each = folder / metrics.CHECKPOINTS
    return [str(row["student"]) for row in read_csv(each if each.exists() else folder / "results.csv")]


def answers(folder: Path) -> dict[str, list[Completion]]:
    """The kept answers of each checkpoint. Raises StageError if a file is missing or damaged."""
    return {name: recheck.rows(folder / "completions" / f"{name}.jsonl", Completion) for name in students(folder)}


def claim(folder: Path) -> dict:
    """What the main measurement shows, and what the run cost, for `claim.json`.

    All of it goes by recipe, over its training seeds. `against` holds, for each of `AGAINST` that was measured, every
    other that has a seed in common with it: how many times fewer tokens and seconds an answer, and accuracy minus its
    own with the 95% interval, paired by question, and over seeds where there are several. `recovered` is accuracy
    over the teacher's: over that of its row in the same table; without one over the share of its chains of each style
    that are right, on training problems, which only stands in for it. `turns`: were slow chains made in several?
    `answered_before` counts the answers that 01 had when it last started, whose minutes are in nobody's count;
    `asked_of_teacher` the requests of 01-03 and their tokens, where a live endpoint was asked. Raises StageError if
    fast or slow was not measured.
    """
    asked, given = recheck.content(folder / settings.FILE), answers(folder)
    results = read_csv(folder / "results.csv")
    names = list(by_recipe(given))
    if missing := {"fast", "slow"} - set(names):
        raise StageError(
            f"{folder / 'results.csv'} has no row {' and '.join(sorted(missing))}: nothing can be claimed; measure "
            "both in 07 (students=...)"
        )
    both = paired(given, "slow", "fast")
    if not both:
        raise StageError(
            f"{folder / 'results.csv'}: fast and slow have no training seed in common: measure both of one"
        )
    against = {}
    for other in AGAINST:
        if other in names:
            gains = {row.pop("student"): row for row in speed(results, other)}
            against[other] = {
                name: gains[name] | shortened(found) | tokens_of_common_seeds(found)
                for name in names
                if name != other and (found := metrics.gap(given, name, other, asked["seed"]))
            }
    accuracy = {row["student"]: row["accuracy"] for row in results}
    teacher = teachers(folder, accuracy)
    spent = costs(folder)
    return {
        "suite": asked["suite"],
        "problems": len({row.id for row in given[both[0][1]]}),
        "samples": asked["samples"],
        "max_new_tokens": asked["max_new_tokens"],
        "turns": recheck.content(folder / "01_collect" / "meta.json")["params"].get("turns", False),
        "commits": list(dict.fromkeys(row["commit"] for row in spent if row["commit"])),
        "against": against,
        "ended": ended(*([row for name in of_seeds for row in given[name]] for of_seeds in zip(*both, strict=True))),
        "teacher": teacher,
        "recovered": {
            name: {way: round(value / theirs, 4) for way, theirs in teacher["accuracy"].items() if theirs}
            for name, value in accuracy.items()
            if name != TEACHER
        },
        "minutes": round(sum(row["minutes"] for row in spent), 1),
        "answered_before": answered_before(folder),
        "peak_vram_gb": max(row["peak_vram_gb"] for row in spent),
        "asked_of_teacher": recheck.content(folder / "about.json")["asked_of_teacher"],
    }


def ended(slow: list[Completion], fast: list[Completion]) -> dict:
    """{pairs, of, tokens_gain}: pairs of answers, to one question and of one number, that both ended by themselves, of
    all pairs; and how many times fewer tokens the fast ones have, None without a pair."""
    both = [pair for pair in zip(slow, fast, strict=True) if all(row.finish_reason == "stop" for row in pair)]
    tokens = [sum(row.n_tokens for row in rows) for rows in zip(*both, strict=True)]
    return {"pairs": len(both), "of": len(fast), "tokens_gain": round(tokens[0] / tokens[1], 2) if both else None}


def tokens_of_common_seeds(gap: dict) -> dict:
    """Where accuracy is over several seeds that both have, the tokens are those of the same checkpoints."""
    return {"tokens_gain": round(gap["tokens_ratio"], 2)} if "seeds" in gap else {}


def shortened(gap: dict) -> dict:
    """A difference without the digits that another machine may compute otherwise, and without `tokens_ratio`, which
    `speed` has said."""
    digits = {key: gap[key] for key in gap if key != "tokens_ratio"}
    return {
        key: [round(one, 6) for one in value] if isinstance(value, list) else round(value, 6)
        for key, value in digits.items()
    }


def teachers(folder: Path, accuracy: dict[str, float]) -> dict:
    """{where, accuracy: by the way it was asked} of the teacher: of its row, or else of its chains."""
    if TEACHER in accuracy:
        return {"where": "the same problems", "accuracy": {"as the students": accuracy[TEACHER]}}
    styles: dict[str, list[bool]] = {}
    for row in recheck.rows(folder / "01_collect" / "chains.jsonl"):
        styles.setdefault(row["style"], []).append(row["correct"])
    return {
        "where": "training problems",
        "accuracy": {style: round(sum(right) / len(right), 4) for style, right in styles.items()},
    }


def answered_before(folder: Path) -> int:
    """Answers that 01 took from a recording or from an earlier start, if they are more than one in twenty.

    Fewer may be the same request twice, and weigh little in the minutes.
    """
    usage = recheck.content(folder / STAGES[0] / "meta.json")["figures"]["usage"]
    roles = [usage] if "asked" in usage else list(usage.values())  # one teacher, before there were roles
    asked, stored = (sum(role[name] for role in roles) for name in ("asked", "from_store"))
    return stored if 19 * stored > asked else 0


def costs(folder: Path) -> list[dict]:
    """Minutes and memory of each stage, rows of `costs.csv`.

    `noted_minutes` are those of meta.json, which knows the last start of a stage only; `kept_minutes` what the students
    that it trained, or the answers that it kept, took by their own count. `minutes` is the larger of the two.
    """
    made = []
    for stage in STAGES:
        meta = recheck.content(folder / stage / "meta.json")
        noted, kept = meta["seconds"] / 60, sum(seconds(folder, stage)) / 60
        kept /= meta["params"].get("at_once", 1)  # students that were trained at a time
        minutes = {"minutes": max(noted, kept), "noted_minutes": noted, "kept_minutes": kept}
        row = {"stage": stage} | {name: round(value, 2) for name, value in minutes.items()} | meta
        made.append({name: row[name] for name in COSTS})
    return made


def seconds(folder: Path, stage: str) -> Iterator[float]:
    """Seconds of each piece of work that a stage kept: trained students, or answers, where their time is known."""
    for file in (folder / stage).glob("*/*.json"):
        yield recheck.content(file)["result"]["seconds"]
    if stage == STAGES[-1]:
        for place in measurements(folder):
            yield from (row.seconds or 0.0 for rows in answers(place).values() for row in rows)


def claim_text(shown: dict) -> str:
    """`claim.json`."""
    return json.dumps(shown, indent=1, ensure_ascii=False) + "\n"


def sentences(shown: dict) -> list[str]:
    """The claim in words, as docs/results.md has to say it."""
    against = shown["against"]
    fast = against["slow"]["fast"]
    made = ", whose chains were made in turns of solving, checking and concluding" if shown["turns"] else ""
    said = [
        f"fast against slow{made}: {fast['tokens_gain']:.1f} times fewer tokens and {fast['seconds_gain']:.1f} times "
        f"fewer seconds an answer, accuracy {points(fast)}",
        OVER_SEEDS.format(seeds=WORDS.get(fast["seeds"], fast["seeds"])) if "seeds" in fast else OF_WHAT,
    ]
    alone = shown["ended"]
    if alone["pairs"]:
        said.append(
            f"in the {alone['pairs']:,} of {alone['of']:,} pairs of answers that both ended by themselves "
            f"{alone['tokens_gain']:.1f} times fewer tokens"
        )
    usual = fast.get("seeds", 1)

    def told(gap: dict) -> str:
        n = gap.get("seeds", 1)
        other = f", {WORDS.get(n, n)} training seed{'s' * (n > 1)}" if n != usual else ""
        return points(gap) + other

    said += [f"fast minus {other}: {told(against[other]['fast'])}" for other in ("base", TEACHER) if other in against]
    said += [f"{name} minus fast: {told(gap)}" for name, gap in against["fast"].items() if name not in AGAINST]
    for way, share in shown["recovered"]["fast"].items():
        chains = f"share of right {way} chains on training problems"
        said.append(f"fast has {share:.0%} of the teacher's {chains if TEACHER not in against else 'accuracy'}")
    before = shown["answered_before"]
    asking = f", beside the asking for {before:,} answers that 01 had from before" if before else ""
    return [*said, f"the whole took {shown['minutes']:.0f} minutes{asking}"]


def points(gap: dict) -> str:
    gain, low, high = (f"{100 * gap[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
    return f"{gain} points ({low} to {high})"
