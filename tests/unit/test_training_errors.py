"""Memory or disk runs out during a training: what is said, and which checkpoints survive."""

import errno
import json
import os
import shutil
import sys

import pytest
import torch
import warm
from factories import a_training_row

from distil.models.weights import tiny_random
from distil.train import sft, sft_trainers
from distil.train.checkpoints import is_complete, last_checkpoint
from distil.train.errors import resource_errors_explained
from distil.train.memory import Plan
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))


def checkpoint(folder, step, state):
    (folder / f"checkpoint-{step}").mkdir()
    if state is not None:
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    return folder / f"checkpoint-{step}"


def test_a_checkpoint_whose_last_file_is_torn_does_not_count(tmp_path):
    good = checkpoint(tmp_path, 5, '{"global_step": 5}')
    torn, empty = checkpoint(tmp_path, 10, '{"global_st'), checkpoint(tmp_path, 15, None)
    assert [is_complete(c) for c in (good, torn, empty)] == [True, False, False]
    assert last_checkpoint(tmp_path) == str(good)
    assert not torn.exists() and not empty.exists(), "they would only take room"


@pytest.mark.parametrize(("error", "words"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "ran out of memory.*max_length.*qlora"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "ran out of memory"),
    (MemoryError(), "ran out of memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "no room to save.*goes on from checkpoint-5"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "no room to save"),
    (RuntimeError("PytorchStreamWriter failed writing file data/0"), "no room to save"),
])  # fmt: skip
def test_what_ended_is_named_with_the_way_out(tmp_path, error, words):
    checkpoint(tmp_path, 5, "{}")
    with pytest.raises(StageError, match=words), resource_errors_explained(tmp_path):
        raise error


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="a bug"), resource_errors_explained(tmp_path):
        raise ValueError("a bug")


MODEL = 364_560  # bytes of the tiny model, all of it in one file

TRAIN = """
import resource, sys
from pathlib import Path
from transformers import TrainerCallback
from distil.train import sft
from distil.workspace.rows import TrainingRow
from distil.workspace.errors import StageError
tiny, out, rate, limit = sys.argv[1:]
said = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2 " * 20}]
ROWS = [TrainingRow(instruction="1 + 1?", messages=said, output="2 " * 20, problem_id="p")] * 8

class Fill(TrainerCallback):  # from here on a file may have no more than so many bytes, as on a disk nearly full
    def on_save(self, args, state, control, **_):
        if int(limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))

class Say(TrainerCallback):
    def on_train_begin(self, args, state, control, **_):
        print("begins at", state.global_step)

try:
    sft.sft(ROWS, [], tiny, Path(out), train_tokens=4000, learning_rate=float(rate), max_length=256,
                 method="full", seed=0, batch_size=4, callbacks=[Fill(), Say()])
except StageError as error:
    print("StageError:", error)
"""


@pytest.fixture(scope="module")
def training(tiny, tmp_path_factory, parent):
    """A function that trains in a process of its own, a fork: the bounds of its files end with it."""
    program = tmp_path_factory.mktemp("program") / "train.py"
    program.write_text(TRAIN)

    def trained(out, rate, limit=0) -> str:
        command = [sys.executable, str(program), tiny, str(out), str(rate), str(limit)]
        done = warm.run(command, env=os.environ | parent, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return trained


@pytest.fixture(scope="module")
def finished(training, tmp_path_factory):
    """A finished student of another request."""
    out = tmp_path_factory.mktemp("students") / "finished"
    assert "StageError" not in training(out, 1e-3)
    assert json.loads((out / "sft.json").read_text())["request"]["learning_rate"] == 1e-3
    return out


@pytest.mark.parametrize("limit", [20_000, MODEL + 20_000])  # the weights fit not, or the optimizer's state does not
def test_a_full_disk_costs_no_checkpoint(training, finished, tmp_path, limit):
    """The disk fills after the first checkpoint."""
    out = tmp_path / "student"
    shutil.copytree(finished, out)
    said = training(out, 2e-3, limit)
    survivor = last_checkpoint(out / "checkpoints")
    assert survivor and "no room to save" in said and f"goes on from {survivor.rpartition('/')[2]}" in said
    again = training(out, 2e-3)
    step = int(survivor.rpartition("-")[2])
    assert f"begins at {step}" in again and step > 0
    assert json.loads((out / "sft.json").read_text())["request"]["learning_rate"] == 2e-3
    assert not (out / "checkpoints").exists()


def test_a_student_half_written_does_not_pass_for_the_finished_one(tiny, tmp_path, monkeypatch):
    rows = [a_training_row("1?", "1")]
    settings = {"train_tokens": 200, "max_length": 256, "method": "full", "seed": 0}
    first = sft.sft(rows, [], tiny, tmp_path, learning_rate=1e-3, **settings)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("distil.train.common.save_student", full)
        with pytest.raises(StageError, match="no room to save"):
            sft.sft(rows, [], tiny, tmp_path, learning_rate=2e-3, **settings)
    assert not (tmp_path / "sft.json").exists(), "what lies there may be half of one and half of the other"
    assert sft.sft(rows, [], tiny, tmp_path, learning_rate=1e-3, **settings).loss == first.loss


def test_rows_in_two_parts_make_the_same_steps(tiny, tmp_path, monkeypatch):
    """Rows of unlike length in one step: the loss is a mean over tokens, not over parts."""
    rows = [a_training_row(f"{i}?", "a b " * (1 + 7 * i), str(i)) for i in range(8)]
    settings = {"train_tokens": 3000, "learning_rate": 1e-3, "max_length": 256, "method": "full", "seed": 0}
    losses = []
    for micro_batch_size in (4, 2, 1):
        monkeypatch.setattr(sft_trainers, "plan", lambda *_, n=micro_batch_size, **__: Plan(n, False, {}))
        out = tmp_path / str(micro_batch_size)
        sft.sft(rows, [], tiny, out, batch_size=4, **settings)
        losses.append([row["loss"] for row in read_csv(out / "log.csv") if row["loss"] is not None])
    assert len(losses[0]) > 5
    for parts in losses[1:]:
        assert parts == pytest.approx(losses[0], rel=1e-3)
