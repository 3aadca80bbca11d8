"""White-box distillation: its loss against the formula, its rows against stage 04's, its errors and its resumption."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from factories import a_chain, a_problem

from distil.chains.select import training_row
from distil.models import student
from distil.models.student import encode_prompt, load_tokenizer
from distil.models.weights import tiny_random
from distil.train import common, examples, gkd, model, sft
from distil.workspace.errors import StageError
from distil.workspace.rows import TrainingRow


def lesson(i: int) -> TrainingRow:
    """A row of a training set; those of larger `i` are longer in their question and in their answer."""
    problem = a_problem(id=str(i), question="What is " + "1 + " * (i % 5) + f"{i}?")
    thought = f"{i} + {i % 5} is " + "so " * (i % 3) + f"{i + i % 5}"
    return training_row(a_chain(id=str(i), thought=thought, solution="ok"), problem)


ROWS = [lesson(i) for i in (2, 4, 6)]
SETTINGS = {"train_tokens": 10_000, "learning_rate": 3e-3, "max_length": 512, "seed": 0}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Everything in float32, whatever the machine is fast at."""
    if "unsloth" in sys.modules:
        pytest.skip("Unsloth was imported by an earlier test")
    for module in (common, model, student):
        monkeypatch.setattr(module, "choose_dtype", lambda: (torch.float32, "for a test"))


