"""Problems to distil on: generated families, the user's own file, or a data set on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from distil.problems.errors import ProblemError
from distil.workspace.rows import Problem

FIELDS = ("id", "domain", "task", "question", "answer", "verifier", "source", "split")

# Families of reasoning-gym (Apache-2.0), sized so that a 135M student can learn something of each. Left out on
# purpose: gsm_symbolic, whose upstream licence is unclear.
SUITES: dict[str, dict[str, dict]] = {
    "starter": {
        "chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2},
        "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
        "simple_equations": {"min_value": 1, "max_value": 20},
        "simple_geometry": {"min_sides": 3, "max_sides": 3, "min_angle": 10, "max_angle": 150},
        "needle_haystack": {"min_num_statements": 3, "max_num_statements": 5},
    },
    # the same families beyond the sizes of `starter`, to measure how far what was learned reaches
    "harder": {
        "chain_sum": {"min_terms": 4, "max_terms": 6, "min_digits": 2, "max_digits": 3},
        "products": {"min_terms": 2, "max_terms": 2, "min_digits": 3, "max_digits": 3},
        "simple_equations": {"min_terms": 3, "max_terms": 4, "min_value": 20, "max_value": 100},
        "simple_geometry": {"min_sides": 4, "max_sides": 6, "min_angle": 10, "max_angle": 170},
        "needle_haystack": {"min_num_statements": 8, "max_num_statements": 20},
    },
    # For a student of 0.5B and a teacher of 1.5B. Every scorer is exact and takes what a model would put into a box.
    # Left out therefore: fraction_simplification, which reads \frac{1}{2} and not what follows it; time_intervals,
    # which forgives a minute in a day; gcd and the yes-or-no families, where one answer is right more often than not;
    # families that ask for lists; words and texts whose source is not said.
    "reference": {
        "chain_sum": {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 3},
        "products": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 3},
        "simple_equations": {"min_terms": 2, "max_terms": 3, "min_value": 1, "max_value": 50},
        "simple_geometry": {"min_sides": 3, "max_sides": 5, "min_angle": 10, "max_angle": 150},
        "needle_haystack": {"min_num_statements": 6, "max_num_statements": 12},
        "basic_arithmetic": {"min_terms": 3, "max_terms": 4, "min_digits": 1, "max_digits": 2, "allow_negation": False},
        "decimal_chain_sum": {"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}
        | {"min_decimal_places": 1, "max_decimal_places": 2},
        "lcm": {"min_value": 4, "max_value": 60},
        "leg_counting": {"min_animals": 2, "max_animals": 4, "min_instances": 1, "max_instances": 9},
        "calendar_arithmetic": {
            "tasks": ["weekday_offset", "weekday_of_date_from_first_date"],
            "offset_upper_bound": 40,
        },
        "family_relationships": {"min_family_size": 4, "max_family_size": 6},
        "programs": {},  # functions to write: distil.problems.programs
    },
}


def generate(suite: str, n_train: int, n_test: int, seed: int) -> list[dict]:
    """`n_train` + `n_test` problems of a suite, shared evenly over its families, no question twice.

    Train and test problems never share a question. Raises ProblemError for an unknown suite or a family too small.
    """
    if suite not in SUITES:
        raise ProblemError(f"no problem suite {suite!r}; there are: {', '.join(SUITES)}, a .jsonl file, or hub:NAME")
    families = SUITES[suite]
    rows: list[dict] = []
    for number, (task, config) in enumerate(families.items()):
        wanted = {
            split: n // len(families) + (number < n % len(families))
            for split, n in (("train", n_train), ("test", n_test))
        }
        # the generator repeats itself in small families: ask for more, keep the first of each question; turn and turn
        # about to train and test, so that asking for more of one does not change the other
        pool = entries(task, 40 * max(wanted.values()) + 20, seed, config)
        seen: set[str] = set()
        taken = dict.fromkeys(wanted, 0)
        for entry in pool:
            if entry["question"] in seen:
                continue
            split = "train" if len(seen) % 2 == 0 else "test"
            seen.add(entry["question"])
            if taken[split] < wanted[split]:
                more = entry.pop("more")
                first = {"id": f"{task}-{split}-{taken[split]:04d}", "domain": entry["domain"], "task": task}
                rows.append(first | entry | {"split": split} | more)
                taken[split] += 1
            if taken == wanted:
                break
        if taken != wanted:
            raise ProblemError(f"family {task} has only {len(seen)} different questions of its size; ask for fewer")
    return rows


def entries(task: str, size: int, seed: int, config: dict) -> Iterator[dict]:
    """Problems of one family, {domain, question, answer, verifier, source, more: further fields}; some may be twice."""
    if task == "programs":
        from distil.problems import programs

        yield from programs.pool(seed)
        return
    import reasoning_gym

    for entry in reasoning_gym.create_dataset(task, size=size, seed=seed, **config):
        yield {
            "domain": "reasoning",
            "question": entry["question"].strip(),
            "answer": str(entry["answer"]),
            "verifier": f"reasoning_gym:{task}",
            "source": "reasoning-gym",
            "more": {"metadata": json.loads(json.dumps(entry["metadata"], default=str))},
        }


def read_rows(path: Path) -> list[dict]:
    """The user's problems: JSON Lines with `question` and `answer`, and optionally any other field of `FIELDS`.

    Without a `verifier` an answer with a digit in it is compared as mathematics, any other as text. Verifier `choice`
    may have `choices`, verifier `code` has `tests` in place of an answer. Raises ProblemError, naming the line, for
    broken JSON, a missing or empty field, an unknown verifier, or a repeated id.
    """
    from distil.verify.check import check_verifier

    if not path.is_file():
        raise ProblemError(f"{path}: no such file; give a suite ({', '.join(SUITES)}), a .jsonl file, or hub:NAME")
    rows, ids = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row = parse_line(line, where)
        for field in ("question",) if row.get("verifier") == "code" else ("question", "answer"):
            if field not in row:
                raise ProblemError(f"{where}: field `{field}` is missing")
            if not str(row[field]).strip():
                raise ProblemError(f"{where}: field `{field}` is empty")
        answer = str(row.get("answer", ""))
        row = (
            {"id": f"row-{number:05d}", "domain": "user", "task": "user", "source": path.name}
            | {"verifier": "math" if any(c.isdigit() for c in answer) else "exact"}
            | row
            | {"question": str(row["question"]), "answer": answer}
        )
        if row["id"] in ids:
            raise ProblemError(f"{where}: id {row['id']!r} was used on line {ids[row['id']]} already")
        ids[row["id"]] = number
        try:
            check_verifier(row)
        except ValueError as error:
            raise ProblemError(f"{where}: {error}") from None
        rows.append(row)
    return rows


def parse_line(line: str, where: str) -> dict:
    """One line of the user's file. Raises ProblemError unless it is an object."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{where}: not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(row, dict):
        raise ProblemError(f"{where}: a row is an object with `question` and `answer`, not {type(row).__name__}")
    return row


