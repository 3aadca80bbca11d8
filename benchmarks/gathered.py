"""Make one table of what 07 measured in several copies of a run, and keep it in results/RUN.

python -m benchmarks.gathered RUN FOLDER...

07 may run side by side: each copy of a run, with students of its own, has a folder 07_eval. RUN is the run in
artifacts/ whose 03 and 04 they share. All have to be asked the same problems in the same words, with the same settings.
Nothing is judged here: answers count as they were judged. `distil verify-reference` does not look at this folder; a
test works its tables out anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean

from benchmarks.reference import compress
from benchmarks.reference_run.claim import ended
from distil.evaluate import metrics, recheck, settings
from distil.evaluate.recipes import Answers, by_recipe, paired, pooled
from distil.models.published import TEACHER
from distil.workspace.errors import StageError
from distil.workspace.files import csv_text, write_jsonl, write_text
from distil.workspace.rows import Problem
from distil.workspace.stage import needed

AGAINST = ("base", "slow", "shortest", "fast", TEACHER)  # whom the others are set against
PIECE = ("params", "engine", "batch_size", "versions", "gpu", "cores", "commit")  # may differ between the folders
NOTED = ("params", "figures", "gpu", "cores", "commit", "seconds")  # of 03 and 04
FAMILIES = ("family", "student", "n", "accuracy", "tokens_per_answer")


def gather(run: str, folders: list[Path]) -> Path:
    """The folder of results. Raises StageError where the measurements are not of one kind."""
    asked = [recheck.content(folder / settings.FILE) for folder in folders]
    pinned = [{key: value for key, value in one.items() if key not in PIECE} for one in asked]
    problems = [recheck.rows(folder / "problems.jsonl", Problem) for folder in folders]
    for folder, words, given in zip(folders, pinned, problems, strict=True):
        if (words, given) != (pinned[0], problems[0]):
            raise StageError(f"{folder}: other problems, words or settings than {folders[0]}: measure again in one way")
    stages = {stage: recheck.content(needed(run, f"{stage}/meta.json")) for stage in ("03_judge", "04_finetune")}
    found: Answers = {}
    for folder, one in zip(folders, asked, strict=True):
        for name in one["params"]["students"].split(","):
            found[name] = recheck.stored(folder / f"completions/{name}.jsonl", problems[0], one["samples"])
    trained = stages["04_finetune"]["params"]["students"].split(",")
    order = [name for name in (TEACHER, "base", *trained) if name in found]
    answers = {name: found[name] for name in (*order, *(name for name in found if name not in order))}

    out = Path(__file__).parent / "results" / run
    out.mkdir(exist_ok=True)
    for name, rows in answers.items():
        write_jsonl(out / f"completions/{name}.jsonl", rows)
    write_jsonl(out / "problems.jsonl", problems[0])
    seed, samples = pinned[0]["seed"], pinned[0]["samples"]
    pieces = [{key: one[key] for key in PIECE if key in one} for one in asked]
    write_text(out / settings.FILE, json.dumps(pinned[0] | {"pieces": pieces}, indent=1, ensure_ascii=False) + "\n")
    recheck.headless()
    recheck.work_out(answers, problems[0], out, seed=seed, samples=samples)
    write_text(out / "families.csv", csv_text(families(answers, problems[0]), FAMILIES))
    write_text(out / "against.json", json.dumps(against(answers, seed), indent=1) + "\n")
    noted = {stage: {key: meta[key] for key in NOTED} for stage, meta in stages.items()}
    about = {"command": f"python -m benchmarks.gathered {run} FOLDER...", "stages": noted}
    write_text(out / "about.json", json.dumps(about, indent=1) + "\n")
    for file in (*out.glob("completions/*.jsonl"), out / "problems.jsonl"):
        compress(file)
    for file in out.glob("*.svg"):
        file.unlink()
    return out


def families(answers: Answers, problems: list[Problem]) -> list[dict]:
    """Accuracy and tokens of each recipe in each family, over its checkpoints."""
    task, made = {problem.id: problem.task for problem in problems}, []
    for family in sorted(set(task.values())):
        for recipe, rows in pooled(answers).items():
            own = [row for row in rows if task[row.id] == family]
            means = {
                "accuracy": fmean(row.correct for row in own),
                "tokens_per_answer": fmean(row.n_tokens for row in own),
            }
            made.append({"family": family, "student": recipe, "n": len({row.id for row in own})} | means)
    return made


def against(answers: Answers, seed: int) -> dict[str, dict]:
    """For each of `AGAINST` every other recipe: accuracy minus its own; `tokens_ratio`, its tokens over the other's.

    `ended` counts the pairs of answers of which both ended by themselves, and their ratio of tokens.
    """
    names, made = list(by_recipe(answers)), {}
    for other in (name for name in AGAINST if name in names):
        made[other] = {}
        for name in names:
            gap = metrics.gap(answers, name, other, seed) if name != other else None
            if gap:
                sides = zip(*paired(answers, other, name), strict=True)
                rows = [[row for one in side for row in answers[one]] for side in sides]
                made[other][name] = gap | {"ended": ended(*rows)}
    return made


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    try:
        print(gather(sys.argv[1], [Path(folder) for folder in sys.argv[2:]]))
    except StageError as error:
        print(f"gathered: {error}", file=sys.stderr)
        raise SystemExit(2) from None
