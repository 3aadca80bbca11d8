"""Memory or disk runs out during a training: what is said, and which checkpoints survive."""

import errno
import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
import warm
from factories import a_problem, a_training_row
from transformers import TrainerCallback

from distil.models.weights import tiny_random
from distil.train import attention, common, gkd, grpo, preference, reward_model, rewards, sft, sft_trainers
from distil.train.checkpoints import SEAL, damage, last_checkpoint, seal
from distil.train.errors import resource_errors_explained
from distil.train.memory import Plan
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv
from distil.workspace.rows import Pair


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))


def checkpoint(folder, step):
    """A whole checkpoint, as far as files go."""
    made = folder / f"checkpoint-{step}"
    made.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json"):
        (made / name).write_bytes(b"0" * 99)
    seal(made)
    return made


@pytest.mark.parametrize("damaged", ["model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", SEAL])
@pytest.mark.parametrize("how", ["cut", "empty", "missing"])
def test_a_checkpoint_with_a_torn_file_does_not_count(tmp_path, damaged, how, capsys):
    good, torn = checkpoint(tmp_path, 5), checkpoint(tmp_path, 10)
    (tmp_path / "checkpoint-15").mkdir()  # the process was killed as it began to save
    whole = (torn / damaged).read_bytes()
    (torn / damaged).unlink()
    if how != "missing":
        (torn / damaged).write_bytes(whole[: len(whole) // 2] if how == "cut" else b"")
    assert damage(good) is None and damage(torn)
    assert last_checkpoint(tmp_path) == str(good)
    assert not torn.exists() and not (tmp_path / "checkpoint-15").exists(), "they would only take room"
    said = capsys.readouterr().out
    assert "checkpoint-15 (it was not written to its end)" in said and "goes on from checkpoint-5" in said
    assert said.count("\n") == 1 and (damaged == SEAL or f"{damaged} has " in said)
    (good / "optimizer.pt").write_bytes(b"")
    assert last_checkpoint(tmp_path) is None and "begins anew" in capsys.readouterr().out


class Kill(TrainerCallback):
    def on_save(self, args, state, control, **_):
        raise KeyboardInterrupt


def killed_trainings(tiny, teacher, rows, out):
    """{trainer: a function that trains with it, and goes on if it was killed}."""
    settings = {"train_tokens": 1500, "learning_rate": 1e-3, "max_length": 256, "seed": 0}
    pair = Pair(prompt=rows[0].messages[:1], chosen="2", rejected="3", gap="small", beta=0.1, problem_id="p",
                split="train")  # fmt: skip
    problem = a_problem(question="What is 4 + 5?", answer="9")
    return {
        "full": lambda: sft.sft(rows, rows[:1], tiny, out, method="full", **settings),
        "lora": lambda: sft.sft(rows, rows[:1], tiny, out, method="lora", **settings),
        "packed": lambda: sft.sft(rows, rows[:1], tiny, out, method="full", **settings),
        "dpo": lambda: preference.cogpo([pair] * 32, tiny, out, learning_rate=1e-3, seed=0),
        "gkd": lambda: gkd.distil_from_logits(rows, tiny, teacher, out, **settings),
        "grpo": lambda: grpo.grpo([problem] * 2, tiny, str(out.parent / "rm"), out, line=(3.0, 0.0), steps=4, group=2,
                                  learning_rate=1e-4, gated=True, seed=0, max_completion=4,
                                  weights=rewards.parse_weights("full")[0]),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["full", "lora", "packed", "dpo", "gkd", "grpo"])
def test_no_torn_file_ends_a_training_in_the_words_of_torch(tiny, tmp_path, monkeypatch, capsys, trainer):
    """Killed after its second checkpoint; then each file of it is torn in turn, and the training begins anew."""
    out = tmp_path / "out"
    (tmp_path / "rm").mkdir()
    teacher = shutil.copytree(tiny, tmp_path / "teacher")
    monkeypatch.setattr(grpo, "reward_terms", lambda text, *_, **__: dict.fromkeys(rewards.TERMS, len(text) % 7))
    monkeypatch.setattr(grpo, "RewardModel", lambda _: SimpleNamespace(grades=lambda a, t: [(3, 3, 1)] * len(t)))
    if trainer == "packed":
        monkeypatch.setattr(attention, "missing", lambda: None)
    train = killed_trainings(tiny, str(teacher), [a_training_row(f"{i}?", f"{i} so", str(i)) for i in range(8)], out)[
        trainer
    ]
    with monkeypatch.context() as patched:
        patched.setattr(common, "throughput_callback", Kill)
        with pytest.raises(KeyboardInterrupt):
            train()
    (kept,) = (out / "checkpoints").glob("checkpoint-*")
    spare = shutil.copytree(kept, tmp_path / "spare")
    names = {str(path.relative_to(spare)) for path in spare.rglob("*") if path.is_file()}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", SEAL} < names
    for name in sorted(names):
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(spare, kept)
        whole = (kept / name).read_bytes()
        (kept / name).write_bytes(whole[: len(whole) // 2])
        assert last_checkpoint(out / "checkpoints") is None, name
    shutil.copytree(spare, kept)
    (kept / "optimizer.pt").write_bytes(b"")
    capsys.readouterr()
    assert train().seconds >= 0
    said = capsys.readouterr().out
    assert f"removed as damaged: {kept.name} (optimizer.pt has 0 of " in said and "the training begins anew" in said
    assert not (out / "checkpoints").exists()


def test_an_older_checkpoint_is_kept_until_the_newer_is_whole(tiny, tmp_path, monkeypatch):
    there = []

    def watched(checkpoint):
        there.append(sorted(path.name for path in checkpoint.parent.glob("checkpoint-*")))
        seal(checkpoint)

    monkeypatch.setattr("distil.train.checkpoints.seal", watched)
    rows = [a_training_row(f"{i}?", str(i), str(i)) for i in range(4)]
    settings = {"epochs": 4, "learning_rate": 1e-3, "max_length": 256, "method": "lora", "seed": 0, "batch_size": 4}
    sft.sft(rows, [], tiny, tmp_path, **settings)
    assert there == [["checkpoint-1"], ["checkpoint-1", "checkpoint-2"], ["checkpoint-2", "checkpoint-3"],
                     ["checkpoint-3", "checkpoint-4"]]  # fmt: skip


def test_a_full_disk_is_said_of_the_reward_model_too(tiny, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    rows = [
        reward_model.GradedChain(problem_id=str(i), asked=[{"role": "user", "content": "?"}], text=f"{i}", rv=i % 9,
                                 cd=i % 7, correct=i % 2, held_out=i % 2 == 0) for i in range(40)
    ]  # fmt: skip
    with pytest.raises(StageError, match="no room to save in"):
        reward_model.fit_reward_model(rows, tiny, tmp_path / "rm")


@pytest.mark.parametrize(("error", "words"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "ran out of memory.*max_length.*qlora"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "ran out of memory"),
    (MemoryError(), "ran out of memory"),
    (OSError(errno.ENOSPC, "No space left on device"), "no room to save.*goes on from checkpoint-5"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "no room to save"),
    (RuntimeError("PytorchStreamWriter failed writing file data/0"), "no room to save"),
])  # fmt: skip
def test_what_ended_is_named_with_the_way_out(tmp_path, error, words):
    checkpoint(tmp_path, 5)
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
