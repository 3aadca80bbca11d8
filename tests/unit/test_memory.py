"""The memory estimate, by hand on a tiny model and against a training; and memory that is given back."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from distil.train import memory
from distil.train.model import LORA
from distil.workspace.errors import StageError

CPU = memory.Machine("cpu", "trl")


def test_parts_by_hand():
    linear = [(64, 64), (32, 64), (32, 64), (64, 64), (128, 64), (128, 64), (64, 128)]  # of a layer: (out, in)
    layers, words, hidden = 2, 259, 64
    weights = layers * sum(a * b for a, b in linear) + words * hidden + (2 * layers + 1) * hidden
    adapter = layers * LORA["r"] * sum(a + b for a, b in linear)
    parts = memory.estimate("tiny-random", "lora", micro_batch_size=4000, max_length=1000, machine=CPU)
    assert parts["weights"] == pytest.approx((4 * weights + 4 * adapter) / memory.GIB, abs=0.006)
    assert parts["activations"] == pytest.approx(4e6 * layers * (16 * hidden + 8 * 128) / memory.GIB, abs=0.006)
    assert parts["logits"] == pytest.approx(4e6 * words * 10 / memory.GIB, abs=0.006)
    assert parts["total"] == pytest.approx(sum(v for k, v in parts.items() if k != "total"), abs=0.03)


def test_a_small_gpu_takes_a_step_in_parts():
    def gpu(gib):
        return memory.Machine("cuda", "unsloth", gib / memory.MARGIN + 0.01)

    def planned(rows, machine):
        return memory.plan("tiny-random", "lora", batch_size=rows, longest=row, machine=machine)

    row = 100_000  # tokens
    sizes = {
        n: memory.estimate("tiny-random", "lora", micro_batch_size=n, max_length=row, machine=gpu(1))["total"]
        for n in (1, 2, 4, 8, 16)
    }
    assert sorted(set(sizes.values())) == list(sizes.values())
    assert [planned(16, gpu(sizes[n])).micro_batch_size for n in sizes] == list(sizes)
    assert planned(6, gpu(sizes[4])).micro_batch_size == 3, "parts are alike"
    assert planned(16, CPU).micro_batch_size == 16, "a CPU takes all"
    with pytest.raises(StageError, match="100000 tokens takes about .* take shorter rows .*, or choose method='qlora'"):
        planned(16, gpu(sizes[1] / 2))


def test_checkpointing_comes_in_where_no_row_fits_without_it():
    """On several GPUs, which share the weights."""
    several = memory.Machine("cuda", "trl", 80, shards=8)
    one_row = {"micro_batch_size": 1, "max_length": 10**6, "machine": several}
    plain, saving = (
        memory.estimate("tiny-random", "lora", **one_row, gradient_checkpointing=way) for way in (False, True)
    )
    assert saving["activations"] < plain["activations"] and saving["logits"] == plain["logits"]
    for room, expected in ((plain, False), (saving, True)):
        gpu = memory.Machine("cuda", "trl", room["total"] / memory.MARGIN + 0.01, shards=8)
        found = memory.plan("tiny-random", "lora", batch_size=4, longest=10**6, machine=gpu)
        assert (found.micro_batch_size, found.gradient_checkpointing, found.parts) == (1, expected, room)


def test_a_gpu_has_what_others_leave_of_it(monkeypatch):
    sizes = SimpleNamespace(total_memory=80 * memory.GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: sizes)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (50 * memory.GIB, 80 * memory.GIB))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 1.0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 5 * memory.GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 2 * memory.GIB)
    assert memory.this_machine().gib == 53, "a server has 25 of 80, and 3 of our own 5 can be used again"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert memory.this_machine().gib == 80, "processes cut a step up alike"


def test_sharded_weights_are_a_part_each():
    whole, half = (
        memory.estimate(
            "tiny-random", "full", micro_batch_size=1, max_length=10, machine=memory.Machine("cuda", "trl", 80, n)
        )
        for n in (1, 2)
    )
    assert half["weights"] == pytest.approx(whole["weights"] / 2, abs=0.01)


def test_a_step_fits_beside_a_teacher(monkeypatch):
    """White-box distillation keeps both models' scores of every word, in several copies."""
    from distil.train import gkd

    found = {}
    for gib in (0.5, 24, 80):
        monkeypatch.setattr(memory, "this_machine", lambda gib=gib: memory.Machine("cuda", "trl", gib))
        found[gib] = gkd.plan_beside_teacher("tiny-random", "tiny-random", 16, 4000)
    assert found[0.5].micro_batch_size < found[24].micro_batch_size == found[80].micro_batch_size == 16
    copies = gkd.BYTES_PER_LOGIT / memory.BYTES_PER_LOGIT["trl"]
    plain = memory.plan("tiny-random", "lora", batch_size=16, longest=4000).parts
    assert found[80].parts["logits"] == pytest.approx(copies * plain["logits"], rel=0.05)


TRAIN = """
import sys
from pathlib import Path
from distil.train import sft
from distil.train.examples import default_batch_size
from distil.workspace.rows import TrainingRow
text = " ".join(["seven"] * 440)
messages = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": text}]
rows = [TrainingRow(instruction="1 + 1?", messages=messages, output=text, problem_id="p")] * 8
sft.sft(rows, [], sys.argv[1], Path(sys.argv[2]), train_tokens=2000, learning_rate=1e-4, max_length=512,
             method="lora", seed=0)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(default_batch_size(), int(peak.split()[1]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available() or sys.platform != "linux", reason="measures a CPU's memory")
def test_against_a_training(tmp_path):
    """A fresh process that trains on rows of one length, a full step and a begun one; of mixed lengths, freed memory
    makes it more."""
    student = "HuggingFaceTB/SmolLM2-135M-Instruct"
    done = subprocess.run([sys.executable, "-c", TRAIN, student, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows, peak = done.stdout.split()[-2:]
    expected = memory.estimate(student, "lora", micro_batch_size=int(rows), max_length=490, machine=CPU)
    assert expected["total"] == pytest.approx(float(peak), rel=0.25)


KEPT_PIECES = """
from distil.workspace.environment import give_memory_back

def mib():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

pieces = [bytes(100_000) for _ in range(3000)]
kept = pieces[::50]
del pieces
before = mib()
give_memory_back()
print(before - mib())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has to be told")
def test_memory_that_lies_between_used_pieces_is_given_back():
    done = subprocess.run([sys.executable, "-c", KEPT_PIECES], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) > 100
