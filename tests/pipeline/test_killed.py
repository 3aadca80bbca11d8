"""SIGKILL while a live teacher is answering: what it said is kept, nothing is asked twice, the chains are the same."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import warm
from conftest import ROOT
from loopback import serve

from distil.problems.sources import generate

COMMAND = [sys.executable, "-m", "distil", "run", "--profile", "smoke", "--run", "t", "--to", "01"]
AT_ONCE = 4


def prepare(folder: Path, endpoint: str) -> tuple[list[str], dict]:
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    environment = os.environ | {
        "DISTIL_HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "DISTIL_CONCURRENCY": str(AT_ONCE),
    }
    return [*COMMAND, "--set", f"endpoint={endpoint}"], environment


def test_killed_while_collecting(tmp_path, forks):
    answers = {p.question: p.answer for p in generate("starter", 48, 8, 0)}

    def answer(body: dict) -> str:
        time.sleep(0.05)
        content = body["messages"][-1]["content"]
        found = next(a for q, a in answers.items() if f"{q}\n" in content)
        return f"let me see\n\n\\boxed{{{found}}}"

    with serve(answer) as (endpoint, seen):
        command, environment = prepare(tmp_path / "killed", endpoint)
        victim = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.time() + 120
        while len(seen) < 60 and time.time() < deadline:
            time.sleep(0.01)
        os.killpg(victim.pid, signal.SIGKILL)
        victim.wait()
        assert 60 <= len(seen) < 192, "it was killed in the middle"
        again = warm.run(command, env=environment, timeout=300)
        assert again.returncode == 0, again.stdout + again.stderr
        asked = Counter(str(body) for body in seen)
        assert len(asked) == 192
        assert len(seen) <= 192 + AT_ONCE, "only what was under way at the kill is asked again"

        command, environment = prepare(tmp_path / "undisturbed", endpoint)
        assert warm.run(command, env=environment, timeout=300).returncode == 0
    chains = [
        (tmp_path / name / "artifacts/t/01_collect/chains.jsonl").read_text() for name in ("killed", "undisturbed")
    ]
    assert chains[0] == chains[1]
