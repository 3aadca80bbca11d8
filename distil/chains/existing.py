"""Chains that exist already, of the user's own file or a data set on the Hub, in place of those of a slow teacher.

Each is verified as a teacher's would be. Its tokens are those that the row counts, else
an estimate (`distil.llm.tokens`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl

from distil.chains.collect import make_chain
from distil.chains.existing_rows import Given, file_rows, hub_row
from distil.llm.cache import Reply
from distil.llm.replies import split_reasoning
from distil.problems.dedup import clean
from distil.problems.errors import ProblemError
from distil.problems.hub import CHAIN_SETS, chains_map, stream
from distil.problems.hub_rows import Unreadable
from distil.problems.sources import absolute
from distil.verify.registry import map_problems
from distil.workspace.files import digest
from distil.workspace.rows import Chain, Problem

LEAST_RIGHT = 0.05  # of a source's chains; below it the answers, not the chains, are wrong
SAMPLE = 200  # chains that are verified before a run begins; 01 verifies all
IN_VAIN = 1000  # rows of a data set without a usable one, after which no more are read

Found = dict[str, tuple[Problem, list[Given]]]  # by question


def load(source: str, n_train: int, n_test: int, seed: int) -> tuple[list[Problem], list[dict], list[Chain]]:
    """(problems, removed, chains): problems of the source, cleaned, and the verified chains of those for training.

    `source` is FILE.jsonl or FILE.json, where `?answer=boxed` takes the answer that a chain boxes for the gold answer:
    that verifies rewrites, not the chain itself. Or it is hub:NAME of `hub_chains.yaml`, or
    `hub:OWNER/NAME?question=FIELD&answer=FIELD&chain=FIELD`; of these no more rows are read than are needed. Of a
    file, rows may say `split`; of all others `n_test` problems are drawn for testing by the seed, whose chains are not
    used, and up to `n_train` for training. Raises ProblemError or StageError, naming the file and the line.
    """
    kept, removed, given = read_chains(source, n_train, n_test, seed)
    return kept, removed, verified(source, given)


def read_chains(
    source: str, n_train: int, n_test: int, seed: int
) -> tuple[list[Problem], list[dict], list[tuple[Problem, Given]]]:
    """What `load` gives, the chains with their problems and not verified. Raises ProblemError or StageError."""
    name, options = read_source(source)
    if name.startswith("hub:"):
        mapping = chains_map(name.removeprefix("hub:"), options)
        found, removed = from_hub(mapping, n_train + n_test, seed)
    else:
        found, removed = from_file(name, boxed="answer" in options)
    problems = draw(source, [problem for problem, _ in found.values()], n_train, n_test, seed)
    kept, collided = clean(problems)
    train = [problem for problem in kept if problem.split == "train"]
    if not train:
        raise ProblemError(f"chains={source}: every problem for training is in the test set too: take others")
    given = [(problem, chain) for problem in train for chain in found[problem.question.strip()][1]]
    return kept, removed + collided, given


def check(source: str, n_train: int, n_test: int, seed: int) -> list[Problem]:
    """Find what can be known to fail before anything is asked: the map of a data set, or every row of a file.

    Of a file's chains `SAMPLE` are verified, drawn by the seed. Returns the file's problems. Raises ProblemError or
    StageError.
    """
    name, options = read_source(source)
    if name.startswith("hub:"):
        chains_map(name.removeprefix("hub:"), options)
        return []
    rows, _, given = read_chains(source, n_train, n_test, seed)
    verified(source, given if len(given) <= SAMPLE else random.Random(seed).sample(given, SAMPLE))
    return rows


def read_source(source: str) -> tuple[str, dict[str, str]]:
    """(file or hub:NAME, options) of a parameter's value. Raises ProblemError for what is neither."""
    name, _, text = source.partition("?")
    options = dict(parse_qsl(text, keep_blank_values=True))
    if name.startswith("hub:"):
        return name, options
    if not name.endswith((".jsonl", ".json")):
        raise ProblemError(
            f"chains={source}: give a .jsonl or .json file, or hub:NAME with NAME one of {', '.join(CHAIN_SETS)} or "
            "OWNER/NAME"
        )
    if options not in ({}, {"answer": "boxed"}):
        raise ProblemError(f"chains={source}: a file has one option, ?answer=boxed, not {text!r}")
    return name, options


