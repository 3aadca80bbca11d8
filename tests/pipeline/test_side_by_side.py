"""Students of 04 trained side by side: what comes of it, how memory is shared, what is left when something ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from conftest import ROOT
from factories import a_training_row

from distil.train import memory, sft, sft_trainers, side_by_side
from distil.train.memory import GIB
from distil.train.recipe import Recipe
from distil.workspace import bars
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv, sha256, write_jsonl
from distil.workspace.stage import run_folder
from distil.workspace.students import recipe_of, seed_of

SETTINGS = {"train_tokens": 2000, "learning_rate": 1e-2, "max_length": 256, "method": "lora", "seed": 0}
NAMES = ("fast", "slow", "fast@1")
ROWS = {
    "fast": [a_training_row(f"What is {i} + 1?", f"{i + 1}", f"p{i}") for i in range(12)],
    "slow": [a_training_row(f"What is {i} + 1?", f"{i} + 1 = {i + 1}\n\n" * 3, f"p{i}") for i in range(12)],
}


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """Write 03's sets of a run in an empty project; gives (rows, valid) by student."""
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # sums of one order, here and in the processes
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def write(run: str, sets: dict[str, list]) -> tuple[dict, dict]:
        folder, outputs = run_folder(run) / "03_judge", {}
        for name, rows in sets.items():
            for part, some in (("train", rows[2:]), ("valid", rows[:2])):
                write_jsonl(folder / part / f"{name}.jsonl", some)
                outputs[f"{part}/{name}.jsonl"] = ""
        (folder / "meta.json").write_text(json.dumps({"outputs": outputs}))
        made = [name for name in NAMES if recipe_of(name) in sets]
        return {name: sets[recipe_of(name)][2:] for name in made}, {name: sets[recipe_of(name)][:2] for name in made}

    yield write
    torch.set_num_threads(before)


def place(run: str, name: str) -> Path:
    return run_folder(run) / "04_finetune" / name


def taken(run: str, rows: dict, valid: dict) -> dict[str, tuple]:
    """What 04 goes on with, by student: its result but for the time, the losses, the digest of its weights."""
    found = {}
    for name in rows:
        now, folder = SETTINGS | {"seed": seed_of(name, 0)}, place(run, name)
        result = sft.sft(rows[name], valid[name], "tiny-random", folder, **now).to_dict()
        log = [(row["step"], row["loss"], row["eval_loss"]) for row in read_csv(folder / "log.csv")]
        del result["seconds"], result["tokens_per_s"]
        found[name] = result, log, sha256(folder / "adapter_model.safetensors")
    return found


def test_students_side_by_side_are_those_of_one_after_the_other(judged, tmp_path, monkeypatch):
    rows, valid = judged("one", ROWS)
    side_by_side.train("one", rows, valid, "tiny-random", 1, **SETTINGS)
    assert not (run_folder("one") / "04_finetune").exists(), "the notebook trains them itself"
    alone = taken("one", rows, valid)
    assert len({weights for _, _, weights in alone.values()}) == len(NAMES) and len(alone["fast"][1]) > 3
    monkeypatch.setenv(bars.FILE, str(tmp_path / "bar.json"))
    judged("two", ROWS)
    side_by_side.train("two", rows, valid, "tiny-random", 2, **SETTINGS)
    bar = bars.read_bar(tmp_path / "bar.json")
    assert (bar["what"], bar["done"], bar["total"]) == ("students trained", 3, 3)

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(sft, "train", never)
    assert taken("two", rows, valid) == alone
    assert "distil.train.sft" in (place("two", "fast@1") / side_by_side.LOG).read_text()
    (place("two", "slow") / "sft.json").unlink()
    monkeypatch.setattr(side_by_side.processes, "start", never)
    side_by_side.train("two", rows, valid, "tiny-random", 2, **SETTINGS)
    assert not (place("two", "slow") / "sft.json").exists(), "one is left, for the notebook"


def test_a_student_that_fails_is_named_after_the_others_are_trained(judged):
    long = [a_training_row("What is it?", "seven " * 300, f"p{i}") for i in range(4)]
    rows, valid = judged("t", {"fast": ROWS["fast"], "slow": long})
    with pytest.raises(StageError) as error:
        side_by_side.train("t", rows, valid, "tiny-random", 2, **SETTINGS)
    said, log = str(error.value), place("t", "slow") / side_by_side.LOG
    assert "1 of 3 students were not trained" in said and f"slow, exit code 1, {log} ends: " in said
    assert "distil.train.sft: " in said and "max_length" in said and "Traceback" not in said
    assert all((place("t", name) / "sft.json").exists() for name in ("fast", "fast@1"))


