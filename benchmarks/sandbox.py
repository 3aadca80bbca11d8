"""Are the hostile programs of tests/hostile_programs contained, and how many verdicts a second are to be had?

python benchmarks/sandbox.py        (two minutes)

Writes results/sandbox.json: for each mechanism that works here, how many programs there are, how many were contained
(did not pass), what harm was found, and the time of a verdict on each of HumanEval's own 164 solutions.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from distil.problems.humaneval import BEGUN, load
from distil.sandbox.confine import works
from distil.verify.code import result_of
from distil.verify.registry import map_problems
from distil.workspace.environment import environment
from distil.workspace.files import write_text

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "tests"))


def measure(how: str) -> dict:
    """One row of the results."""
    from hostile import attack

    os.environ["DISTIL_SANDBOX"] = how
    with tempfile.TemporaryDirectory() as folder:
        verdicts, harm = attack(Path(folder))
    problems = load()
    right = [f"{BEGUN}{problem.prompt}{problem.solution}\n```" for problem in problems]
    empty = [f"{BEGUN}{problem.prompt}    return None\n```" for problem in problems]
    clock = time.perf_counter()
    passed = map_problems(result_of, problems, right)
    seconds = time.perf_counter() - clock
    return {
        "mechanism": how,
        "programs": len(verdicts),
        "contained": sum(not verdict.passed for verdict in verdicts.values()),
        "harm": harm,
        "humaneval_solutions": len(problems),
        "humaneval_solutions_passed": sum(verdict.passed for verdict in passed),
        "humaneval_empty_passed": sum(verdict.passed for verdict in map_problems(result_of, problems, empty)),
        "verdicts_per_s": round(len(problems) / seconds, 1),
        "reasons": {name: verdict.reason for name, verdict in verdicts.items()},
    }


def main() -> None:
    facts = environment()
    rows = [measure(how) for how in ("bwrap", "sandlock") if works(how)]
    for row in rows:
        print({key: value for key, value in row.items() if key != "reasons"})
    result = {"cores": facts["cores"], "commit": facts["commit"], "rows": rows}
    write_text(HERE / "results" / "sandbox.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
