"""Keep the light part of a finished run in artifacts/reference, so that all that is said of it can be worked out anew.

python -m benchmarks.reference RUN [--judge-again]

At the top lie the held-out problems, with several answers each where 07 asked so. `distil verify-reference` checks it.
With --judge-again answers count as the verifiers find them now, mended since the run perhaps; about.json lists those
that counted otherwise. Without it such a run is not kept.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.reference_run import claim, kept
from distil.evaluate import metrics, recheck, settings, suites
from distil.llm.cache import USAGE
from distil.pipeline import progress
from distil.publish import facts, leaks
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import write_csv, write_jsonl, write_text
from distil.workspace.rows import Chain, Problem
from distil.workspace.stage import KEPT, RESPONSES, STAGES, run_folder

MOST = 15_000_000  # bytes of all files together
SAMPLED = "held-out"  # 07's folder of several answers to the held-out problems; one greedy answer lies at its top
TABLES = (settings.FILE, "results.csv", "results.md", metrics.CHECKPOINTS, "differences.jsonl")
LOGS = ("log.csv", "rewards.csv", "sft.json", "prefer.json", "reinforce.json")
OF_A_CHAIN = ("id", "problem_id", "style", "n_tokens", "finish_reason", "correct")  # not its text


def keep(run: str, judge_again: bool = False) -> Path:
    """The folder of the kept run, replaced whole. Raises StageError, and leaves the old one, if anything is wrong."""
    finished = run_folder(run)
    if unfinished := [stage for stage in STAGES if not (finished / stage / "meta.json").exists()]:
        raise StageError(
            f"run {run!r} is not finished: {', '.join(unfinished)} has no meta.json; go on with it by "
            f"`distil run --run {run}`"
        )
    place = root() / "artifacts" / KEPT
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        new = Path(scratch) / KEPT
        judged: list[str] = []
        for source, name in measured(finished / "07_eval"):
            found = copy_measurement(source, new / name, judge_again)
            if found and source == finished / STAGES[-1]:
                raise StageError("\n".join([*found, f"the model card tells of these: {recheck.remedy(run)}"]))
            judged += found
        for stage in STAGES:
            copy_stage(finished / stage, new / stage)
        chains = recheck.rows(finished / "01_collect" / "chains.jsonl", Chain)
        write_jsonl(
            new / "01_collect" / "chains.jsonl", [{key: getattr(chain, key) for key in OF_A_CHAIN} for chain in chains]
        )
        about = {
            "command": "\n".join(commands(run, new)),
            "asked_of_teacher": asked_of_teacher(finished / RESPONSES),
            "judged_again": judged,
        }
        write_text(new / "about.json", json.dumps(about, indent=1) + "\n")
        write_csv(new / "costs.csv", claim.costs(new), claim.COSTS)
        write_text(new / "claim.json", claim.claim_text(claim.claim(new)))
        found = leaks.problems((str(path.relative_to(new)), path) for path in sorted(new.rglob("*")) if path.is_file())
        for file in [*new.rglob("completions/**/*.jsonl"), *new.rglob("problems.jsonl"), *new.rglob("chains.jsonl")]:
            compress(file)
        if wrong := [*found, *kept.worked_out(new)]:
            todo = "what to do: mend the run; where only answers count otherwise now, add --judge-again"
            raise StageError("\n".join(["nothing is kept, for", *wrong, todo]).replace(f"{new}/", ""))
        write_text(new / kept.FILES, json.dumps(kept.digests(new), indent=1) + "\n")
        size = sum(path.stat().st_size for path in new.rglob("*") if path.is_file())
        if size > MOST:
            raise StageError(f"{size / 1e6:.1f} MB, of {MOST / 1e6:.0f} that may be kept: measure fewer problems")
        shutil.rmtree(place, ignore_errors=True)
        shutil.move(new, place)
    return place


def measured(folder: Path) -> list[tuple[Path, str]]:
    """(folder of 07, name in the kept run) of each measurement, the main one ('') first.

    A benchmark of the Hub stays out: its terms may not let its questions be kept here.
    """
    there = [path.relative_to(folder) for path in claim.measurements(folder)]
    done = [str(name) for name in there if (folder / name / "results.csv").exists()]
    free = [name for name in done if "repository" not in recheck.content(folder / name / settings.FILE)["source"]]
    main = SAMPLED if SAMPLED in free else "."
    if main not in free:
        raise StageError(f"{folder} holds no answers to the held-out problems: run 07_eval for them")
    for name in done:
        if name not in free:
            print(f"left out: {name}, a benchmark of the Hub")
    others = [(folder / name, "greedy" if name == "." else name) for name in free if name != main]
    return [(folder / main, ""), *others]


def copy_measurement(source: Path, to: Path, judge_again: bool) -> list[str]:
    """Tables, pictures, problems, and the answers of the checkpoints in the table.

    Returns the answers that count otherwise now, a line each, if they are judged again; the tables are then made anew.
    """
    pictures = [f"{name}{suffix}" for name in settings.FIGURES for suffix in (".png", ".csv")]
    for name in (*TABLES, *pictures):
        if (source / name).exists():
            to.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, to / name)
    problems = recheck.rows(source / "problems.jsonl", Problem)
    write_jsonl(to / "problems.jsonl", problems)
    asked = recheck.content(source / settings.FILE)
    found, answers = [], {}
    for name in claim.students(source):
        file = f"completions/{name}.jsonl"
        answers[name] = rows = recheck.stored(source / file, problems, asked["samples"])
        if judge_again:
            found += [f"{name}: {text}" for text in recheck.judge_again(rows, problems, asked["samples"])]
        write_jsonl(to / file, rows)
    if found:
        recheck.work_out(answers, problems, to, seed=asked["seed"], samples=asked["samples"])
        for drawn in to.glob("*.svg"):
            drawn.unlink()
    return found


def copy_stage(source: Path, to: Path) -> None:
    """meta.json, the pictures of 01-06 and the logs of its students; of 07 the card."""
    last = source.name == STAGES[-1]
    wanted = ["meta.json", "README.md"] if last else ["meta.json", "*.png", "*.csv", *(f"*/{name}" for name in LOGS)]
    for file in (path for pattern in wanted for path in source.glob(pattern)):
        name = file.relative_to(source)
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to / name)


def commands(run: str, new: Path) -> list[str]:
    """The `distil run` commands that make it again: of the main measurement, and of greedy answers beside it."""
    profile = progress.read_run(run).get("profile", "cpu")
    metas = {f"{stage}/meta.json": recheck.content(run_folder(run) / stage / "meta.json") for stage in STAGES}
    last, state = metas[f"{STAGES[-1]}/meta.json"], {"run.json": {"profile": profile}}
    asked = recheck.content(new / settings.FILE)
    last["params"]["suite"] = suite(asked, recheck.rows(run_folder(run) / "01_collect" / "problems.jsonl", Problem))
    found = [facts.command(metas | state)]
    if (new / "greedy").exists():
        last["params"]["suite"] = SAMPLED
        again = facts.command({f"{STAGES[-1]}/meta.json": last} | state)
        found.append(again.replace(f"--run {run}", f"--run {run} --from {STAGES[-1][:2]}", 1))
    return found


def suite(asked: dict, problems: list[Problem]) -> str:
    """07's parameter of that name for what was `asked` of a run with such `problems`, as a profile would write it."""
    n, held_out = asked["source"]["problems"], sum(problem.split == "test" for problem in problems)
    options = {
        "n": n if n < held_out else None,
        "samples": asked["samples"] if asked["samples"] > 1 else None,
        "temperature": asked["temperature"] if asked["temperature"] not in (0, suites.TEMPERATURE) else None,
    }
    query = "&".join(f"{name}={value}" for name, value in options.items() if value is not None)
    return f"{SAMPLED}?{query}" if query else SAMPLED


def asked_of_teacher(responses: Path) -> dict[str, int] | None:
    """Requests that a live teacher answered in 01-03, and their tokens; None if a recording was replayed."""
    if not responses.exists():
        return None
    with open(responses, "rb") as handle:
        counts = [found.groups() for line in handle if (found := USAGE.search(line))]
    prompt, completion = (sum(int(pair[i]) for pair in counts) for i in (0, 1))
    return {"requests": len(counts), "prompt_tokens": prompt, "completion_tokens": completion}


def compress(file: Path) -> None:
    """The file as .gz, without its name and time: the same rows are the same bytes."""
    with open(f"{file}.gz", "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
        packed.write(file.read_bytes())
    file.unlink()


def main(run: str, judge_again: bool = False) -> int:
    try:
        place = keep(run, judge_again)
    except StageError as error:
        print(error, file=sys.stderr)
        return 1
    files = [path for path in place.rglob("*") if path.is_file()]
    print(f"{place}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.2f} MB")
    return 0


if __name__ == "__main__":
    recheck.headless()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run")
    parser.add_argument("--judge-again", action="store_true", help="count answers as the verifiers find them now")
    raise SystemExit(main(**vars(parser.parse_args())))
