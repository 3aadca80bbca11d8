"""What the benchmarks of students share: the problems of a run, and a student's answers to those held out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from distil.evaluate import metrics
from distil.evaluate.answers import answer
from distil.models.student import load as load_student
from distil.models.student import load_tokenizer
from distil.problems.sources import load
from distil.workspace.files import read_jsonl, sha256, write_text
from distil.workspace.rows import Problem
from distil.workspace.stage import run_folder
from distil.workspace.statistics import difference_over_seeds

N_TEST = 600
ANSWERS = {"max_new_tokens": 160, "batch_size": 300}


def problems_of(run: str) -> tuple[list[Problem], list[Problem]]:
    """(training problems, held-out problems): those of the run's 01, with `N_TEST` of the second."""
    asked = json.loads((run_folder(run) / "01_collect" / "meta.json").read_text())["params"]
    problems = load(asked["problems"], asked["n_train"], N_TEST, asked["seed"])
    train, test = ([p for p in problems if p.split == split] for split in ("train", "test"))
    return train, test


def measured(name: str, test: list[Problem], student: Path, path: Path) -> dict:
    """{accuracy, ci, tokens_per_answer} of the student in a folder; its answers are kept in `path`."""
    folder = str(student)
    answers = answer(
        test, lambda: (load_student(folder), load_tokenizer(folder)), path, weights=sha256(student), **ANSWERS
    )
    row = metrics.summarise(name, answers)
    ci = [row["ci_low"], row["ci_high"]]
    return {"accuracy": row["accuracy"], "ci": ci, "tokens_per_answer": row["tokens_per_answer"]}


def keep(folder: Path, order: list[str], base: str, about: dict, more: Callable[[dict], dict] = lambda row: {}) -> None:
    """All rows of `folder`, by `order` of names and by seed, and each name's gain over `base`: into results/.

    The file is called as the folder is; `about` says how it was measured, `more` what else each row should say.
    """
    rows = sorted(read_jsonl(folder / "rows.jsonl"), key=lambda row: (order.index(row["name"]), row["seed"]))
    rows = [row | more(row) for row in rows]
    found = about | json.loads((folder / "machine.json").read_text())
    found |= {"rows": rows, f"minus_{base}": gains(folder, rows, base)}
    write_text(Path(__file__).parent / "results" / f"{folder.name}.json", json.dumps(found, indent=1) + "\n")


def gains(folder: Path, rows: list[dict], base: str, key: str = "name") -> list[dict]:
    """What each name (row[`key`]) gains over `base`: {`key`, seeds, difference, ci_low, ci_high}; see `gain`."""
    seeds: dict[str, list[int]] = {}
    for row in rows:
        seeds.setdefault(row[key], []).append(row["seed"])
    return [{key: name, "seeds": of, **gain(folder, name, base, of)} for name, of in seeds.items() if name != base]


def gain(folder: Path, name: str, base: str, seeds: list[int]) -> dict:
    """What `name` gains over `base`, from the answers that lie in `folder` as SEED-NAME.jsonl.

    The interval is over training seeds and questions; with one seed over questions alone: it is about that checkpoint.
    """

    def right(name: str) -> list[list[bool]]:
        return [
            [row["correct"] for row in sorted(read_jsonl(folder / f"{seed}-{name}.jsonl"), key=lambda r: r["id"])]
            for seed in seeds
        ]

    return difference_over_seeds(right(name), right(base), seed=0)
