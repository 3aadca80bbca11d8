import pytest

from distil.verify.equations import false_equation


@pytest.mark.parametrize(("text", "false"), [
    ("57 + 68 = 115, so x = 115", "57 + 68 = 115"),
    ("x = 4 + 5 = 10", "4 + 5 = 10"),
    ("Then 3 + 4 = 8 apples", "3 + 4 = 8"),
    (r"3 \times 4 = 13", "3 * 4 = 13"),
    ("first 2 + 2 = 4\n\nthen 4 = 4 = 5", "4 = 5"),
    ("14 + 43 = (4 + 4) + (3 + 3)", "14 + 43 = (4 + 4) + (3 + 3)"),
    ("1,200 + 300 = 1,501", "1200 + 300 = 1501"),
    ("10 / 3 = 3.34", "10 / 3 = 3.34"),
    ("7 / 2 = 3", "7 / 2 = 3"),
    ("Sum: -5 + 3 = 2", None),  # the minus might belong to a word before it: passed over
])  # fmt: skip
def test_a_false_equation_is_found(text, false):
    assert false_equation(text) == false


@pytest.mark.parametrize("text", [
    "57 + 68 = 125", "is 15 - 43 = -28", "15 - 43 - 75 = -103", "-3 + (-22) = -25", "180 - (30 + 40) = 110",
    "107.0° + 63.0° = 170", "10 / 3 = 3.33", "1. 1 * 5 = 5", "12 * 3 = 36.", "5 + 05 = 10", "2 × 3 ÷ 6 = 1",
    "8 + 6 = 14. Write 4", "1 / 0 = 3", "",
])  # fmt: skip
def test_true_ones_and_unreadable_ones_pass(text):
    assert false_equation(text) is None


@pytest.mark.parametrize("text", [
    "5*z - 27 = 33", "5*z = 33 + 28", "2x = 5", "2^3 = 9", "6 * 7 = 43y", "7 / 2 = 3 remainder 1", "a1 + 2 = 4",
    "50% * 4 = 3", "7 / 2 = 3 R 1", "10_2 = 2", "2 = 3^1", "f(3) = 9",
])  # fmt: skip
def test_what_is_not_plain_numbers_is_passed_over(text):
    assert false_equation(text) is None
