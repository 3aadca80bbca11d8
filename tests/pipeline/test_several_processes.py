"""`accelerate launch -m distil.train.sft`: two processes learn what one learns, at the same rows a step.

One test has torch's launcher start them. Of the others each process is a fork, told its rank as that launcher tells it.
"""

import csv
import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import warm
from conftest import ROOT
from factories import a_chain, a_problem

from distil.chains.select import training_row
from distil.models.student import load
from distil.workspace.files import write_jsonl
from distil.workspace.rows import TrainingRow

SETTINGS = ["t", "fast", "--student", "tiny-random", "--train-tokens", "4000", "--learning-rate",
            "1e-2", "--max-length", "256", "--method"]  # fmt: skip
FINETUNE = ("-m", "distil.train.sft")
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")  # as accelerate does on GPUs


def rows(n: int) -> list[TrainingRow]:
    made = []
    for i in range(n):
        problem = a_problem(id=f"p{i}", task="sums", question=f"What is {i} + 1?")
        thought = f"{i} + 1 = {i + 1}\n\n" * (1 + i % 3)
        chain = a_chain(id=f"c{i}", thought=thought, solution=f"\\boxed{{{i + 1}}}")
        made.append(training_row(chain, problem))
    return made


def prepare(folder: Path) -> dict[str, str]:
    """The environment of a run in a folder; its rows are there."""
    judged = folder / "artifacts" / "t" / "03_judge"
    for part, some in (("train", rows(24)), ("valid", rows(4))):
        (judged / part).mkdir(parents=True, exist_ok=True)
        write_jsonl(judged / part / "fast.jsonl", some)
    (judged / "meta.json").write_text(json.dumps({"outputs": {"train/fast.jsonl": "", "valid/fast.jsonl": ""}}))
    return os.environ | {"DISTIL_HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def learned(folder: Path) -> tuple[list[float], dict]:
    """(losses step by step, result) of the training in a folder."""
    with open(folder / "artifacts/t/04_finetune/fast/log.csv", newline="") as handle:
        losses = [float(row["loss"]) for row in csv.DictReader(handle) if row["loss"]]
    return losses, json.loads((folder / "artifacts/t/04_finetune/fast/sft.json").read_text())["result"]


def launched(folder: Path) -> tuple[list[float], dict]:
    """The same of two processes that torch's launcher starts."""
    environment, command = prepare(folder), [sys.executable, *TWO, *FINETUNE, *SETTINGS, "lora"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return learned(folder)


def forked(folder: Path, *program: str, method: str, processes: int = 1) -> tuple[list[float], dict]:
    """The same of forks, one a process."""
    environment, command = prepare(folder), [sys.executable, *program, *SETTINGS, method]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if processes > 1 else {}
    with ThreadPoolExecutor(processes) as pool:
        ranks = [place | {"RANK": str(i), "LOCAL_RANK": str(i)} if place else {} for i in range(processes)]
        started = [pool.submit(warm.run, command, env=environment | rank, timeout=300) for rank in ranks]
    for done in (future.result() for future in started):
        assert done.returncode == 0, done.stdout + done.stderr
    return learned(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """By method: the folder of a training in one process, its losses and its result, trained once."""
    known = {}

    def trained(method: str) -> tuple:
        if method not in known:
            folder = tmp_path_factory.mktemp(method)
            known[method] = folder, *forked(folder, *FINETUNE, method=method)
        return known[method]

    return trained


def test_two_processes_learn_what_one_learns(one, forks, tmp_path):
    _, alone, result = one("lora")
    together, shared = launched(tmp_path / "two")
    assert (result["processes"], shared["processes"]) == (1, 2)
    assert len(alone) == len(together) >= 5 and alone[-1] < alone[0] - 0.1
    assert together[:-1] == pytest.approx(alone[:-1], rel=2e-2)  # the last step is incomplete, and filled up for two
    assert (shared["tokens"], shared["examples"]) == (result["tokens"], result["examples"])
    assert not (tmp_path / "two/artifacts/t/04_finetune/fast/checkpoints").exists()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_that_share_the_weights_learn_what_one_learns(one, forks, tmp_path, method):
    """With looks at validation rows and checkpoints between the steps, and a student that can be loaded after them."""
    folder, alone, result = one(method)
    program = str(ROOT / "tests" / "fsdp_on_cpu.py")
    together, shared = forked(tmp_path / "two", program, method=method, processes=2)
    assert shared["processes"] == 2 and shared["valid_loss"] == pytest.approx(result["valid_loss"], rel=2e-2)
    assert len(alone) == len(together) >= 5 and alone[-1] < alone[0] - 0.1
    assert together[:-1] == pytest.approx(alone[:-1], rel=2e-2)
    first, second = (load(str(home / "artifacts/t/04_finetune/fast")) for home in (folder, tmp_path / "two"))
    for (name, ours), (_, theirs) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert float((ours - theirs).detach().abs().max()) < 0.02, f"{name}: more than the last, incomplete step"


def test_processes_that_cannot_share_a_step_are_refused(forks, tmp_path):
    command = [sys.executable, *FINETUNE, *SETTINGS, "lora"]
    done = warm.run(command, env=prepare(tmp_path) | {"WORLD_SIZE": "3"}, timeout=100)
    assert done.returncode == 1 and "3 processes cannot share" in done.stderr and "Traceback" not in done.stderr
