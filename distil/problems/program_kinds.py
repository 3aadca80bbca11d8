"""The small functions that `distil.problems.programs` asks for: the task in words, and a program that does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Kind:
    """A function of `choices`: every combination of their values makes another problem.

    `words` and `body` (a line of the function each) hold the chosen values as `{name}`; `args` are its arguments with
    their types, `inputs` says of each argument which values it is tested on (see `programs.draw`).
    """

    name: str
    args: str
    returns: str
    words: str
    body: Sequence[str]
    choices: Mapping[str, Sequence]
    inputs: Sequence[str]


PAIRS = list(combinations("aeiorst", 2))
BOUNDS = [(low, low + width) for low in (0, 5, 10, 20) for width in (5, 10, 20, 30, 50)]

STRINGS = (
    Kind(
        "count_either", "text: str", "int",
        "Return how many characters of text are '{pair[0]}' or '{pair[1]}'.",
        ["return text.count('{pair[0]}') + text.count('{pair[1]}')"],
        {"pair": PAIRS}, ["text"],
    ),
    Kind(
        "every_nth", "text: str", "str",
        "Return the characters of text at the indices {start}, {start} + {n}, {start} + 2 * {n}, and so on.",
        ["return text[{start}::{n}]"],
        {"n": range(2, 7), "start": range(4)}, ["text"],
    ),
    Kind(
        "words_with", "text: str", "list[str]",
        "Return the words of text, which are separated by spaces, that begin with '{letter}' and have at least {n} "
        "letters, in their order.",
        ["return [word for word in text.split() if word.startswith('{letter}') and len(word) >= {n}]"],
        {"letter": "bcmprst", "n": range(4, 7)}, ["text"],
    ),
    Kind(
        "fill_up", "number: int", "str",
        "Return number as text, with '{sign}' before it as often as it takes to make at least {width} characters.",
        ["text = str(number)", "return '{sign}' * ({width} - len(text)) + text"],
        {"sign": "*-_.#", "width": range(3, 8)}, ["number"],
    ),
    Kind(
        "shift_letters", "text: str", "str",
        "Replace every letter of text by the one {n} places after it in the alphabet, going on from 'a' after 'z'. "
        "All letters are lowercase. Other characters stay as they are.",
        ["shifted = ''",
         "for c in text:",
         "    shifted += chr((ord(c) - ord('a') + {n}) % 26 + ord('a')) if c.isalpha() else c",
         "return shifted"],
        {"n": range(1, 26)}, ["text"],
    ),
    Kind(
        "join_long", "words: list[str]", "str",
        "Join the words by '{between}', leaving out the words of fewer than {n} letters.",
        ["return '{between}'.join(word for word in words if len(word) >= {n})"],
        {"between": ["-", "/", ", ", " + ", " and "], "n": range(3, 7)}, ["words"],
    ),
    Kind(
        "swap_letters", "text: str", "str",
        "Return text with every '{pair[0]}' turned into '{pair[1]}' and every '{pair[1]}' into '{pair[0]}'.",
        ["swap = {{'{pair[0]}': '{pair[1]}', '{pair[1]}': '{pair[0]}'}}",
         "return ''.join(swap.get(c, c) for c in text)"],
        {"pair": PAIRS}, ["text"],
    ),
)  # fmt: skip
LISTS = (
    Kind(
        "sum_multiples", "numbers: list[int]", "int",
        "Return the sum of those numbers that are greater than {least} and can be divided by {n} without a remainder.",
        ["return sum(x for x in numbers if x > {least} and x % {n} == 0)"],
        {"n": range(2, 7), "least": [0, 12, 24, 36]}, ["ints"],
    ),
    Kind(
        "count_between", "numbers: list[int]", "int",
        "Return how many of the numbers are at least {bounds[0]} and at most {bounds[1]}.",
        ["return sum({bounds[0]} <= x <= {bounds[1]} for x in numbers)"],
        {"bounds": BOUNDS}, ["ints"],
    ),
    Kind(
        "nth_largest", "numbers: list[int]", "int",
        "Return the {n}th largest of the different numbers in the list (equal numbers count once), or {otherwise} if "
        "it has fewer different numbers.",
        ["different = sorted(set(numbers), reverse=True)",
         "return different[{n} - 1] if len(different) >= {n} else {otherwise}"],
        {"n": range(4, 8), "otherwise": [0, -1, 100, -100, 999]}, ["ints"],
    ),
    Kind(
        "in_groups", "numbers: list[int]", "list[int]",
        "Take the numbers in groups of {n}, in their order; the last group may be smaller. Return for each group "
        "{what[0]}.",
        ["groups = [numbers[i : i + {n}] for i in range(0, len(numbers), {n})]",
         "return [{what[1]} for group in groups]"],
        {"n": range(2, 7),
         "what": [("its sum", "sum(group)"), ("its largest number", "max(group)"),
                  ("its smallest number", "min(group)"),
                  ("its largest number minus its smallest", "max(group) - min(group)")]},
        ["ints"],
    ),
    Kind(
        "keep_within", "numbers: list[int]", "list[int]",
        "Return the numbers in their order, with {bounds[0]} in place of each that is smaller than {bounds[0]} and "
        "{bounds[1]} in place of each that is larger than {bounds[1]}.",
        ["return [min(max(x, {bounds[0]}), {bounds[1]}) for x in numbers]"],
        {"bounds": BOUNDS}, ["ints"],
    ),
    Kind(
        "running_totals", "numbers: list[int]", "list[int]",
        "Return the total after each number. Whenever the total is more than {limit}, write it down and begin again "
        "at 0.",
        ["totals, total = [], 0",
         "for x in numbers:",
         "    total += x",
         "    totals.append(total)",
         "    if total > {limit}:",
         "        total = 0",
         "return totals"],
        {"limit": range(10, 60, 2)}, ["ints"],
    ),
    Kind(
        "rotate", "numbers: list[int]", "list[int]",
        "Move all numbers {n} places to the {side[0]}; what falls off at one end comes in at the other. An empty list "
        "stays empty.",
        ["if not numbers:",
         "    return []",
         "n = {side[1]}{n} % len(numbers)",
         "return numbers[n:] + numbers[:n]"],
        {"n": range(1, 11), "side": [("left", ""), ("right", "-")]}, ["ints"],
    ),
    Kind(
        "count_steps", "numbers: list[int]", "int",
        "Return how often two neighbouring numbers of the list differ by {how[0]} {n}.",
        ["return sum(abs(b - a) {how[1]} {n} for a, b in zip(numbers, numbers[1:]))"],
        {"how": [("more than", ">"), ("less than", "<"), ("exactly", "==")], "n": range(2, 10)}, ["steps"],
    ),
)  # fmt: skip
NUMBERS = (
    Kind(
        "sum_digits", "number: int", "int",
        "Return the sum of those decimal digits of number that are {how[0]} {n}. The number is not negative.",
        ["return sum(int(d) for d in str(number) if int(d) {how[1]} {n})"],
        {"how": [("greater than", ">"), ("less than", "<"), ("different from", "!=")], "n": range(2, 9)}, ["number"],
    ),
    Kind(
        "in_base", "number: int", "str",
        "Write the number, which is not negative, in base {base}, with zeros before it up to {width} digits.",
        ["digits = ''",
         "while number:",
         "    digits = str(number % {base}) + digits",
         "    number //= {base}",
         "return digits.rjust({width}, '0')"],
        {"base": range(2, 10), "width": [4, 6, 8]}, ["number"],
    ),
    Kind(
        "steps_down", "number: int", "int",
        "As long as number is more than {limit}, halve it if it is even, and take three times the number plus 1 if it "
        "is odd. Return how many steps that takes.",
        ["steps = 0",
         "while number > {limit}:",
         "    number = number // 2 if number % 2 == 0 else 3 * number + 1",
         "    steps += 1",
         "return steps"],
        {"limit": range(2, 27)}, ["small"],
    ),
)  # fmt: skip
DICTS = (
    Kind(
        "names_by_count", "stock: dict[str, int]", "list[str]",
        "Return the names in stock of which there are {how[0]} {n}, in alphabetical order.",
        ["return sorted(name for name, count in stock.items() if count {how[1]} {n})"],
        {"how": [("more than", ">"), ("fewer than", "<")], "n": range(4, 34, 3)}, ["stock"],
    ),
    Kind(
        "total_price", "prices: dict[str, int], items: list[str]", "int",
        "Return the sum of the prices of all items. An item without a price costs {other}. If the sum is more than "
        "{limit}, take 5 off it.",
        ["total = sum(prices.get(item, {other}) for item in items)",
         "return total - 5 if total > {limit} else total"],
        {"other": [1, 2, 4, 7], "limit": [20, 30, 40, 50, 60]}, ["stock", "items"],
    ),
)  # fmt: skip
KINDS = (*STRINGS, *LISTS, *NUMBERS, *DICTS)
