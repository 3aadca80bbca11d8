"""What the README says of the kept run is what its files say; and a README that says otherwise is found out."""

import json
import re

import pytest
from conftest import ROOT

from distil import claim

KEPT = ROOT / "artifacts" / "reference"


def unsaid(folder, readme: str) -> list[str]:
    """What a README has to say of a kept run, word for word but for line breaks, and does not."""
    shown = json.loads((folder / "claim.json").read_text())
    wanted = [
        (folder / "results.md").read_text().strip(),
        "](artifacts/reference/accuracy_tokens.png)",
        *claim.sentences(shown),
        *shown["commits"],
    ]
    flat = re.sub(r"\s+", " ", readme)
    return [text for text in wanted if re.sub(r"\s+", " ", text) not in flat]


def test_the_readme_says_what_the_kept_run_says():
    for claimed in KEPT.glob("claim.json"):
        assert unsaid(claimed.parent, (ROOT / "README.md").read_text()) == []


GAP = {"tokens_gain": 6.25, "seconds_gain": 8.0, "difference": 0.012, "ci_low": -0.004, "ci_high": 0.0281}
SHOWN = {
    "turns": True,
    "commits": ["0123456789ab"],
    "against": {
        "slow": {"fast": GAP},
        "fast": {"preferred": GAP | {"difference": -0.4}, "base": GAP},
        "teacher": {"fast": GAP},
    },
    "recovered": {"fast": {"as the students": 0.905}},
    "minutes": 51.3,
    "answered_before": 11498,
}
README = """
| student | accuracy |
|---|---|
| fast | 50.0% |

![Accuracy against tokens](artifacts/reference/accuracy_tokens.png)

Commit 0123456789ab; fast against slow, whose chains were made in turns of solving, checking and concluding: 6.2 times
fewer tokens and 8.0 times fewer seconds an answer, accuracy +1.2 points (-0.4 to +2.8). preferred minus fast: -40.0
points (-0.4 to +2.8); fast minus teacher: +1.2 points (-0.4 to +2.8); fast has 90% of the teacher's accuracy; the whole
took 51 minutes, beside the asking for 11,498 answers that 01 had from before.
"""


def test_a_run_that_asked_for_its_answers_itself_says_no_more_than_its_minutes():
    assert claim.sentences(SHOWN | {"answered_before": 0})[-1] == "the whole took 51 minutes"


@pytest.mark.parametrize(("said", "instead"), [
    ("in turns of", "at length by"),
    ("50.0%", "51.0%"), ("accuracy_tokens.png", "tokens.png"), ("6.2 times", "6.3 times"), ("8.0 times", "9.0 times"),
    ("+2.8", "+1.8"), ("-40.0", "-30.0"), ("90% of", "95% of"), ("took 51", "took 15"),
    ("11,498", "1,498"), ("0123456789ab", "0123456789"),
])  # fmt: skip
def test_a_readme_that_says_otherwise_is_found_out(tmp_path, said, instead):
    (tmp_path / "claim.json").write_text(json.dumps(SHOWN))
    (tmp_path / "results.md").write_text("| student | accuracy |\n|---|---|\n| fast | 50.0% |\n")
    assert unsaid(tmp_path, README) == []
    assert len(unsaid(tmp_path, README.replace(said, instead, 1))) == 1
