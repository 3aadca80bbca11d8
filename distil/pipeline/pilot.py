"""`distil run --pilot N`: 01 to 03 on a few problems, and what the whole run would take by what was seen."""

from __future__ import annotations

from collections import Counter

from distil.pipeline import driver, estimate
from distil.workspace.errors import StageError
from distil.workspace.files import read_jsonl
from distil.workspace.parameters import effective
from distil.workspace.rows import AlignedChain, Chain
from distil.workspace.stage import STAGES, read_meta, run_folder

LAST = "03_judge"
TEST_PROBLEMS = 5  # at most: none is asked


def pilot(profile: str, run: str, sets: list[str], problems: int) -> int:
    """Run 01 to 03 on so many training problems as run `<run>-pilot`, with the roles and budgets of `run`.

    Prints what share was right, cut off, unrated, rejected and kept, and the table of `estimate` for the whole run.
    The pilot's answers are its own: the run asks anew. Returns the exit code of the stages: 1 if one failed, which says
    why. Raises what `driver.run` raises, and
    StageError for fewer than one problem.
    """
    if problems < 1:
        raise StageError(f"--pilot {problems}: give the number of problems, such as 20")
    values = effective(profile, run, sets)
    test = min(TEST_PROBLEMS, values["01_collect"]["n_test"])
    few = [f"01_collect.n_train={min(problems, values['01_collect']['n_train'])}", f"01_collect.n_test={test}"]
    code = driver.run(profile, run + estimate.PILOT, sets=[*sets, *few], last=LAST)
    driver.say("\n" + "\n".join(shares(run + estimate.PILOT)))
    if code:
        return code
    driver.say(f"\nThe whole of run {run!r}, 01 to 03:\n")
    driver.say(estimate.table(run, list(STAGES[: STAGES.index(LAST) + 1]), values))
    return 0


def shares(run: str) -> list[str]:
    """Lines on what came of the chains of a run's stages 01 to 03, as far as they have come to their end."""
    folder = run_folder(run)
    lines: list[str] = []
    done = [stage for stage in STAGES[: STAGES.index(LAST) + 1] if read_meta(run, stage)]
    if not done:
        return lines
    chains = read_jsonl(folder / "01_collect/chains.jsonl", Chain)
    for style in dict.fromkeys(chain.style for chain in chains):
        of_style = [chain for chain in chains if chain.style == style]
        right = sum(bool(chain.correct) for chain in of_style)
        lines.append(f"{style} chains right: {share(right, len(of_style))}")
    for stage in done:
        meta = read_meta(run, stage) or {}
        for role, used in meta["figures"]["usage"].items():
            answers = used["asked"] + used["from_store"]
            lines.append(f"{stage[:2]} {role}: cut off at the token limit: {share(used['cut_off'], answers)}")
    if len(done) < 2:
        return lines
    short = read_jsonl(folder / "02_rewrite/chains.jsonl", Chain)
    rejected = read_jsonl(folder / "02_rewrite/rejected.jsonl", Chain)
    lost = Counter(chain.rejection_reason for chain in rejected if chain.style == "long2short")
    lines.append(
        f"shortened chains rejected: {share(lost.total(), lost.total() + len(short))}"
        + "".join(f", {reason} {n}" for reason, n in lost.most_common(3))
    )
    if len(done) < 3:
        return lines
    aligned = read_jsonl(folder / "03_judge/aligned.jsonl", AlignedChain)
    for what, n in (
        ("unrated", sum(row.reason == "unrated" for row in aligned)),
        ("kept", sum(row.kept for row in aligned)),
    ):
        lines.append(f"judged chains {what}: {share(n, len(aligned))}")
    return lines


def share(n: int, total: int) -> str:
    """A share in words."""
    return f"{n} of {total} ({n / max(1, total):.0%})"
