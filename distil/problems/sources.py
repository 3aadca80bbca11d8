"""Problems to distil on: generated families, the user's own file, or a data set on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qsl

import yaml

from distil.problems.dedup import clean
from distil.problems.errors import ProblemError
from distil.problems.fields import as_texts, read_split, text_of
from distil.verify.answers import final_answer
from distil.verify.registry import verifier_named, verifier_of
from distil.workspace.environment import root
from distil.workspace.files import read_table
from distil.workspace.rows import Problem

SUITES: dict[str, dict[str, dict]] = yaml.safe_load(
    resources.files("distil.problems").joinpath("suites.yaml").read_text(encoding="utf-8")
)


def generate(suite: str, n_train: int, n_test: int, seed: int) -> list[Problem]:
    """`n_train` + `n_test` problems of a suite, shared evenly over its families, no question twice.

    Train and test problems never share a question. Raises ProblemError for an unknown suite or a family too small.
    """
    if suite not in SUITES:
        raise ProblemError(
            f"no problem suite {suite!r}; there are: {', '.join(SUITES)}, your .jsonl or .json file, or hub:NAME"
        )
    families = SUITES[suite]
    rows: list[Problem] = []
    for number, (task, config) in enumerate(families.items()):
        wanted = {
            split: n // len(families) + (number < n % len(families))
            for split, n in (("train", n_train), ("test", n_test))
        }
        # the generator repeats itself in small families: ask for more, keep the first of each question; turn and turn
        # about to train and test, so that asking for more of one does not change the other
        pool = family(task, 40 * max(wanted.values()) + 20, seed, config)
        seen: set[str] = set()
        taken = dict.fromkeys(wanted, 0)
        for problem in pool:
            if problem.question in seen:
                continue
            split = "train" if len(seen) % 2 == 0 else "test"
            seen.add(problem.question)
            if taken[split] < wanted[split]:
                rows.append(problem.replace(id=f"{task}-{split}-{taken[split]:04d}", split=split))
                taken[split] += 1
            if taken == wanted:
                break
        if taken != wanted:
            raise ProblemError(f"family {task} has only {len(seen)} different questions of its size; ask for fewer")
    return rows


def family(task: str, size: int, seed: int, config: dict) -> Iterator[Problem]:
    """Problems of one family, without id and split; a question may come twice."""
    if task == "programs":
        from distil.problems import programs

        yield from programs.pool(seed)
        return
    import reasoning_gym

    for entry in reasoning_gym.create_dataset(task, size=size, seed=seed, **config):
        yield Problem(
            id="",
            domain="reasoning",
            task=task,
            question=entry["question"].strip(),
            answer=str(entry["answer"]),
            verifier=f"reasoning_gym:{task}",
            source="reasoning-gym",
            metadata=json.loads(json.dumps(entry["metadata"], default=str)),
        )


def read_rows(path: Path) -> list[Problem]:
    """The user's problems: `question` and `answer`, and optionally any other field of a `Problem`, a row each.

    The file is JSON Lines or one JSON list. Raises StageError where it is neither, and ProblemError, naming the line,
    for a row that `problem_from` refuses or a repeated id.
    """
    if not path.is_file():
        raise ProblemError(f"{path}: no such file; give a suite ({', '.join(SUITES)}), your own file, or hub:NAME")
    rows, ids, cut = [], {}, 0
    for number, row in read_table(path):
        where = place(path, number)
        problem = problem_from(row, where, id=f"row-{number:05d}", source=path.name)
        if problem.id in ids:
            raise ProblemError(f"{where}: id {problem.id!r} was used on {ids[problem.id]} already")
        ids[problem.id] = where.rpartition(", ")[2]
        rows.append(problem)
        cut += was_cut(row, problem)
    say_cut(path, cut)
    return rows


def was_cut(row: dict, problem: Problem) -> bool:
    """Was a row's answer a whole solution, of which the problem has the final answer?"""
    return isinstance(row.get("answer"), str) and row["answer"] != problem.answer


def say_cut(path: Path, cut: int) -> None:
    """Print how many answers of a file were cut."""
    if cut:
        print(f"{path}: {cut} answers were whole solutions; what counts is the final answer (after ####, or boxed)")


def place(path: Path, number: int) -> str:
    """Where a row of the user's file stands, in words."""
    return f"{path}, {'row' if path.suffix == '.json' else 'line'} {number}"


