"""Problems from data sets on the Hub: which field is the question, which the answer, and how it is read.

`hub_datasets.yaml` holds the ready-made maps and says what a map may say; `hub_chains.yaml` does so for chains.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from importlib import resources

import yaml

from distil.problems.errors import ProblemError
from distil.problems.hub_rows import rows_from
from distil.verify.registry import verifier_named
from distil.workspace.rows import Problem


def read_maps(file: str) -> tuple[dict, dict[str, dict]]:
    """(what a map says by default, ready-made maps by name) of a file of this package."""
    maps = yaml.safe_load(resources.files("distil.problems").joinpath(file).read_text(encoding="utf-8"))
    return maps["defaults"], {name: maps["defaults"] | mapping for name, mapping in maps["data_sets"].items()}


DEFAULTS, DATA_SETS = read_maps("hub_datasets.yaml")
CHAIN_SETS = read_maps("hub_chains.yaml")[1]
COMMON = ("split", "config", "revision", "read", "verifier", "unreadable")
OPTIONS = ("question", "answer", "choices", "test", *COMMON)
CHAIN_OPTIONS = ("question", "answer", "each", "chain", "reasoning", "rv", "cd", *COMMON)
VALUES = {
    "read": ("plain", "hash", "boxed"),
    "verifier": ("math", "exact", "choice"),
    "unreadable": ("refuse", "drop"),
}
WINDOW = 1000  # rows of a stream that are held to be shuffled


def hub_map(name: str, options: dict[str, str]) -> dict:
    """The whole map of a ready-made name or OWNER/NAME, changed by `options`. Raises ProblemError."""
    mapping = mapped(name, options, DATA_SETS, (*OPTIONS, "against"))
    needs_answer = verifier_named(mapping["verifier"]).needs_answer and not isinstance(mapping.get("choices"), list)
    for field in ("question", "answer") if needs_answer else ("question",):
        if field not in mapping:
            raise ProblemError(f"hub:{name}: say which field is which: hub:{name}?question=FIELD&answer=FIELD")
    return mapping


def chains_map(name: str, options: dict[str, str]) -> dict:
    """The whole map of a data set of chains, as `hub_map` makes those of problems. Raises ProblemError."""
    mapping = mapped(name, options, CHAIN_SETS, CHAIN_OPTIONS)
    for field in ("question", "answer", "chain"):
        if field not in mapping:
            raise ProblemError(
                f"hub:{name}: say which field is which: hub:{name}?question=FIELD&answer=FIELD&chain=FIELD, and where "
                "needed &reasoning=FIELD; a.b names field b within field a, a.0 the first of list a"
            )
    return mapping


def mapped(name: str, options: dict[str, str], ready: dict[str, dict], known: tuple[str, ...]) -> dict:
    """The ready-made map of a name, or an empty one of OWNER/NAME, changed by `options`. Raises ProblemError."""
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ProblemError(f"hub:{name}: unknown option {wrong[0]!r}; there are: {', '.join(known)}")
    for option, values in VALUES.items():
        if option in options and options[option] not in values:
            raise ProblemError(f"hub:{name}: {option}={options[option]}: must be one of {', '.join(values)}")
    if name not in ready and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ProblemError(f"hub:{name}: no ready-made map of that name; there are: {', '.join(ready)}, or OWNER/NAME")
    return ready.get(name, DEFAULTS | {"repository": name}) | options | {"name": name}


def load_hub(
    name: str, options: dict[str, str], *, n_train: int, n_test: int, seed: int
) -> tuple[list[Problem], list[dict]]:
    """(rows, removed): up to `n_test` and `n_train` problems, drawn at random, the same for the same seed.

    Raises ProblemError for an unknown name, option or field, an answer that cannot be read, or a data set that the
    Hub does not give.
    """
    mapping = hub_map(name, options)
    test = mapping.get("test")
    test_map = for_test(mapping)
    drawn = shuffled(fetch(test_map), seed)
    tests, removed = rows_from(drawn, test_map, "test", n_test)
    if test:
        drawn = shuffled(fetch(mapping), seed)
    train, more = rows_from(drawn, mapping, "train", n_train)
    removed += more
    for split, found, wanted in (("test", tests, n_test), ("train", train, n_train)):
        if wanted and not found:
            raise ProblemError(f"hub:{name}: no usable problem for {split}; {len(removed)} rows were dropped")
    return tests + train, removed


def for_test(mapping: dict) -> dict:
    """The map of the test problems that a map names, or the map itself."""
    test = mapping.get("test")
    changed = mapping | ({"split": test} if isinstance(test, str) else test or {})
    if changed["repository"] != mapping["repository"]:  # these two name a state of the training problems' repository
        changed = {key: value for key, value in changed.items() if key not in ("config", "revision")}
    return changed


def fetch(mapping: dict):
    """The data set that a map names, from the Hub or the cache. Raises ProblemError in the Hub's own words."""
    import datasets

    repository, revision = mapping["repository"], mapping.get("revision")
    datasets.disable_progress_bars()
    try:
        if "files" in mapping:
            folder = f"hf://datasets/{repository}@{revision}" if revision else f"hf://datasets/{repository}"
            files = [f"{folder}/{file}" for file in mapping["files"]]
            return datasets.load_dataset("json", data_files=files, split="train")
        return datasets.load_dataset(repository, mapping.get("config"), split=mapping["split"], revision=revision)
    except Exception as error:  # a dozen classes, from http clients to builders: all mean that there is no data
        raise unreachable(mapping, error) from None


def stream(mapping: dict, seed: int) -> Iterator[tuple[int, dict]]:
    """(number, row) of a data set, read from the Hub as they are asked for, in an order drawn from the seed.

    Files are shuffled, and rows within a window of `WINDOW`: a set of many gigabytes is not fetched whole. Raises
    ProblemError as `fetch` does.
    """
    import datasets

    datasets.disable_progress_bars()
    try:
        data = datasets.load_dataset(
            mapping["repository"],
            mapping.get("config"),
            split=mapping["split"],
            revision=mapping.get("revision"),
            streaming=True,
        )
        yield from enumerate(data.shuffle(seed=seed, buffer_size=WINDOW), 1)
    except Exception as error:  # as in `fetch`
        raise unreachable(mapping, error) from None


def unreachable(mapping: dict, error: Exception) -> ProblemError:
    """The error of a data set that the Hub does not give: its own words, and what to do."""
    words = " ".join(str(error).split())[:300]
    advice = "check the name, config, split and revision"
    if "gated" in words or "401" in words or "403" in words:
        advice = "accept its terms on its page on the Hub and set HF_TOKEN"
    elif any(word in type(error).__name__.lower() for word in ("connect", "timeout", "offline")):
        advice = "the Hub cannot be reached from here: use a suite or your own .jsonl file"
    kind = type(error).__name__
    return ProblemError(f"hub:{mapping['name']} ({mapping['repository']}): {kind}: {words}; {advice}")


def shuffled(data, seed: int) -> Iterator[tuple[int, dict]]:
    """(row number, row) in an order drawn from the seed: sets are often sorted by source or difficulty."""
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    for number in order:
        yield number, data[number]
