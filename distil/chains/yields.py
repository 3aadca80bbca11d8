"""What a stage kept of its work. A stage that keeps less than `min_share` fails and says which parameter to change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from distil.workspace.errors import StageError
from distil.workspace.rows import AlignedChain, Chain, TrainingRow

SHOWN = 5  # reasons in a message


def check(share: float) -> None:
    """Raise StageError if `min_share` is no share."""
    if not 0 <= share <= 1:
        raise StageError(f"min_share={share:g}: a share lies between 0 and 1, as in --set min_share=0.05")


def require(kept: int, total: int, share: float, what: str, reasons: Counter[str], advice: Mapping[str, str]) -> None:
    """Raise StageError if of `total` none, or fewer than `share`, were kept.

    `what` says what those kept are: "slow chains are right". `reasons` counts why the others are not. `advice` maps a
    part of a reason to what to do about it, and "" to what to do about any other; the most common reason chooses.
    """
    if kept and kept >= share * total:
        return
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common(SHOWN)) or "there were none"
    common = reasons.most_common(1)[0][0] if reasons else ""
    advised = next(text for part, text in advice.items() if part in common)
    raise StageError(
        f"{kept} of {total} {what}, and at least one and a share of min_share={share:g} must be. The others: {counts}. "
        f"{advised}. All answers are kept, and none is asked for again"
    )


def right_chains(style: str, chains: Sequence[Chain], failed: Sequence[dict], share: float) -> None:
    """Raise StageError if too few of the chains of one style are right. `failed` are rows of `failed.jsonl`."""
    asked = [chain for chain in chains if chain.style == style]
    lost = sum(row["style"] == style for row in failed)
    reasons = Counter(chain.why or "unverified" for chain in asked if not chain.correct)
    reasons += Counter({"request failed": lost})
    advice = {
        "token limit": (
            f"The teacher was cut off: raise its budget with --set {style}_tokens=N (a thinking model wants 16384 or "
            f"more), or name a terser {style}_teacher"
        ),
        "wrong answer": f"Name an abler {style}_teacher or easier problems; do the answers in your file hold?",
        "boxed answer": (
            f"The teacher does not box its answers: put a prompt {style}.md of your own into a folder and name that in "
            f"DISTIL_PROMPTS, or name another {style}_teacher"
        ),
        "false step": f"Name an abler {style}_teacher or easier problems",
        "fails its tests": f"Name an abler {style}_teacher or easier problems",
        "cannot run here": "`distil doctor` says what is missing to check them",
        "said nothing": f"The endpoint sends empty answers: look at responses.jsonl, or name another {style}_teacher",
        "request failed": "See failed.jsonl, and give the command again",
        "": f"See chains.jsonl; name another {style}_teacher, or prompts of your own in DISTIL_PROMPTS",
    }
    require(sum(bool(c.correct) for c in asked), len(asked) + lost, share, f"{style} chains are right", reasons, advice)


def candidates(chains: Sequence[Chain]) -> None:
    """Raise StageError if there is no chain that a student could learn from: none is right, fast or shortened."""
    if not chains:
        raise StageError(
            "no chain is left to judge: 01 kept no right fast chain, and 02 shortened no slow one. Collect more in 01 "
            "(name a fast_teacher or a slow_teacher, take more or easier problems), then run 02 and this stage again"
        )


def training_rows(name: str, train: Sequence[TrainingRow], valid: Sequence[TrainingRow]) -> None:
    """Raise StageError if all rows of a training set fell to validation."""
    if valid and not train:
        raise StageError(
            f"the training set {name!r} has no row: all {len(valid)} fell to validation, which takes one problem in "
            "ten. Collect chains of more problems in 01 (n_train), or give another seed"
        )


def short_chains(short: Sequence[Chain], rejected: Sequence[Chain], share: float) -> None:
    """Raise StageError if too few slow chains could be shortened. `rejected` are rewrites with their reason."""
    reasons = Counter(str(chain.rejection_reason) for chain in rejected)
    advice = {
        "token limit": (
            "The rewriter was cut off: raise its budget with --set rewrite_tokens=N (a thinking model wants 8192 or "
            "more), or name another rewriter"
        ),
        "request failed": "See rejected.jsonl, and give the command again",
        "": "See rejected.jsonl; name an abler rewriter, or raise tries",
    }
    total = len(short) + len(rejected)
    require(len(short), total, share, "slow chains were shortened", reasons, advice)


def suited_chains(aligned: Sequence[AlignedChain], share: float) -> None:
    """Raise StageError if too few chains have a verdict, or too few suit the student in the end."""
    unrated = sum(row.trail[0]["difficulty"] == "unrated" for row in aligned)
    judge = (
        "The judge gives no clear verdict: raise its budget with --set verdict_tokens=N (a thinking model wants 4096 "
        "or more), or name another judge"
    )
    rated = len(aligned) - unrated
    require(rated, len(aligned), share, "chains have a verdict", Counter({"unrated": unrated}), {"": judge})
    advice = {
        "unrated": judge,
        "rounds used up": "Raise max_rounds, or name another rewriter or judge",
        "token limit": (
            "The rewriter was cut off: raise its budget with --set rewrite_tokens=N (a thinking model wants 8192 or "
            "more), or name another rewriter"
        ),
        "": "See aligned.jsonl; name an abler rewriter, or another judge",
    }
    kept = [row for row in aligned if row.kept]
    reasons = Counter(str(row.reason) for row in aligned if not row.kept)
    require(len(kept), len(aligned), share, "chains suit the student", reasons, advice)


def graded_chains(scores: Sequence[dict], share: float) -> None:
    """Raise StageError if too few chains have their verbosity and difficulty. `scores` are rows of `judge.ratings`."""
    graded = sum(row["rv"] is not None for row in scores)
    advice = (
        "Raise the judge's budget with --set verdict_tokens=N (a thinking model wants 4096 or more), or name another"
    )
    reasons = Counter({"without a readable rating": len(scores) - graded})
    require(graded, len(scores), share, "chains are graded for verbosity and difficulty", reasons, {"": advice})
