"""Training as recipes say it: rounds, rows a step, decay, warm-up, rank; each is used, and checked before any work."""

import json

import pytest
from factories import a_training_row
from transformers import TrainerCallback

from distil.models.weights import tiny_random
from distil.train import common, examples, memory, sft
from distil.train.recipe import Recipe
from distil.workspace.errors import StageError

ROWS = [a_training_row(f"{i}?", "ab " * (1 + i), str(i)) for i in range(10)]
USUAL = {"learning_rate": 1e-3, "max_length": 256, "method": "lora", "seed": 0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))


class Note(TrainerCallback):
    """What the trainer was told."""

    def on_train_begin(self, args, state, control, **_):
        self.told, self.steps = args, state.max_steps


@pytest.mark.parametrize("epochs, n", [(1, 10), (3, 30), (0.5, 5), (1.26, 13), (0.01, 1)])
def test_rounds_are_counted_in_rows_and_each_has_its_own_order(epochs, n):
    rows = [{"input_ids": [i]} for i in range(10)]
    filled = [row["input_ids"][0] for row in examples.fill(rows, epochs=epochs, train_tokens=10**6, seed=3)]
    assert len(filled) == n
    rounds = [filled[i : i + 10] for i in range(0, n, 10)]
    assert all(len(set(part)) == len(part) for part in rounds), "no row twice in a round"
    assert len({tuple(part) for part in rounds}) == len(rounds), "each in another order"


@pytest.mark.slow
def test_every_setting_reaches_the_training(tiny, tmp_path):
    note = Note()
    asked = {
        "epochs": 3.0,
        "batch_size": 8,
        "weight_decay": 0.05,
        "warmup_ratio": 0.5,
        "lora_rank": 4,
        "lora_alpha": 12,
    }
    result = sft.sft(ROWS, [], tiny, tmp_path, train_tokens=1, callbacks=[note], **USUAL, **asked)
    assert (result.examples, result.epochs, note.steps) == (30, 3.0, 4), "epochs win over train_tokens"
    told = note.told
    assert told.per_device_train_batch_size * told.gradient_accumulation_steps == 8
    assert (told.weight_decay, told.warmup_steps) == (0.05, 2)
    adapter = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"]) == (4, 12)
    assert memory.rank_of(str(tmp_path)) == 4
    request = json.loads((tmp_path / "sft.json").read_text())["request"]
    assert request.items() >= (asked | {"student_format": "plain"}).items()


@pytest.mark.parametrize("steps", [1, 7, 19, 20, 39, 60, 999, 1540])
def test_the_usual_warm_up_is_a_twentieth(steps, tmp_path):
    settings = {"steps": steps, "learning_rate": 1e-3, "seed": 0, "batch_size": 4, "micro_batch_size": 4}
    assert common.trainer_arguments(tmp_path, **settings)["warmup_steps"] == max(1, steps // 20)
    assert common.trainer_arguments(tmp_path, **settings, warmup_ratio=0.0)["warmup_steps"] == 0


def test_the_rank_counts_in_the_estimate(tiny):
    one = {"micro_batch_size": 1, "max_length": 8, "machine": memory.Machine("cuda", "trl", 0.01)}
    small, large = (memory.estimate(tiny, "lora", lora_rank=rank, **one)["training"] for rank in (8, 8000))
    assert large > small
    assert memory.plan(tiny, "lora", batch_size=1, longest=8, machine=one["machine"], lora_rank=1).micro_batch_size == 1
    with pytest.raises(StageError, match="has room for"):
        memory.plan(tiny, "lora", batch_size=1, longest=8, machine=one["machine"], lora_rank=8000)


@pytest.mark.parametrize(
    "bad, said",
    [
        ({"epochs": -1.0}, "epochs=-1.0: epochs is 0 or more"),
        ({"train_tokens": 0}, "train_tokens=0: train_tokens is above 0, unless epochs are given"),
        ({"batch_size": -4}, "batch_size=-4"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: learning_rate is above 0"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"warmup_ratio": 1.5}, "warmup_ratio=1.5: warmup_ratio is from 0 to 1"),
        ({"lora_rank": 0}, "lora_rank=0: lora_rank is 1 or more"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"method": "magic"}, "method 'magic': use one of full, lora, qlora"),
        ({"student_format": "loud"}, "student_format 'loud': use one of plain, think, sections"),
    ],
)
def test_what_cannot_be_meant_is_found_before_any_work(bad, said, tmp_path):
    with pytest.raises(StageError, match=said):
        sft.sft(ROWS, [], "no/such-model", tmp_path, **USUAL | {"train_tokens": 100} | bad)
    assert not list(tmp_path.iterdir())


def test_epochs_need_no_budget():
    recipe = Recipe(epochs=2.5, **USUAL)
    assert recipe.length == "2.5 epochs" and Recipe(train_tokens=40000, **USUAL).length == "40,000 tokens"


@pytest.mark.slow
def test_where_epochs_say_how_long_the_budget_makes_no_other_request(tiny, tmp_path):
    """The command line of several GPUs knows no budget there, the notebook has its default: it must find it done."""
    first = sft.sft(ROWS, [], tiny, tmp_path, epochs=1.0, train_tokens=0, batch_size=4, **USUAL)
    again = sft.sft(ROWS, [], tiny, tmp_path, epochs=1.0, train_tokens=40_000, batch_size=4, **USUAL)
    assert again == first and again.seconds == first.seconds
