"""What the students are measured on: held-out problems, harder ones, or a benchmark at a fixed revision."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from urllib.parse import parse_qsl

from distil.evaluate.published_scores import benchmarks, label
from distil.problems.errors import ProblemError
from distil.problems.sources import generate
from distil.sandbox.confine import HOW
from distil.verify.registry import verifiable, verifier_named
from distil.workspace.rows import Problem
from distil.workspace.stage import run_folder

TEMPERATURE = 0.6  # of several answers to a question; a single one is greedy
GENERATED = ("harder",)  # suites of `distil.problems.sources` that no profile trains on
GENERATED_N = 150  # their problems, where `n` does not say


@dataclass(frozen=True)
class Suite:
    """`n` problems (0: all) with `samples` answers each at `temperature`; `options` belong to the Hub's map."""

    name: str
    n: int
    samples: int
    temperature: float
    options: dict = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Where its results lie in 07_eval: at the top for greedy answers to held-out problems, as cards show them."""
        return "" if self.name == "held-out" and not self.temperature else self.name.replace("/", "-") + "/"


def read(text: str) -> Suite:
    """A suite from `NAME?n=100&samples=4&temperature=0.6&revision=HASH`, every option optional.

    NAME is `held-out`, one of `GENERATED`, `humaneval`, or `hub:NAME` as in `distil.problems.hub`, where hub:
    may be left out of the names that are ready-made. Raises ProblemError for anything that cannot be meant.
    """
    from distil.problems.hub import DATA_SETS, hub_map

    name, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    name = name.removeprefix("hub:")
    try:
        n = int(options.pop("n", 0))
        samples = int(options.pop("samples", benchmarks().get(name, {"samples": 1})["samples"]))
        temperature = float(options.pop("temperature", TEMPERATURE if samples > 1 else 0.0))
    except ValueError:
        raise ProblemError(f"suite={text}: n and samples are whole numbers, temperature is a number") from None
    if n < 0 or samples < 1 or not 0 <= temperature <= 2 or samples > 1 and temperature == 0:
        raise ProblemError(
            f"suite={text}: n is 0 (all) or more, samples 1 or more, temperature from 0 to 2, and above 0 where "
            "several answers are sampled"
        )
    if name in ("held-out", "humaneval", *GENERATED):
        if options:
            raise ProblemError(
                f"suite={text}: {name} has the options n, samples and temperature, not {[*options][0]!r}"
            )
    elif name in DATA_SETS or "/" in name:
        hub_map(name, options)
    else:
        known = ", ".join(("held-out", *GENERATED, "humaneval", *DATA_SETS))
        raise ProblemError(f"suite={text}: no suite {name!r}; there are: {known}, and hub:OWNER/NAME")
    return Suite(name, n, samples, temperature, options)


def check(text: str) -> None:
    """Raise ProblemError for a suite that `read` refuses, or a benchmark of programs where none can be checked."""
    from distil.problems.hub import DATA_SETS, hub_map

    suite = read(text)
    of_hub = suite.name in DATA_SETS or "/" in suite.name
    verifier = hub_map(suite.name, suite.options)["verifier"] if of_hub else "code"
    if (of_hub or suite.name == "humaneval") and not verifier_named(verifier).available():
        raise ProblemError(f"suite={text}: its answers are programs, which cannot be checked here: {HOW}")


def load(suite: Suite, held_out: Sequence[Problem], seed: int) -> tuple[list[Problem], dict]:
    """(problems, where they come from) of a suite; `held_out` are the run's own problems.

    `n` of several families are shared evenly; `n` of a benchmark are drawn by `seed`. The source names repository and
    revision, as a commit, and what is `not_as_published`. Raises ProblemError where there are no problems, or none
    whose answers can be checked here.
    """
    source = {"name": suite.name}
    if suite.name == "held-out":
        rows = by_turns([p for p in held_out if verifiable(p)])[: suite.n or None]
    elif suite.name in GENERATED:
        rows = by_turns(generate(suite.name, 0, suite.n or GENERATED_N, seed))
    elif suite.name == "humaneval":
        from distil.problems import humaneval

        rows, source = humaneval.load(), source | {"package": humaneval.WHEEL}
        rows = rows[: suite.n or None]
    else:
        rows, source = from_hub(suite, seed)
    checked = [row for row in rows if verifiable(row)]
    if not checked:
        n = len(held_out) if suite.name == "held-out" else len(rows)
        if not n:
            raise ProblemError("suite held-out: 01 kept no problem for measuring: run it with n_test above 0, or give "
                               "another suite")  # fmt: skip
        raise ProblemError(
            f"suite {suite.name}: none of its {n} problems could be checked here; code needs a sandbox "
            "(`distil doctor` says which)"
        )
    apart = {"not_as_published": label(suite.name)} if label(suite.name) else {}
    return checked, source | {"problems": len(checked)} | apart


def by_turns(problems: Sequence[Problem]) -> list[Problem]:
    """Problems ordered so that any first few hold as many of each family as can be."""
    families: dict[str, list[Problem]] = {}
    for problem in problems:
        families.setdefault(problem.task, []).append(problem)
    turns = zip_longest(*(families[task] for task in sorted(families)))
    return [problem for turn in turns for problem in turn if problem is not None]


def from_hub(suite: Suite, seed: int) -> tuple[list[Problem], dict]:
    """(problems, {name, repository, revision}) of a benchmark. Raises ProblemError."""
    from distil.problems.hub import fetch, for_test, hub_map, rows_from, shuffled

    mapping = for_test(hub_map(suite.name, suite.options))
    mapping["revision"] = commit_of(mapping)
    data = fetch(mapping)
    records = shuffled(data, seed) if suite.n else enumerate(data)
    rows, _ = rows_from(records, mapping, "test", suite.n or len(data))
    if not rows:
        raise ProblemError(f"suite {suite.name}: {mapping['repository']} holds no usable problem")
    source = {key: mapping[key] for key in ("name", "repository", "revision")}
    return rows, source


def commit_of(mapping: dict) -> str | None:
    """The commit that a map's revision stands for today, asked of the Hub unless it is one; None of a local folder."""
    revision = mapping.get("revision")
    if Path(mapping["repository"]).is_dir() or re.fullmatch("[0-9a-f]{40}", revision or ""):
        return revision
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(mapping["repository"], revision=revision).sha
    except Exception:  # the same cause stops `fetch`, which knows how to say it
        return revision


def measured(run: str) -> Path:
    """The folder of the latest results: 07's own, or within it that of the suite that was measured last."""
    folder = run_folder(run) / "07_eval"
    outputs = json.loads((folder / "meta.json").read_bytes())["outputs"] if (folder / "meta.json").exists() else ()
    return (folder / next((name for name in outputs if name.endswith("results.md")), "results.md")).parent
