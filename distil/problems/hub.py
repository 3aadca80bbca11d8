"""Problems from data sets on the Hub: which field is the question, which the answer, and how it is read.

`hub_datasets.yaml` holds the ready-made maps and says what a map may say.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from importlib import resources

import yaml

from distil.problems.errors import ProblemError
from distil.verify.answers import extract_boxed, normalise_answer
from distil.verify.choice import LETTERS
from distil.verify.registry import verifier_named, verifier_of
from distil.workspace.rows import Problem

MAPS = yaml.safe_load(resources.files("distil.problems").joinpath("hub_datasets.yaml").read_text(encoding="utf-8"))
DEFAULTS, DATA_SETS = MAPS["defaults"], MAPS["data_sets"]
OPTIONS = ("question", "answer", "split", "test", "config", "revision", "read", "verifier", "choices", "unreadable")
VALUES = {
    "read": ("plain", "hash", "boxed"),
    "verifier": ("math", "exact", "choice"),
    "unreadable": ("refuse", "drop"),
}
NO_ANSWER = {"", "none", "proof", "notfound", "not found"}  # what NuminaMath and its children write for want of one
TEXTS = re.compile(r"[^\W\d_]{2,}([ '-][^\W\d_]+)*")  # words, which math-verify would read as products of letters


def hub_map(name: str, options: dict[str, str]) -> dict:
    """The whole map of a ready-made name or OWNER/NAME, changed by `options`. Raises ProblemError."""
    wrong = sorted(set(options) - set(OPTIONS))
    if wrong:
        raise ProblemError(f"hub:{name}: unknown option {wrong[0]!r}; there are: {', '.join(OPTIONS)}, against")
    for option, known in VALUES.items():
        if option in options and options[option] not in known:
            raise ProblemError(f"hub:{name}: {option}={options[option]}: must be one of {', '.join(known)}")
    if name not in DATA_SETS and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ProblemError(
            f"hub:{name}: no ready-made map of that name; there are: {', '.join(DATA_SETS)}, or OWNER/NAME"
        )
    mapping = DEFAULTS | DATA_SETS.get(name, {"repository": name}) | options
    needs_answer = verifier_named(mapping["verifier"]).needs_answer and not isinstance(mapping.get("choices"), list)
    for field in ("question", "answer") if needs_answer else ("question",):
        if field not in mapping:
            raise ProblemError(f"hub:{name}: say which field is which: hub:{name}?question=FIELD&answer=FIELD")
    return mapping | {"name": name}


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
        words = " ".join(str(error).split())[:300]
        advice = "check the name, config, split and revision"
        if "gated" in words or "401" in words or "403" in words:
            advice = "accept its terms on its page on the Hub and set HF_TOKEN"
        elif any(word in type(error).__name__.lower() for word in ("connect", "timeout", "offline")):
            advice = "the Hub cannot be reached from here: use a suite or your own .jsonl file"
        raise ProblemError(f"hub:{mapping['name']} ({repository}): {type(error).__name__}: {words}; {advice}") from None


def shuffled(data, seed: int) -> Iterator[tuple[int, dict]]:
    """(row number, row) in an order drawn from the seed: sets are often sorted by source or difficulty."""
    order = list(range(len(data)))
    random.Random(seed).shuffle(order)
    for number in order:
        yield number, data[number]


def rows_from(
    records: Iterable[tuple[int, dict]], mapping: dict, split: str, wanted: int
) -> tuple[list[Problem], list[dict]]:
    """(problems, removed) from numbered records of a data set, until `wanted` problems are found.

    Raises ProblemError, naming the row, for a field that is not there (with those that are), or an answer that cannot
    be read, unless the map drops such rows.
    """
    rows, removed = [], []
    records = iter(records)
    while len(rows) < wanted:
        number, record = next(records, (None, None))
        if record is None:
            break
        where = f"hub:{mapping['name']}, row {number}"
        fields = [mapping[key] for key in ("question", "answer", "tests", "starter", "choices") if key in mapping]
        several = fields.pop() if isinstance(mapping.get("choices"), list) else ()
        for field in (*fields, *several, *mapping.get("where", {})):
            if field not in record:
                raise ProblemError(f"{where}: no field {field!r}; there are: {', '.join(record)}")
        if any(record[field] != value for field, value in mapping.get("where", {}).items()):
            continue
        name = mapping["name"].rpartition("/")[2]
        problem = Problem(
            id=f"{name}-{split}-{number:06d}",
            domain=verifier_named(mapping["verifier"]).domain or "hub",
            task=name,
            question=str(record[mapping["question"]] or "").strip(),
            answer="",
            verifier=mapping["verifier"],
            source=mapping["repository"],
            split=split,
        )
        try:
            fill_in(problem, record, mapping)
        except ValueError as error:
            if mapping["unreadable"] == "refuse":
                raise ProblemError(f"{where}: {error}; unreadable=drop leaves such rows out") from None
            reason = {"reason": str(error), "collides_with": None, "collides_with_question": None}
            removed.append(problem.to_dict() | reason)
            continue
        rows.append(problem)
    return rows, removed


def fill_in(problem: Problem, record: dict, mapping: dict) -> None:
    """Answer, verifier, choices and tests of a problem, in place. Raises ValueError if they cannot be used."""
    if not problem.question:
        raise ValueError("the question is empty")
    if "tests" in mapping:
        tests = record[mapping["tests"]]
        problem.tests = json.loads(tests) if isinstance(tests, str) and tests.strip() else tests
    if mapping.get("starter") and record[mapping["starter"]]:
        problem.question += f"\n\nStart from this code:\n{record[mapping['starter']]}"
        if method := re.search(r"def (\w+)\(self", record[mapping["starter"]]):
            problem.entry_point = method.group(1)
    if "choices" in mapping:
        if isinstance(mapping["choices"], list):
            problem.choices = [str(record[field]).strip() for field in mapping["choices"]]
            right = problem.choices[0]
            random.Random(problem.question).shuffle(problem.choices)  # the same for every run and every student
            problem.answer = LETTERS[problem.choices.index(right)]
        else:
            problem.choices = [str(choice) for choice in record[mapping["choices"]]]
        problem.question += "\n\n" + "\n".join(f"{chr(65 + i)}) {text}" for i, text in enumerate(problem.choices))
    if "answer" in mapping:
        problem.answer = read_answer(record[mapping["answer"]], mapping["read"])
    if problem.verifier == "math" and TEXTS.fullmatch(normalise_answer(problem.answer)):
        problem.verifier = "exact"
    verifier_of(problem).check_gold(problem)


def read_answer(value: object, how: str) -> str:
    """The gold answer in a field's value. Raises ValueError if there is none."""
    text = "" if value is None else str(value)
    if how == "hash":
        _, sign, text = text.rpartition("####")
        if not sign:
            raise ValueError("no answer after ####")
    elif how == "boxed":
        text = extract_boxed(text) or ""
    text = text.strip()
    if text.casefold() in NO_ANSWER:
        raise ValueError(f"no answer to be read ({how})")
    return text
