"""The run that the repository keeps: every number of it follows from its answers, which are judged once more."""

import pytest
from conftest import ROOT

from distil.cli import main
from distil.sandbox import confine


@pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
def test_the_kept_run_holds(project, capsys):
    """Its 20,000 answers are judged once more: a verifier that judges otherwise than it did is found here, too."""
    code = main(["verify-reference", str(ROOT / "artifacts" / "reference")])
    said = capsys.readouterr().out
    assert code == 0 and "every table, figure and claim follows" in said, said