def from_file(name: str, boxed: bool) -> tuple[Found, list[dict]]:
    """(problems with their chains, removed rows) of a user's file. Raises ProblemError or StageError."""
    found: Found = {}
    removed, rows, first = [], 0, ""
    for problem, given in file_rows(absolute(name), boxed):
        rows += 1
        if isinstance(problem, Problem):
            note(found, problem, given, absolute(name).stem)
        else:
            removed.append(problem)
            first = first or problem["reason"]
    if rows - len(removed) < LEAST_RIGHT * rows:
        raise ProblemError(f"chains={name}: {rows - len(removed)} of {rows} rows have an answer; the first: {first}")
    return found, removed


def from_hub(mapping: dict, wanted: int, seed: int) -> tuple[Found, list[dict]]:
    """(up to `wanted` problems with their chains, removed rows) of a data set. Raises ProblemError."""
    found: Found = {}
    removed: list[dict] = []
    for number, record in stream(mapping, seed):
        if len(found) == wanted:
            break
        if not found and number > IN_VAIN:
            why = f", the first because: {removed[0]['reason']}" if removed else ""
            raise ProblemError(f"hub:{mapping['name']}: none of {IN_VAIN} rows can be used{why}")
        try:
            row = hub_row(record, number, mapping)
        except Unreadable as error:
            removed.append(error.row)
            continue
        if row is not None:
            note(found, *row, mapping["name"].rpartition("/")[2])
    return found, removed


def note(found: Found, problem: Problem, given: list[Given], name: str) -> None:
    """Add a problem, named by its question, and its chains; those of a question that is known join the others."""
    question = problem.question.strip()
    name = re.sub(r"[^\w.-]+", "-", name)
    problem.id = f"{name}-{digest(question)[:12]}"
    found.setdefault(question, (problem, []))[1].extend(given)


def draw(source: str, problems: list[Problem], n_train: int, n_test: int, seed: int) -> list[Problem]:
    """`n_test` problems for testing and up to `n_train` for training, by the seed. Raises ProblemError for too few."""
    order = list(problems)
    random.Random(seed).shuffle(order)
    tests = [problem for problem in order if problem.split == "test"] + [p for p in order if not p.split]
    tests = tests[:n_test]
    others = {problem.id for problem in problems if problem.split != "test"} - {problem.id for problem in tests}
    train = [problem for problem in order if problem.id in others][:n_train]
    if not train or len(tests) < n_test:
        raise ProblemError(
            f"chains={source}: holds {len(problems)} different questions, too few for n_test={n_test} to be set apart "
            "for testing and others to learn from: set n_test lower, or give more rows"
        )
    return [p.replace(split="test") for p in tests] + [p.replace(split="train") for p in train]


def verified(source: str, given: Iterable[tuple[Problem, Given]]) -> list[Chain]:
    """The chains, verified. Raises ProblemError, naming the first wrong one, if hardly any is right."""
    given = list(given)
    numbers: dict[tuple[str, str], int] = {}
    names = []
    for problem, chain in given:
        k = numbers.setdefault((problem.id, chain.style), 0)
        numbers[problem.id, chain.style] += 1
        names.append(f"{problem.id}-{chain.style}-{k}")
    chains = map_problems(make, [problem for problem, _ in given], names, [chain for _, chain in given])
    checked = [(chain, told.where) for chain, (_, told) in zip(chains, given, strict=True) if chain.correct is not None]
    right = sum(chain.correct for chain, _ in checked)
    if right < LEAST_RIGHT * len(checked):
        why, where = next((chain.why, where) for chain, where in checked if not chain.correct)
        raise ProblemError(
            f"chains={source}: {right} of {len(checked)} chains are right ({right / len(checked):.0%}); the first "
            f"wrong one, {where}: {why}. Is field `answer` the final answer alone, and does every chain end with it "
            r"in \boxed{}?"
        )
    return chains


def make(problem: Problem, name: str, given: Given) -> Chain:
    """A chain as the source gives it, verified."""
    text, reasoning = split_reasoning(given.text, given.reasoning)
    reply = Reply(
        text=text,
        reasoning=reasoning,
        finish_reason=given.finish_reason,
        prompt_tokens=0,
        completion_tokens=given.n_tokens,
    )
    return make_chain(name, problem, given.style, reply, teacher=given.teacher, rv=given.rv, cd=given.cd)
