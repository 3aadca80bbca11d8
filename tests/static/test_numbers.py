"""Results in the README and the notebooks stand only where a test made the words around them of a named file."""

import inspect
import json
import random
import re

import pytest
import test_readme
import test_reference
from conftest import ROOT
from readme import NOTEBOOKS, README, RESULT, Remembered, unbacked

from distil.evaluate.suites import TEMPERATURE
from distil.publish.facts import LEVEL
from distil.train.packing import CHUNK

SECTIONS = re.split(r"(?= ### | ## )", README)


@pytest.fixture(scope="module", autouse=True)
def found():
    """Every test of a text is run, so that it remembers what all of them found in it."""
    for module in (test_readme, test_reference):
        for name, test in list(vars(module).items()):
            if name.startswith("test_") and not inspect.signature(test).parameters:
                test()
    torch = json.loads((ROOT / "benchmarks/results/sft.json").read_text())["versions"]["torch"]
    for words in (  # what is no result
        f"{LEVEL} CI", f"{LEVEL} intervals, paired", f"intervals are at {LEVEL}", "Python 3.11 or 3.12", "Linux 6.12",
        f"otherwise idle, torch {torch[:4]}", f"learned tokens only, {CHUNK:,} at a time",
        f"`temperature` ({TEMPERATURE} where several are sampled)",
    ):  # fmt: skip
        assert words in README, words


def test_every_result_in_the_readme_is_checked_against_a_file():
    assert len(RESULT.findall(README)) > 400
    assert unbacked(README, README.backed) == []


@pytest.mark.parametrize("stage", ["03_judge", "05_prefer", "06_reinforce"])
def test_every_gain_in_a_notebook_is_checked_against_a_file(stage):
    text = NOTEBOOKS[stage]
    results = [number for number in unbacked(text, text.backed) if number[0] in "+-" or number.endswith("%")]
    assert set(results) <= {LEVEL}


@pytest.mark.parametrize("section", [s for s in SECTIONS if "%" in s], ids=lambda s: s.strip("# ")[:30])
def test_hardly_a_random_percentage_in_a_section_passes(section):
    assert unbacked(section, README.backed) == []
    rng, tries, passed = random.Random(0), 0, 0
    places = [match for match in RESULT.finditer(section) if match[0].endswith("%") and match[0] != LEVEL]
    for match in places * (200 // max(1, len(places)) + 1):
        form = "{:.1%}" if "." in match[0] else "{:.0%}"
        other = section[: match.start()] + form.format(rng.random()) + section[match.end() :]
        if other != section:
            tries, passed = tries + 1, passed + (unbacked(other, README.backed) == [])
    assert passed <= 0.02 * tries


def test_words_that_nobody_looked_for_back_nothing():
    text = Remembered("It is 12.5% of 1,192, by Qwen2.5-0.5B: +3.4 (`distil --share 0.5`).")
    assert unbacked(text, text.backed) == ["12.5%", "1,192", "+3.4"]
    assert "is 12.5% of" in text and "13% of" not in text
    assert unbacked(text, text.backed) == ["1,192", "+3.4"]