def read_file(path: Path, n_train: int, n_test: int) -> list[dict]:
    """Problems of the user's file, as `read_rows` reads it, up to `n_test` for test and `n_train` for training.

    Rows without a `split` go to test for the first `n_test` of them, then to train. Raises ProblemError as `read_rows`
    does, and if no problem is left for a split.
    """
    rows = read_rows(path)
    free = [row for row in rows if "split" not in row]
    for number, row in enumerate(free):
        row["split"] = "test" if number < n_test else "train"
    kept: list[dict] = []
    for split, n in (("test", n_test), ("train", n_train)):
        chosen = [row for row in rows if row["split"] == split][:n]
        if not chosen:
            raise ProblemError(
                f"{path}: no problem left for {split}; it holds {len(rows)}, wanted {n_train} + {n_test}"
            )
        kept += chosen
    return kept


def read_questions(path: Path) -> list[dict]:
    """Questions that must not be learned, from a JSON Lines file: {id, question}. Raises ProblemError."""
    if not path.is_file():
        raise ProblemError(f"against={path}: no such file")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = parse_line(line, f"{path}, line {number}")
            if "question" not in row:
                raise ProblemError(f"{path}, line {number}: field `question` is missing")
            rows.append({"id": f"{path.name}, line {number}", "question": str(row["question"])})
    return rows


def absolute(name: str) -> Path:
    """A path as it is, or below the project folder."""
    from distil.workspace.environment import root

    return Path(name) if Path(name).is_absolute() else root() / name


def gather(source: str, n_train: int, n_test: int, seed: int) -> tuple[list[Problem], list[dict]]:
    """(problems, removed) of a run, cleaned: no question twice, no test question among those to learn.

    `source` is a suite, a `.jsonl` path, or `hub:NAME` (see hub_problems), each with options after a question mark:
    `against=FILE.jsonl` keeps the questions of that file out of the training problems. `removed` lists what was left
    out, each row with `reason` and the question it collides with. Raises ProblemError.
    """
    from distil.problems.dedup import clean

    name, _, text = source.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    others = read_questions(absolute(options.pop("against"))) if "against" in options else []
    removed: list[dict] = []
    if name.startswith("hub:"):
        from distil.problems.hub import load_hub

        rows, removed = load_hub(name.removeprefix("hub:"), options, n_train, n_test, seed)
    elif options:
        raise ProblemError(f"problems={source}: {name} has one option, ?against=FILE.jsonl, not {text!r}")
    elif name.endswith(".jsonl"):
        rows = read_file(absolute(name), n_train, n_test)
    else:
        rows = generate(name, n_train, n_test, seed)
    kept, collided = clean(rows, others)
    if any(row["split"] == "train" for row in rows) and not any(row["split"] == "train" for row in kept):
        raise ProblemError(f"problems={source}: every problem for training is in a test set too: take others")
    return [Problem.from_dict(row) for row in kept], removed + collided


def load(source: str, n_train: int, n_test: int, seed: int) -> list[Problem]:
    """The problems of `gather`, without what was removed. Raises ProblemError."""
    return gather(source, n_train, n_test, seed)[0]
