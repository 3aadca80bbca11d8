"""The suite of the reference run, answers and programs together, through the stages that ask a teacher."""

import json

import pytest
from loopback import serve

from distil.cli import main
from distil.problems.sources import generate
from distil.publish import facts
from distil.sandbox import confine
from distil.workspace.files import read_jsonl
from distil.workspace.rows import Chain
from distil.workspace.stage import run_folder

N_TRAIN, N_TEST = 48, 12
SETTINGS = {"problems": "reference", "n_train": N_TRAIN, "n_test": N_TEST, "teacher": "t", "student": "tiny-random"}
SETTINGS |= {"turns": True, "surprise": True}

SHORT = "It is asked for.\n\nIt is 1 at first."


def boxed(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


@pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
def test_answers_and_programs_are_collected_rewritten_and_judged(project, forks, capsys):
    rows = generate("reference", N_TRAIN, N_TEST, 0)

    def teacher(body: dict) -> str:
        first, last = (body["messages"][place]["content"] for place in (0, -1))
        if first.startswith("You judge"):
            return "Verdict: medium"
        if first.startswith("You rate"):
            return "Verbosity: 3, Difficulty: 4, Correct: 1"
        asked = last if body["messages"][0]["role"] == "system" else first  # a later turn of a slow chain
        problem = next(row for row in rows if row.question in asked)
        code = problem.verifier == "code"
        if first.startswith("You make test material"):
            return f"{SHORT.replace('1', '0')}\n\n{boxed(problem.answer[::-1] + '0')}"
        end = f"```python\n{problem.prompt}{problem.solution}```" if code else boxed(problem.answer)
        if first.startswith("You are a helpful assistant"):  # long2short; of a program its thought only
            return SHORT if code else f"{SHORT}\n\n{end}"
        return f"{SHORT}\n\nIt is turned over once more, and looked at from the other side.\n\n{end}"

    with serve(teacher) as (endpoint, _):
        settings = [f"--set={name}={value}" for name, value in (SETTINGS | {"endpoint": endpoint}).items()]
        assert main(["run", "--run", "r", "--to", "03", *settings]) == 0, capsys.readouterr().out
    folder = run_folder("r")
    chains = read_jsonl(folder / "01_collect/chains.jsonl", Chain)
    assert len(chains) == 4 * len(
        [r for r in read_jsonl(folder / "01_collect/problems.jsonl") if r["split"] == "train"]
    )
    assert all(chain.correct for chain in chains)
    of_task = {row.id: row.task for row in rows}
    assert all(c.turns == (c.style == "slow" and of_task[c.problem_id] != "programs") for c in chains)
    assert {c.full_text.count("turned over") for c in chains} == {1, 3}
    short = read_jsonl(folder / "02_rewrite/chains.jsonl")
    assert {of_task[c["problem_id"]] for c in short} == set(of_task.values()) and len(short) == len(chains) // 2
    assert "programs" not in {of_task[c["problem_id"]] for c in read_jsonl(folder / "02_rewrite/corrupted.jsonl")}
    first = {c.problem_id: c.id for c in reversed(chains) if c.style == "slow"}
    fewest = {}
    for c in [c.to_dict() for c in chains if c.style == "fast"] + short:
        if c["n_tokens"] < fewest.get(c["problem_id"], c)["n_tokens"] or c["problem_id"] not in fewest:
            fewest[c["problem_id"]] = c
    figures = json.loads((folder / "03_judge/meta.json").read_text())["figures"]
    for name in facts.SETS:
        rows = {part: read_jsonl(folder / f"03_judge/{part}/{name}.jsonl") for part in ("train", "valid")}
        taught = {row["problem_id"]: row["chain_id"] for part in rows.values() for row in part}
        assert len(rows["train"]) + len(rows["valid"]) == len(taught) == len(first), f"a chain a problem in {name}"
        assert figures[name] == len(rows["train"])
        expected = {"slow": first, "shortest": {problem: c["id"] for problem, c in fewest.items()}}
        assert taught == expected.get(name, taught)


@pytest.mark.skipif(confine.mechanism() is None, reason="no sandbox works here")
def test_the_recording_of_the_h100_still_answers_what_01_asks(project, forks, capsys):
    """A prompt, a problem or a turn that changes would leave its answers without a question."""
    recorded = "endpoint=recorded:qwen2.5-coder-1.5b-reference"
    command = ["run", "--profile", "gpu80", "--run", "r", "--to", "01", "--set", recorded]
    assert main(command) == 0, capsys.readouterr().out
    chains = read_jsonl(run_folder("r") / "01_collect/chains.jsonl")
    problems = read_jsonl(run_folder("r") / "01_collect/problems.jsonl")
    assert len(chains) == 4 * sum(problem["split"] == "train" for problem in problems)
    right = {style: [c["correct"] for c in chains if c["style"] == style] for style in ("fast", "slow")}
    assert all(0.35 < sum(marks) / len(marks) < 0.55 for marks in right.values()), "they answer other problems"
