"""On-policy distillation: its loss against the formula, for one prompt and for two; its errors and its resumption."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from factories import a_problem
from test_whitebox import random_model

from distil.chains.collect import asked_for
from distil.llm.prompts import prompt_of
from distil.models import student
from distil.models.student import encode_prompt, load_tokenizer
from distil.models.weights import tiny_random
from distil.train import common, memory, model, on_policy
from distil.workspace.errors import StageError

PROBLEMS = [a_problem(id=str(i), question="What is " + "1 + " * (i % 5) + f"{i}?") for i in range(8)]
SETTINGS = {"steps": 1, "learning_rate": 3e-3, "max_completion": 8, "seed": 0}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Everything in float32, whatever the machine is fast at."""
    if "unsloth" in sys.modules:
        pytest.skip("Unsloth was imported by an earlier test")
    for module in (common, model, student):
        monkeypatch.setattr(module, "choose_dtype", lambda: (torch.float32, "for a test"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    base = str(tiny_random(tmp_path_factory.mktemp("cache") / "base"))
    return random_model(base, tmp_path_factory.mktemp("student"), seed=1)


@pytest.fixture(scope="module")
def teacher(tiny, tmp_path_factory) -> str:
    return random_model(tiny, tmp_path_factory.mktemp("teacher"), seed=2)


@pytest.fixture
def written(monkeypatch) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) of every answer of the student, as they come."""
    from trl import DistillationTrainer

    found, write = [], DistillationTrainer._generate_single_turn

    def watch(self, prompt_ids, *args, **kwargs):
        completions = write(self, prompt_ids, *args, **kwargs)
        found.extend(zip(prompt_ids, completions, strict=True))
        return completions

    monkeypatch.setattr(DistillationTrainer, "_generate_single_turn", watch)
    return found


def by_hand(written, ours: str, theirs: str, *, reverse: bool = True, shown: dict | None = None) -> float:
    """KL in nats a completion token, an answer after the other in float64: no batch, no padding and no line of TRL's.

    `shown` has, for each prompt of the student, that of the teacher.
    """
    models = [student.load(folder).double() for folder in (ours, theirs)]
    total = count = 0
    for prompt, completion in written:
        seen = prompt, shown[tuple(prompt)] if shown else prompt
        with torch.no_grad():
            q, p = (
                m(torch.tensor([[*before, *completion]], device=m.device))
                .logits[0, len(before) - 1 : -1]
                .log_softmax(-1)
                for m, before in zip(models, seen, strict=True)
            )
        if reverse:
            p, q = q, p
        total += (p.exp() * (p - q)).sum().item()
        count += len(completion)
    return total / count


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_the_loss_is_the_formula_on_what_the_student_wrote(tiny, teacher, tmp_path, written, beta):
    result = on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path, **SETTINGS, beta=beta)
    wanted = by_hand(written, tiny, teacher, reverse=beta == 1)
    assert result.loss_first == result.loss_last == pytest.approx(wanted, abs=1e-4)
    assert abs(wanted - by_hand(written, tiny, teacher, reverse=beta == 0)) > 1e-2, "the other way is another number"
    tokenizer = load_tokenizer(tiny)
    prompts = [encode_prompt(tokenizer, prompt_of(problem)) for problem in PROBLEMS]
    assert all(prompt in prompts for prompt, _ in written) and len(written) == result.completions == 4
    assert result.written == sum(len(completion) for _, completion in written)
    assert result.tokens == result.written + sum(len(prompt) for prompt, _ in written)


def test_a_teacher_who_is_the_student_has_nothing_to_say_unless_it_sees_another_prompt(tiny, tmp_path, written):
    same = shutil.copytree(tiny, tmp_path / "same")
    result = on_policy.distil_on_policy(PROBLEMS, tiny, str(same), tmp_path / "plain", **SETTINGS)
    assert result.loss_first == pytest.approx(0, abs=1e-6)
    written.clear()
    result = on_policy.distil_on_policy(
        PROBLEMS, tiny, str(same), tmp_path / "shown", **SETTINGS, teacher_prompt="fast"
    )
    tokenizer = load_tokenizer(tiny)
    shown = {
        tuple(encode_prompt(tokenizer, prompt_of(p))): encode_prompt(tokenizer, asked_for(p, "fast")) for p in PROBLEMS
    }
    assert len({len(ids) for ids in shown.values()}) > 1, "padded to different widths, too"
    assert all(list(prompt) != ids for prompt, ids in shown.items())
    wanted = by_hand(written, tiny, str(same), shown=shown)
    assert wanted > 1e-3 and result.loss_first == pytest.approx(wanted, abs=1e-4)


def test_in_micro_batches_each_answer_keeps_its_teachers_prompt(tiny, teacher, tmp_path, written, monkeypatch):
    plan = memory.Plan(micro_batch_size=2, gradient_checkpointing=True, parts={})
    monkeypatch.setattr(on_policy.memory, "plan_further", lambda *_, **__: plan)
    result = on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path, **SETTINGS, teacher_prompt="slow")
    tokenizer = load_tokenizer(tiny)
    shown = {
        tuple(encode_prompt(tokenizer, prompt_of(p))): encode_prompt(tokenizer, asked_for(p, "slow")) for p in PROBLEMS
    }
    assert result.loss_first == pytest.approx(by_hand(written, tiny, teacher, shown=shown), abs=1e-4)


def test_the_student_comes_nearer_to_the_teacher_and_is_not_taught_twice(tiny, teacher, tmp_path, monkeypatch):
    settings = SETTINGS | {"steps": 20}
    result = on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path, **settings)
    assert result.loss_last < 0.8 * result.loss_first and result.steps == 20 and result.completions == 80
    assert 0 < result.writing_s < result.seconds and result.tokens_per_s > 0
    assert (tmp_path / "log.csv").exists() and not (tmp_path / "checkpoints").exists()
    assert student.load(str(tmp_path)).config.vocab_size == 259
    monkeypatch.setattr(on_policy, "train", lambda *_, **__: pytest.fail("it was finished"))
    assert on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path, **settings) == result


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_student(tiny, teacher, tmp_path, monkeypatch, written):
    from trl import DistillationTrainer

    settings = SETTINGS | {"steps": 6}
    whole = on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path / "whole", **settings)
    steps, training_step = [], DistillationTrainer.training_step

    def step(self, *args, **kwargs):
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(self.state.global_step)
        return training_step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationTrainer, "training_step", step)
        with pytest.raises(KeyboardInterrupt):
            on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path / "cut", **settings)
    assert not (tmp_path / "cut" / "on_policy.json").exists()
    written.clear()
    again = on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path / "cut", **settings)
    assert 0 < len(written) < whole.completions, "what was learned before is not written again"
    same = ("steps", "completions", "tokens", "written")
    assert [getattr(again, name) for name in same] == [getattr(whole, name) for name in same]
    assert (again.loss_first, again.loss_last) == pytest.approx((whole.loss_first, whole.loss_last), abs=1e-4)
    weights = [student.load(str(tmp_path / name)).state_dict() for name in ("whole", "cut")]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-6) for name in weights[0])


def test_mixed_precision_reaches_the_models(tiny, teacher, tmp_path, monkeypatch):
    """The trainer calls them past the `forward` that accelerate wraps; float32 would take twice the time on a GPU."""
    from trl import DistillationTrainer

    monkeypatch.setattr(common, "choose_dtype", lambda: (torch.bfloat16, "for a test"))
    found, compute_loss = [], DistillationTrainer._compute_loss

    def watch(self, *args):
        found.append(torch.is_autocast_enabled(self.accelerator.device.type))
        return compute_loss(self, *args)

    monkeypatch.setattr(DistillationTrainer, "_compute_loss", watch)
    on_policy.distil_on_policy(PROBLEMS, tiny, teacher, tmp_path, **SETTINGS)
    assert found == [True]


def test_bad_input_is_refused_before_anything_is_loaded(tiny, teacher, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(on_policy, "load_teacher", refuse)
    monkeypatch.setattr(on_policy, "load_student_for_training", refuse)

    def attempt(*, problems=PROBLEMS, student=tiny, teacher=teacher, out=tmp_path / "out", **more):
        on_policy.distil_on_policy(problems, student, teacher, out, **SETTINGS | more)

    for fields, words in (
        ({"beta": 1.1}, "beta is 1.1"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"max_completion": 0}, "max_completion is 0"),
        ({"teacher_prompt": "quick"}, "teacher_prompt is 'quick': use one of fast, slow"),
        ({"problems": []}, "no problem to answer"),
        ({"student": str(tmp_path / "nowhere")}, "no folder"),
        ({"teacher": tiny + "/."}, "the teacher is the student's own folder"),
        ({"out": Path(tiny)}, "out is the student's own folder"),
    ):
        with pytest.raises(StageError, match=words):
            attempt(**fields)
    other = shutil.copytree(teacher, tmp_path / "other")
    file = other / "tokenizer.json"
    file.write_text(file.read_text().replace('"z":', '"zz":'))
    with pytest.raises(StageError, match="1 only the student's, as 'z'; 1 only the teacher's, as 'zz'"):
        attempt(teacher=str(other))
    with pytest.raises(AssertionError, match="was loaded"):
        attempt()
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(StageError, match="restart the kernel"):
        attempt()


def test_a_step_fits_beside_a_teacher(monkeypatch):
    """TRL keeps the scores of a few hundred tokens at a time: a longer answer takes no more for them."""
    found = {}
    for longest in (2000, 4000):
        monkeypatch.setattr(memory, "this_machine", lambda: memory.Machine("cuda", "trl", 80))
        found[longest] = memory.plan_further(
            "tiny-random", batch_size=16, longest=longest, taken=4.0, backend="distillation"
        ).parts
    assert found[2000]["logits"] == found[4000]["logits"]
    assert found[2000]["activations"] < found[4000]["activations"]
