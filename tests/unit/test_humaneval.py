"""HumanEval: the data, and the two steps of benchmarks/harness.py against a server that is a script."""

import json
import sys

import pytest
from conftest import ROOT
from loopback import Refusal, serve

from distil.problems import humaneval
from distil.sandbox import confine
from distil.verify.code import result_of
from distil.verify.registry import map_problems

needs_sandbox = pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
HEAD = 'from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    """ Sum. """\n'
RECORDS = [
    {
        "task_id": f"HumanEval/{i}",
        "prompt": HEAD,
        "entry_point": "total",
        "canonical_solution": "    return sum(numbers)\n",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n",
    }
    for i in range(3)
]
ANSWERS = [
    "def total(numbers: List[int]) -> int:\n    return sum(numbers)",
    f"{HEAD}    return sum(numbers)\n```\nIt adds.\n```python\nprint(total([1]))",
    f"{HEAD}    return 3 if len(numbers) > 2 else 0",
]


@needs_sandbox
def test_ask_and_check(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import harness

    monkeypatch.setattr(harness, "load", lambda: [humaneval.problem_of(record) for record in RECORDS])
    waiting, results = list(ANSWERS), tmp_path / "results.json"
    refused = []

    def answer(body):
        assert body["messages"][-1] == {"role": "assistant", "content": "```python\n"} and body["temperature"] == 0
        assert (
            body["continue_final_message"] and body["stop"] == ["\n```"] and "total" in body["messages"][1]["content"]
        )
        if not refused:
            refused.append(True)
            raise Refusal(500, "starting")
        return waiting.pop(0)

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["harness.py", *map(str, words)])
        harness.main()

    for i, record in enumerate(RECORDS):  # three different requests
        record["prompt"] = HEAD.replace("Sum.", f"Sum {i}.")
    monkeypatch.setenv("DISTIL_CONCURRENCY", "1")
    with serve(answer) as (endpoint, seen):
        for _ in range(2):  # the second time all is there already
            command("ask", "--endpoint", endpoint, "--model", "tiny", tmp_path / "a.json")
    assert len(seen) == 4 and not waiting
    asked = json.loads((tmp_path / "a.json").read_text())
    assert asked["seconds"] is None and [row["id"] for row in asked["rows"]] == [r["task_id"] for r in RECORDS]
    command("check", tmp_path / "a.json", "--results", results)
    command("check", tmp_path / "a.json", "--results", results)
    (row,) = json.loads(results.read_text())["rows"]
    assert (row["model"], row["n"], row["ours"], row["published"], row["begun"]) == ("tiny", 3, 66.7, None, True)
    assert row["ci"][0] < 66.7 < row["ci"][1] and row["mechanism"] == confine.mechanism()
    verdicts = [json.loads(line) for line in (tmp_path / "a.verdicts.jsonl").read_text().splitlines()]
    assert [v["passed"] for v in verdicts] == [True, True, False] and verdicts[2]["reason"] == "wrong"
    assert "66.7" in capsys.readouterr().out


@pytest.mark.network
@needs_sandbox
def test_every_solution_passes_and_no_empty_body_does():
    problems = humaneval.load()
    assert [p.id for p in problems] == [f"HumanEval/{i}" for i in range(164)]
    for body, passes in ((None, True), ("    pass\n", False)):
        texts = [f"```python\n{p.prompt}{body or p.solution}```" for p in problems]
        assert {verdict.passed for verdict in map_problems(result_of, problems, texts)} == {passes}