PARENT = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a kernel has it; who runs in the background ignores it
from distil.train import side_by_side
from distil.workspace.files import read_jsonl
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder
folder = run_folder("t") / "03_judge"
rows, valid = (
    {name: read_jsonl(folder / part / f"{name}.jsonl", TrainingRow) for name in ("fast", "slow")}
    for part in ("train", "valid")
)
side_by_side.train("t", rows, valid, "tiny-random", 2, **json.loads(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing ends the processes of one that was killed")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_who_started_them(judged, number):
    judged("t", ROWS)
    asked = json.dumps(SETTINGS | {"train_tokens": 10**6})
    with subprocess.Popen([sys.executable, "-c", PARENT, asked], env=os.environ, stderr=subprocess.DEVNULL) as parent:
        deadline = time.time() + 200
        while len(list((run_folder("t") / "04_finetune").glob("*/checkpoints"))) < 2 and time.time() < deadline:
            time.sleep(0.1)
        children = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(number)
        assert parent.wait(60) != 0 and len(children) == 2
    _, alive = psutil.wait_procs(children, timeout=20)
    for child in alive:
        child.kill()
    assert not alive and not list(run_folder("t").glob("04_finetune/*/sft.json"))


class Gpus:
    """Stands in for GPUs of 80 GiB, as far as torch is asked about them; `free` GiB of each."""

    def __init__(self, monkeypatch, *free: float):
        self.fraction = 1.0
        of_torch = {
            "is_available": lambda: True,
            "device_count": lambda: len(free),
            "empty_cache": lambda: None,
            "mem_get_info": lambda gpu=0: (int(free[gpu] * GIB), 80 * GIB),
            "memory_reserved": lambda: 0,
            "memory_allocated": lambda: 0,
            "get_device_properties": lambda gpu: SimpleNamespace(total_memory=80 * GIB),
            "get_device_capability": lambda: (9, 0),
            "get_per_process_memory_fraction": lambda: self.fraction,
            "set_per_process_memory_fraction": lambda share: setattr(self, "fraction", share),
        }
        for name, stand_in in of_torch.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)


def test_what_is_free_of_each_gpu_is_shared_evenly(monkeypatch):
    Gpus(monkeypatch, 70.0, 40.0)
    found = side_by_side.places(3)
    assert [place.gpu for place in found] == [0, 1, 0]
    assert [place.gib + side_by_side.CONTEXT for place in found] == pytest.approx([35, 40, 35], abs=1e-6)
    assert [place.share * 80 for place in found] == pytest.approx([place.gib for place in found])


def test_a_process_plans_with_its_share(monkeypatch):
    Gpus(monkeypatch, 60.0)
    memory.limit_memory(1.0)
    assert memory.this_machine().gib == 60
    memory.limit_memory(0.25)
    assert memory.this_machine().gib == 20
    for share in (0, 1.5, -0.1):
        with pytest.raises(StageError, match="above 0 and at most 1"):
            memory.limit_memory(share)


def test_too_many_for_a_gpu_are_refused_with_a_number_that_fits(monkeypatch):
    filled = [{"input_ids": [1] * 40_000, "completion_mask": [1] * 40_000}] * 4
    recipe = Recipe(**SETTINGS | {"batch_size": 4, "max_length": 40_000})
    card = memory.Machine("cuda", "trl", 2.0)
    monkeypatch.setattr(sft_trainers, "backend", lambda *_: "trl")
    for module in (memory, sft_trainers):
        monkeypatch.setattr(module, "this_machine", lambda *_: card)
    with monkeypatch.context() as patched:
        Gpus(patched, 2.0)
        how, parts = side_by_side.expected("tiny-random", recipe, filled, 1)
        assert "micro batches of 4" in how and 0 < parts["total"] < 2
        how, _ = side_by_side.expected("tiny-random", recipe, filled, 2)
        assert "batches of 4 rows, micro batches of 1" in how, how
        with pytest.raises(StageError, match="at_once=6 leaves each .* give at_once=2"):
            side_by_side.expected("tiny-random", recipe, filled, 6)
        Gpus(patched, 0.1)
        with pytest.raises(StageError, match="this GPU has room"):
            monkeypatch.setattr(memory, "this_machine", lambda *_: memory.Machine("cuda", "trl", 0.1))
            side_by_side.expected("tiny-random", recipe, filled, 3)


def test_losses_do_not_depend_on_the_share(tmp_path, monkeypatch):
    """A smaller share cuts a step into more parts; its rows stay, and the mean of their tokens' losses."""
    planned, losses = [], []

    def estimate(*_, micro_batch_size: int, **__) -> dict[str, float]:
        return {"total": float(micro_batch_size)}  # a GiB a row

    def plan(*args, **more):
        planned.append(memory.plan(*args, **more))
        return planned[-1]

    monkeypatch.setattr(memory, "estimate", estimate)
    monkeypatch.setattr(sft_trainers, "plan", plan)
    for share in (1.0, 0.5, 0.25):
        card = memory.Machine("cuda", "trl", share * 4 / memory.MARGIN)
        monkeypatch.setattr(memory, "this_machine", lambda card=card: card)
        out = tmp_path / str(share)
        sft.sft(ROWS["slow"], [], "tiny-random", out, **SETTINGS | {"batch_size": 4, "learning_rate": 1e-3})
        losses.append([row["loss"] for row in read_csv(out / "log.csv") if row["loss"] is not None])
    assert [one.micro_batch_size for one in planned] == [4, 2, 1] and len(losses[0]) > 3
    for parts in losses[1:]:
        assert parts == pytest.approx(losses[0], rel=1e-3)


def test_processes_share_gpus_and_cores(monkeypatch):
    monkeypatch.setattr(side_by_side, "cores", lambda: 8)
    for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(bars.FILE, "bar.json")
    found = side_by_side.environment(side_by_side.Place(), 3)
    assert (found["OMP_NUM_THREADS"], found["TORCHINDUCTOR_COMPILE_THREADS"]) == ("2", "4")
    assert "CUDA_VISIBLE_DEVICES" not in found and bars.FILE not in found and found["PATH"] == os.environ["PATH"]
    assert side_by_side.environment(side_by_side.Place(), 20)["OMP_NUM_THREADS"] == "1"
    assert side_by_side.environment(side_by_side.Place(1), 2)["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = side_by_side.environment(side_by_side.Place(1), 2)
    assert (found["CUDA_VISIBLE_DEVICES"], found["OMP_NUM_THREADS"]) == ("GPU-5", "5")