def problem_from(row: dict, where: str, **usual: str) -> Problem:
    """A problem from a row of the user's file; `usual` are fields for a row that lacks them.

    Without a `verifier` an answer with a digit in it is compared as mathematics, any other as text. Verifier `choice`
    may have `choices`, verifier `code` has `tests` in place of an answer. Raises ProblemError, saying `where`, for a
    field that is missing, empty or no text, an unknown verifier or split, or an answer that cannot be read.
    """
    try:
        verifier = row.get("verifier")
        needs_answer = verifier is None or verifier_named(text_of(verifier, "verifier")).needs_answer
        texts = {"answer": ""} | as_texts(row, ("question", "answer") if needs_answer else ("question",))
        texts["answer"] = final_answer(texts["answer"])
        problem = Problem.from_dict(
            {"domain": "user", "task": "user"}
            | {"verifier": "math" if any(c.isdigit() for c in texts["answer"]) else "exact"}
            | usual
            | texts
        )
        problem.split = read_split(problem.split)
        verifier_of(problem).check_gold(problem)
    except ValueError as error:
        raise ProblemError(f"{where}: {error}") from None
    return problem


def read_file(path: Path, n_train: int, n_test: int) -> list[Problem]:
    """Problems of the user's file, as `read_rows` reads it, up to `n_test` for test and `n_train` for training.

    Rows without a `split` go to test for the first `n_test` of them, then to train. Raises ProblemError as `read_rows`
    does, and if no problem is left for a split.
    """
    rows = read_rows(path)
    free = [row for row in rows if not row.split]
    for number, row in enumerate(free):
        row.split = "test" if number < n_test else "train"
    kept: list[Problem] = []
    for split, n in (("test", n_test), ("train", n_train)):
        chosen = [row for row in rows if row.split == split][:n]
        if not chosen:
            raise ProblemError(
                f"{path}: no problem left for {split}; it holds {len(rows)}, wanted {n_train} + {n_test}"
            )
        kept += chosen
    return kept


def read_questions(path: Path) -> list[Problem]:
    """Questions that must not be learned, from field `question` of a user's file. Raises ProblemError or StageError."""
    if not path.is_file():
        raise ProblemError(f"against={path}: no such file")
    rows = []
    for number, row in read_table(path):
        where = place(path, number)
        try:
            text = as_texts({"question": row["question"]} if "question" in row else {}, ("question",))["question"]
        except ValueError as error:
            raise ProblemError(f"{where}: {error}") from None
        name = f"{path.name}, {where.rpartition(', ')[2]}"
        rows.append(Problem(id=name, domain="", task="", question=text, answer="", verifier="exact", source=path.name))
    return rows


def absolute(name: str) -> Path:
    """A path as it is, from one's home folder, or below the project folder."""
    path = Path(name).expanduser()
    return path if path.is_absolute() else root() / path


def gather(source: str, n_train: int, n_test: int, seed: int) -> tuple[list[Problem], list[dict]]:
    """(problems, removed) of a run, cleaned: no question twice, no test question among those to learn.

    `source` is a suite, a `.jsonl` or `.json` path, or `hub:NAME` (see `distil.problems.hub`), each with options after
    a question mark: `against=FILE.jsonl` keeps the questions of that file out of the training problems. `removed` lists
    what was left out, each row with `reason` and the question it collides with. Raises ProblemError, and StageError for
    a file that cannot be read.
    """
    name, _, text = source.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    others = read_questions(absolute(options.pop("against"))) if "against" in options else []
    removed: list[dict] = []
    if name.startswith("hub:"):
        from distil.problems.hub import load_hub

        rows, removed = load_hub(name.removeprefix("hub:"), options, n_train=n_train, n_test=n_test, seed=seed)
    elif options:
        raise ProblemError(f"problems={source}: {name} has one option, ?against=FILE.jsonl, not {text!r}")
    elif name.endswith((".jsonl", ".json")):
        rows = read_file(absolute(name), n_train, n_test)
    else:
        rows = generate(name, n_train, n_test, seed)
    kept, collided = clean(rows, others)
    if any(row.split == "train" for row in rows) and not any(row.split == "train" for row in kept):
        raise ProblemError(f"problems={source}: every problem for training is in a test set too: take others")
    return kept, removed + collided


def load(source: str, n_train: int, n_test: int, seed: int) -> list[Problem]:
    """The problems of `gather`, without what was removed. Raises ProblemError."""
    return gather(source, n_train, n_test, seed)[0]
