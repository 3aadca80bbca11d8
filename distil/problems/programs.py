"""Small functions to write, in the manner of HumanEval: made here, with tests worked out by a program that is right.

Nothing is taken from any benchmark. Every kind of `program_kinds` has its own words; train and test share kinds, never
a question.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice, product

from distil.problems.program_kinds import KINDS, Kind
from distil.workspace.rows import Problem

WORDS = """tea boat seat rain mast bread piano carpet stream art bare butter cart clear market mouse pear pepper ribbon
roast rose stone summer table tent tomato""".split()
FEW = WORDS[:10]  # for what is looked up
SHOWN, FIRST = 2, 6  # examples in the question, and tests that every problem has
TRIES = 1000  # inputs looked at for one that tells two functions apart


def draw(what: str, rng: random.Random) -> object:
    """A value to call a function with."""
    if what == "number":
        return rng.randint(0, 10 ** rng.randint(1, 4))
    if what == "small":
        return rng.randint(0, 100)
    if what == "ints":
        return [rng.randint(-20, 80) for _ in range(rng.randint(1, 12))]
    if what == "steps":  # neighbours that are near each other
        return [rng.randint(0, 12) for _ in range(rng.randint(1, 10))]
    if what == "stock":
        return {word: rng.randint(0, 40) for word in rng.sample(FEW, rng.randint(2, 8))}
    words = rng.choices(FEW if what == "items" else WORDS, k=rng.randint(1, 6))
    return " ".join([*words, str(rng.randint(10, 999))]) if what == "text" else words


EMPTY = {"number": 0, "small": 0, "ints": [], "steps": [], "stock": {}, "items": [], "words": [], "text": ""}


def signature(kind: Kind) -> str:
    return f"def {kind.name}({kind.args}) -> {kind.returns}:\n"


def solution(kind: Kind, values: dict) -> str:
    """The body of the function, as it goes on after the problem's `prompt`."""
    return "".join(f"    {line.format(**values)}\n" for line in kind.body)


def compiled(kind: Kind, values: dict) -> Callable:
    """The function itself, from the source in `program_kinds`."""
    place: dict = {}
    exec(signature(kind) + solution(kind, values), place)
    return place[kind.name]


def combinations_of(kind: Kind) -> list[dict]:
    """All that can be chosen for a kind."""
    return [dict(zip(kind.choices, values, strict=True)) for values in product(*kind.choices.values())]


def cases(kind: Kind, chosen: int, functions: list[Callable], rng: random.Random) -> list[tuple]:
    """(arguments, result) of the function in place `chosen` of all those of its kind: examples first, then tests.

    A few drawn at random, for every other function of the kind one that tells it from this one, so that a program with
    the wrong number in it does not pass, and one of nothing.
    """

    def case(args: tuple) -> tuple:
        return args, functions[chosen](*args)

    def drawn(n: int) -> Iterator[tuple]:
        return (case(tuple(draw(what, rng) for what in kind.inputs)) for _ in range(n))

    found = list(drawn(SHOWN + FIRST))
    for place, other in enumerate(functions):
        if place != chosen and all(other(*args) == wanted for args, wanted in found[SHOWN:]):
            found += islice((c for c in drawn(TRIES) if other(*c[0]) != c[1]), 1)
    return [*found, case(tuple(EMPTY[what] for what in kind.inputs))]


def call(kind: Kind, args: tuple) -> str:
    return f"{kind.name}({', '.join(map(repr, args))})"


def problem_of(kind: Kind, chosen: int, values: dict, *, functions: list[Callable], rng: random.Random) -> Problem:
    """A problem without id and split, with the same fields as HumanEval's (see `humaneval`)."""
    found = cases(kind, chosen, functions, rng)
    examples = "".join(f"    >>> {call(kind, args)}\n    {wanted!r}\n" for args, wanted in found[:SHOWN])
    prompt = f'{signature(kind)}    """{kind.words.format(**values)}\n\n{examples}    """\n'
    return Problem(
        id="",
        domain="code",
        task="programs",
        question=f"Complete this Python function.\n\n{prompt.strip()}",
        answer="",
        verifier="code",
        source="distil",
        prompt=prompt,
        entry_point=kind.name,
        tests=[f"assert {call(kind, args)} == {wanted!r}" for args, wanted in found[SHOWN:]],
        solution=solution(kind, values),
    )


def pool(seed: int) -> Iterator[Problem]:
    """All problems, in an order of `seed`: the kinds in turn, two of a kind together, until one is used up.

    Two together, so that whoever deals them out to train and test by turns gives each as many of every kind.
    """
    rng = random.Random(seed)
    every = {kind.name: combinations_of(kind) for kind in KINDS}
    functions = {kind.name: [compiled(kind, values) for values in every[kind.name]] for kind in KINDS}
    order = {name: rng.sample(range(len(found)), len(found)) for name, found in every.items()}
    for begin in range(0, max(map(len, order.values())), 2):
        for kind in rng.sample(KINDS, len(KINDS)):
            for chosen in order[kind.name][begin : begin + 2]:
                own = random.Random(f"{seed}:{kind.name}:{chosen}")
                values = every[kind.name][chosen]
                yield problem_of(kind, chosen, values, functions=functions[kind.name], rng=own)