def random_model(base: str, folder, seed: int, scores: int | None = None) -> str:
    """A model with the tokenizer of `base` and weights of its own, with `scores` scores a position.

    `base` itself will not do: its head is tied to large embeddings, so that it says every token again, for certain.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(base, tie_word_embeddings=False, initializer_range=0.15)
    config.vocab_size = scores or config.vocab_size
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    base = str(tiny_random(tmp_path_factory.mktemp("cache") / "base"))
    return random_model(base, tmp_path_factory.mktemp("student"), seed=1)


@pytest.fixture(scope="module")
def teacher(tiny, tmp_path_factory) -> str:
    return random_model(tiny, tmp_path_factory.mktemp("teacher"), seed=2)


def by_hand(rows, student_folder, teacher, reverse=False, masked=True, size=None) -> float:
    """KL in nats a completion token, row by row in float64: no batch, no padding and no line of TRL's.

    From the teacher to the student, or the other way; over the first `size` scores; the prompt too, if not `masked`.
    """
    tokenizer = load_tokenizer(student_folder)
    ours, theirs = student.load(student_folder).double(), student.load(teacher).double()
    total = count = 0
    for row in rows:
        prompt = encode_prompt(tokenizer, row.messages[:-1])
        ids = prompt + tokenizer(row.output, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            q, p = (model(torch.tensor([ids], device=model.device)).logits[0, :-1, :size].log_softmax(-1)
                    for model in (ours, theirs))  # fmt: skip
        p, q = (q, p) if reverse else (p, q)
        start = len(prompt) - 1 if masked else 0  # the last token of the prompt is where the first is foretold
        total += (p.exp() * (p - q)).sum(-1)[start:].sum().item()
        count += len(ids) - 1 - start
    return total / count


def one_step(rows, tiny) -> dict:
    """Settings with which each of a few rows is trained on once, in one batch: the loss is that before the step."""
    encoded, _ = examples.encode_rows(rows, load_tokenizer(tiny), 512)
    return SETTINGS | {"train_tokens": sum(len(row["input_ids"]) for row in encoded)}


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_loss_is_the_formula_on_completions_alone(tiny, teacher, tmp_path, beta):
    result = gkd.distil_from_logits(ROWS, tiny, teacher, tmp_path, **one_step(ROWS, tiny), beta=beta)
    assert result.examples == 3
    assert result.loss == pytest.approx(by_hand(ROWS, tiny, teacher, reverse=beta == 1), abs=1e-4)
    unmasked = by_hand(ROWS, tiny, teacher, reverse=beta == 1, masked=False)
    assert abs(result.loss - unmasked) > 1e-2, "with the prompts it would be another number"


def test_a_teacher_with_more_scores_than_tokens_loses_what_no_token_has(tiny, tmp_path):
    padded = random_model(tiny, tmp_path / "teacher", seed=2, scores=320)
    result = gkd.distil_from_logits(ROWS, tiny, padded, tmp_path / "out", **one_step(ROWS, tiny))
    size = gkd.output_size(tiny)
    assert size == 259 and result.loss == pytest.approx(by_hand(ROWS, tiny, padded, size=size), abs=1e-4)
    with pytest.raises(StageError, match="259 scores a position, the student 320"):
        gkd.distil_from_logits(ROWS, padded, tiny, tmp_path / "other", **SETTINGS)


def seen(monkeypatch) -> list[dict]:
    """The batches that the loss is taken of, as they come."""
    _, trainer = gkd.trl_gkd()
    batches, compute_loss = [], trainer.compute_loss

    def watch(self, model, inputs, *args, **kwargs):
        batches.append({name: value.tolist() for name, value in inputs.items()})
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer, "compute_loss", watch)
    return batches


def test_rows_are_those_of_stage_04_token_for_token(tiny, teacher, tmp_path, monkeypatch):
    batches = seen(monkeypatch)
    gkd.distil_from_logits(ROWS, tiny, teacher, tmp_path, **one_step(ROWS, tiny))
    encoded, _ = examples.encode_rows(ROWS, load_tokenizer(tiny), 512)
    wanted, found = [], []
    for row in encoded:
        ids, mask = row["input_ids"], row["completion_mask"]
        labels = [token if learned else -100 for token, learned in zip(ids, mask, strict=True)]
        wanted.append((ids, labels, ids[: mask.index(1)]))
    for batch in batches:
        for i, shown in enumerate(batch["attention_mask"]):
            ids, labels = ([t for t, real in zip(batch[n][i], shown, strict=True) if real]
                           for n in ("input_ids", "labels"))  # fmt: skip
            assert {t for t, real in zip(batch["labels"][i], shown, strict=True) if not real} <= {-100}
            prompt = zip(batch["prompts"][i], batch["prompt_attention_mask"][i], strict=True)
            found.append((ids, labels, [t for t, real in prompt if real]))
    assert sorted(found) == sorted(wanted)


def test_the_student_comes_nearer_to_the_teacher_on_rows_it_has_not_seen(tiny, teacher, tmp_path):
    rows, held_out = [lesson(i) for i in range(20)], [lesson(i) for i in range(40, 44)]
    before = by_hand(held_out, tiny, teacher)
    result = gkd.distil_from_logits(rows, tiny, teacher, tmp_path, **SETTINGS)
    assert result.loss < before and by_hand(held_out, str(tmp_path), teacher) < 0.8 * before
    assert (tmp_path / "log.csv").exists() and not (tmp_path / "checkpoints").exists()
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert gkd.distil_from_logits(rows, tiny, teacher, tmp_path, **SETTINGS) == result
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written, "finished work is not done again"


def test_an_adapter_goes_on_as_an_adapter_of_the_same_base(tiny, teacher, tmp_path):
    sft.sft(ROWS, [], tiny, tmp_path / "sft", method="lora", **SETTINGS | {"train_tokens": 300})
    start = by_hand(ROWS, str(tmp_path / "sft"), teacher)
    settings = SETTINGS | {"train_tokens": 3000}
    gkd.distil_from_logits(ROWS, str(tmp_path / "sft"), teacher, tmp_path / "out", **settings)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == tiny
    assert by_hand(ROWS, str(tmp_path / "out"), teacher) < start
    # an adapter may teach, too: here the finished student teaches the one it came of
    settings = one_step(ROWS, tiny)
    result = gkd.distil_from_logits(ROWS, str(tmp_path / "sft"), str(tmp_path / "out"), tmp_path / "o", **settings)
    assert result.loss == pytest.approx(by_hand(ROWS, str(tmp_path / "sft"), str(tmp_path / "out")), abs=1e-4)


def test_on_its_own_continuations_the_loss_is_by_their_tokens(tiny, teacher, tmp_path, monkeypatch):
    batches = seen(monkeypatch)
    settings = one_step(ROWS, tiny)
    result = gkd.distil_from_logits(ROWS, tiny, teacher, tmp_path, **settings, on_policy=1.0)
    (batch,) = batches
    encoded, _ = examples.encode_rows(ROWS, load_tokenizer(tiny), 512)
    longest = max(sum(row["completion_mask"]) for row in encoded)
    prompts = [row["input_ids"][: row["completion_mask"].index(1)] for row in encoded]
    total = count = 0
    models = [student.load(folder).double() for folder in (tiny, teacher)]
    for ids, shown, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        ids, labels = ([t for t, real in zip(column, shown, strict=True) if real] for column in (ids, labels))
        own = [label for label in labels if label != -100]
        assert labels[-len(own) :] == own and ids[: -len(own)] in prompts
        assert len(own) <= longest and ids not in [row["input_ids"] for row in encoded], "the student wrote it"
        with torch.no_grad():
            q, p = (m(torch.tensor([ids], device=m.device)).logits[0, :-1].log_softmax(-1) for m in models)
        total += (p.exp() * (p - q)).sum(-1)[-len(own) :].sum().item()
        count += len(own)
    assert result.loss == pytest.approx(total / count, abs=1e-4)


@pytest.mark.parametrize("on_policy", [0.0, 0.5])
def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_student(tiny, teacher, tmp_path, monkeypatch, on_policy):
    rows, settings = [lesson(i) for i in range(6)], SETTINGS | {"train_tokens": 1200, "on_policy": on_policy}
    whole = gkd.distil_from_logits(rows, tiny, teacher, tmp_path / "whole", **settings)
    _, trainer = gkd.trl_gkd()
    training_step, steps = trainer.training_step, []

    def step(self, *args, **kwargs):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(self.state.global_step)
        return training_step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            gkd.distil_from_logits(rows, tiny, teacher, tmp_path / "cut", **settings)
    assert not (tmp_path / "cut" / "whitebox.json").exists()
    batches = seen(monkeypatch)
    again = gkd.distil_from_logits(rows, tiny, teacher, tmp_path / "cut", **settings)
    assert 0 < len(batches) < -(-whole.examples // examples.default_batch_size())
    assert again.loss == pytest.approx(whole.loss, abs=1e-5)
    weights = [student.load(str(tmp_path / name)).state_dict() for name in ("whole", "cut")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


def test_bad_input_is_refused_before_anything_is_loaded(tiny, teacher, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(gkd, "load", refuse)
    monkeypatch.setattr(gkd, "load_student_for_training", refuse)

    def attempt(*, student=tiny, teacher=teacher, out=tmp_path / "out", **more):
        gkd.distil_from_logits(ROWS, student, teacher, out, **SETTINGS | more)

    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(StageError, match=f"on_policy is {value}"):
            attempt(on_policy=value)
        with pytest.raises(StageError, match=f"beta is {value}"):
            attempt(beta=value)
    with pytest.raises(StageError, match="no folder"):
        attempt(student=str(tmp_path / "nowhere"))
    with pytest.raises(StageError, match="the teacher is the student's own folder"):
        attempt(teacher=tiny + "/.")
    with pytest.raises(StageError, match="out is the student's own folder"):
        attempt(out=Path(tiny))
    with pytest.raises(StageError, match="none of 3 training rows fits into max_length=20"):
        attempt(max_length=20)
    with pytest.raises(AssertionError, match="was loaded"):
        attempt()
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(StageError, match="restart the kernel"):
        attempt()


def test_another_vocabulary_is_refused_and_the_differences_named(tiny, teacher, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"], vocab["zz"] = vocab["b"], vocab["a"], vocab.pop("z")
    (other / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(StageError, match="1 only the student's, as 'z'; 1 only the teacher's, as 'zz'; 2 of another"):
        gkd.distil_from_logits(ROWS, tiny, str(other), tmp_path / "out", **SETTINGS)


def test_the_notice_is_silenced_for_the_import_alone(monkeypatch):
    monkeypatch.delenv("TRL_EXPERIMENTAL_SILENCE", raising=False)
    gkd.trl_gkd()
    assert "TRL_EXPERIMENTAL_SILENCE" not in os.environ
