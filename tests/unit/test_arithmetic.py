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
    ("3 x 4 = 13", "3 * 4 = 13"),
    ("(3 + 4) x 2 = 15", "(3 + 4) * 2 = 15"),
    ("$5 + $3 = $9", "5 + 3 = 9"),
    ("2 + 3 = 5 + 1 = 6", "2 + 3 = 5 + 1"),
    ("7 // 2 = 4", "7 // 2 = 4"),
    ("10 – 3 = 8", "10 - 3 = 8"),
    ("f(2) = 2 + 3 = 6", "2 + 3 = 6"),
    ("4. Subtract 47 from 56: 56 - 47 = 19", "56 - 47 = 19"),
    ("977 * 800 = 796800 and 977 * 9 = 8793", "977 * 800 = 796800"),
    ("31 + 8 = 49 days", "31 + 8 = 49"),
    ("5 + 3 = 9, since 2^3 = 8", "5 + 3 = 9"),
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


@pytest.mark.parametrize("text", [
    "3 x 4 = 12", "3x4 = 12", r"15 \mod 7 = 1", "5% of 200 = 10", "12 % of 50 = 6", "3 × 4 = 12", "3 · 4 = 12",
    "10 ÷ 4 = 2 R 2", "10 ÷ 4 = 2……2", "10 ÷ 4 = 2 余 2", "7 / 2 = 3 with 1 left over", "7 // 2 = 3", "2^10 = 1024",
    "2 ^ 10 = 1024", "2**3 = 8", "17 mod 5 = 2", "17 % 5 = 2", "-7 mod 3 = 2", "10 + 5 = 3 (mod 12)", "0.1 + 0.2 = 0.3",
    "10/3 ≈ 3.33", "1/3 + 1/3 = 0.66...", "3 / 2 = 1,5", "3 km + 4 km = 7 km", "$5 + $3 = $8", "$1 = 100 cents",
    "30 + 30 = 1 hour", "6 + 6 = 1 dozen", "10 + 4 = 2 PM", "x = 3 + 4 = 7", "f(2) = 2 + 3 = 5", "f (2) = 5",
    "1010_2 = 10", "1010 in base 2 = 10", "In binary, 101 + 1 = 110", "10:30 + 2 = 12:30", "3:45 = 225 minutes",
    "5/6/2024 + 3 = 8/6/2024", "the sum of 3 and 4 = 7", "double 4 = 8", "twice 3 + 4 = 10", "average of 2, 4, 6 = 4",
    "6 = 3!", "9 = 3 squared", "12 = 3 times 4", "Step 2 - 3 + 4 = 7", "10 – 3 + 4 = 11", "3 + 4 = 8 is wrong",
    "sqrt 16 = 4", "C(5, 2) = 10", "5 choose 2 = 10", "log 100 = 2", "0x10 = 16", "3 + 4 <= 8", "3 + 4 != 8",
    "subtract 3 from 10 = 7", "ratio 3:4 = 6:8", "January 31 - January 1 = 30 days",
])  # fmt: skip
def test_no_right_step_is_called_false(text):
    assert false_equation(text) is None
