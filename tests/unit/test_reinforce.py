"""The reward, term by term; the reward model; GRPO and its guards, on a tiny random model."""

import json
import sys
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from factories import a_problem

from distil.llm.prompts import prompt_of
from distil.models.student import load_tokenizer
from distil.models.weights import tiny_random
from distil.train import grpo, reward_model, rewards, writing
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv

PROBLEM = a_problem(question="What is 4 + 5?", answer="9")
SHORT, LONG = "4 + 5 = 9\n\n\\boxed{9}", "Take 4.\n\nAdd 5.\n\nThat is 4 + 5.\n\n4 + 5 = 9\n\n\\boxed{9}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_random(tmp_path_factory.mktemp("cache") / "tiny"))


@pytest.mark.parametrize(("text", "correct", "form"), [
    (SHORT, 1, 1),
    (LONG, 1, 1),
    ("4 + 5 = 8\n\n\\boxed{8}", 0, 1),
    ("\\boxed{9}", 1, 0),
    ("4 + 5 = 9", 0, 0),
    ("\\boxed{8}\n\n\\boxed{9}", 1, 0),
    ("4 + 5 = 9\n\n\\boxed{9}\n\n\\boxed{9}", 1, 0),
    ("", 0, 0),
    ("nine " * 300, 0, 0),
    ("4 + 5 = 9\n\n" * 20 + "\\boxed{9}", 1, 0),
    ("What is 4 + 5?\nGive the answer in \\boxed{}.", 0, 0),
])  # fmt: skip
def test_terms_of_answers_made_by_hand(text, correct, form):
    terms = rewards.reward_terms(text, PROBLEM, rv=4, cd=2, line=(2.0, 1.0), used=0.25)
    assert (terms["correct"], terms["format"]) == (correct, form)
    assert terms["rv"] == correct, "RV is the one wanted: full marks, if the answer is right"
    assert terms["cd"] == correct and terms["short"] == 0.75 * correct
    ungated = rewards.reward_terms(text, PROBLEM, rv=4, cd=2, line=(2.0, 1.0), used=0.25, gated=False)
    assert (ungated["rv"], ungated["cd"], ungated["short"]) == (1, 1, 0.75)


def test_the_style_terms_by_the_formula():
    def terms(rv, cd, used=0.5, line=(1.0, 0.5)):
        return rewards.reward_terms(SHORT, PROBLEM, rv=rv, cd=cd, line=line, used=used)

    assert terms(rv=2, cd=2)["rv"] == 1 and terms(rv=5, cd=2)["rv"] == pytest.approx(1 - 3 / 9)
    assert terms(rv=9, cd=9, line=(0.0, 0.0))["rv"] == 0 and terms(rv=9, cd=9, line=(0.0, 5.0))["rv"] == 1, "clipped"
    assert terms(rv=2, cd=5)["cd"] == 1 and terms(rv=2, cd=8)["cd"] == pytest.approx(1 - 3 / 9)
    assert terms(rv=2, cd=2, used=1.5)["short"] == 0


def test_weights_by_name_and_by_number():
    full, gated = rewards.parse_weights("full")
    assert full == {"correct": 1, "rv": 0.2, "cd": 0.2, "format": 0.1, "short": 0} and gated
    assert rewards.parse_weights("correctness") == ({"correct": 1, "rv": 0, "cd": 0, "format": 0, "short": 0}, True)
    assert rewards.parse_weights("no-cd")[0]["cd"] == 0 and rewards.parse_weights("length")[0]["rv"] == 0
    ungated, gate = rewards.parse_weights("no-gate")
    assert ungated == full and not gate
    assert rewards.parse_weights("rv:0.5")[0] == {"correct": 1, "rv": 0.5, "cd": 0, "format": 0, "short": 0}
    for text in ("rv", "rv:x", "length:1", "everything", "gate:2"):
        with pytest.raises(StageError, match="weights .*: write one of full, correctness"):
            rewards.parse_weights(text)


def step(**given) -> rewards.Step:
    return rewards.Step(**dict.fromkeys((field.name for field in fields(rewards.Step)), 0.0) | given)


@pytest.mark.parametrize(("row", "why"), [
    ({"correct": 0.0, "cut_off": 0.9}, "cut off: raise max_completion"),
    ({"correct": 0.0, "cut_off": 0.0}, "never solves these problems: take easier"),
    ({"correct": 1.0, "cut_off": 0.0}, "every time: take harder"),
    ({"correct": 0.4, "cut_off": 0.1}, "do not differ: raise `group`"),
])  # fmt: skip
def test_a_reward_that_never_differs_stops_the_run_and_says_why(row, why):
    log = [step(stuck=1.0, **row)] * rewards.FIRST_STEPS
    rewards.check_spread(log[:-1])
    rewards.check_spread([*log[:-1], step(stuck=0.9, **row), *log])
    with pytest.raises(StageError, match=why):
        rewards.check_spread(log)


def test_collapse_and_explosion_of_the_length():
    assert rewards.length_trend([100.0] * 20) == ("steady", 1.0)
    assert rewards.length_trend([100] * 5 + [50] * 10 + [10] * 5) == ("collapse", 0.1)
    assert rewards.length_trend([10] * 5 + [20] * 10 + [30] * 5) == ("explosion", 3.0)
    assert rewards.length_trend([10.0, 30.0]) == ("too few steps to say", 3.0)


ASKED = [{"role": "user", "content": "q"}]


def test_the_reward_is_told_by_the_means_of_several_steps():
    """Two single steps, each of other problems, were shown as if they were a trend."""
    found = rewards.both_ends([0.1, 0.5, 0.3, 0.9, 0.8, 0.7])
    assert found == {"reward_steps": 3, "reward_first": 0.3, "reward_first_pm": 0.231, "reward_last": 0.8,
                     "reward_last_pm": 0.115}  # fmt: skip
    sizes = {n: rewards.both_ends([0.5] * n)["reward_steps"] for n in (1, 2, 3, 6, 16, 40, 150)}
    assert sizes == {1: 1, 2: 1, 3: 1, 6: 3, 16: 8, 40: 10, 150: 37}
    assert rewards.both_ends([0.2, 0.4])["reward_last_pm"] is None, "of one step no error is known"


@pytest.mark.parametrize(("verifier", "box"), [("math", True), ("code", False)])
def test_the_reward_model_reads_a_problem_as_its_verifier_has_it_asked(tiny, verifier, box):
    """Programs were asked for in a box."""
    problem = a_problem(question="Add.", answer="9", verifier=verifier, tests="assert add(4, 5) == 9")
    read = reward_model.reward_text(load_tokenizer(tiny), prompt_of(problem), "9")
    assert ("\\boxed" in read) == box and "Add." in read and read.endswith("9")


def judged(n):
    words = ["alpha", "omega"]
    return [reward_model.GradedChain(problem_id=str(i), asked=ASKED, text=f"{i % 7} {words[i % 2]}",
                                     rv=2 + 5 * (i % 2) if i % 5 else None, cd=3, correct=i % 2,
                                     held_out=i % 3 == 0) for i in range(n)]  # fmt: skip


def test_the_reward_model_learns_what_is_there_and_loads_in_transformers(tiny, tmp_path):
    quality, predictions = reward_model.fit_reward_model(judged(90), tiny, tmp_path / "rm")
    assert quality["rv", "model"].spearman > 0.8 and quality["rv", "model"].mae < quality["rv", "length_only"].mae
    assert quality["correct", "model"].mae < 0.2 < quality["correct", "length_only"].mae
    assert quality["cd", "model"].spearman is None, "a constant grade has no rank correlation"
    assert quality["rv", "model"].n == sum(r.held_out and r.rv is not None for r in judged(90)) < 30
    grades = reward_model.RewardModel(str(tmp_path / "rm")).grades([ASKED] * 2, ["1 alpha", "1 omega"])
    assert grades[1, 0] > grades[0, 0] and grades[1, 2] > grades[0, 2]
    from transformers import AutoModelForSequenceClassification

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    assert loaded.config.id2label == {0: "rv", 1: "cd", 2: "correct"}
    points = reward_model.calibration(predictions)
    assert set(points) == {"rv", "cd", "correct"} and len(points["correct"]) == 5
    assert points["correct"][0][1] < 0.2 < 0.8 < points["correct"][-1][1]
    with pytest.raises(StageError, match="too few"):
        reward_model.fit_reward_model(judged(12), tiny, tmp_path / "rm2")


def test_the_penalty_is_chosen_by_what_it_leaves_out():
    """Of many columns one says something: least squares would learn the noise of the others."""
    noise = torch.Generator().manual_seed(0)
    features = torch.randn(60, 50, generator=noise).double().numpy()
    target = features[:, 0] + 0.5 * torch.randn(60, generator=noise).double().numpy()
    fresh = torch.randn(500, 50, generator=noise).double().numpy()
    import numpy as np

    plain = np.linalg.lstsq(features, target, rcond=None)[0]
    ours = reward_model.ridge(features, target)
    assert np.abs(fresh @ ours - fresh[:, 0]).mean() < 0.8 * np.abs(fresh @ plain - fresh[:, 0]).mean()


SETTINGS = {
    "line": (3.0, 0.0),
    "steps": 3,
    "group": 4,
    "learning_rate": 1e-4,
    "gated": True,
    "seed": 0,
    "max_completion": 8,
}


@pytest.fixture(scope="module")
def graded(tiny, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("reward") / "rm"
    reward_model.fit_reward_model(judged(90), tiny, out)
    return str(out)


def test_grpo_logs_every_term_and_is_not_done_twice(tiny, graded, tmp_path, monkeypatch):
    """A random student writes noise; a term of its own gives it something to learn."""
    monkeypatch.setattr(grpo, "reward_terms", lambda text, *_, **__: dict.fromkeys(rewards.TERMS, len(text) % 7))
    weights = rewards.parse_weights("full")[0]
    result = grpo.grpo([PROBLEM] * 2, tiny, graded, tmp_path, weights=weights, **SETTINGS)
    log = read_csv(tmp_path / "rewards.csv")
    assert [row["step"] for row in log] == [1, 2, 3] and list(log[0]) == [field.name for field in fields(rewards.Step)]
    assert result.steps == 3 and result.completions == 24 and 0 < result.tokens <= 24 * 8
    assert log[0]["reward"] == pytest.approx(sum(weights[t] * log[0][t] for t in rewards.TERMS), abs=1e-3)
    assert result.reward_steps == 1 and result.reward_last == pytest.approx(log[2]["reward"], abs=1e-3)
    assert result.tokens_per_s > 0 and result.writing_s <= result.seconds
    assert json.loads((tmp_path / "reinforce.json").read_text())["result"] == result.to_dict()
    monkeypatch.setattr(grpo, "train", lambda *_, **__: pytest.fail("it was finished"))
    assert grpo.grpo([PROBLEM] * 2, tiny, graded, tmp_path, weights=weights, **SETTINGS) == result


def test_grpo_stops_where_nothing_can_be_learned(tiny, graded, tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "FIRST_STEPS", 2)
    monkeypatch.setattr(grpo, "reward_terms", lambda *_, **__: dict.fromkeys(rewards.TERMS, 0.0))
    with pytest.raises(StageError, match="same for all attempts in each of the first 2 steps"):
        grpo.grpo([PROBLEM] * 2, tiny, graded, tmp_path, weights=rewards.parse_weights("full")[0],
                       **SETTINGS)  # fmt: skip
    assert not (tmp_path / "reinforce.json").exists()


def test_grpo_without_problems_that_can_be_verified(tiny, graded, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "verifiable", lambda problem: False)
    with pytest.raises(StageError, match="0 of 2 problems can be verified, and GRPO takes 2 a step"):
        grpo.grpo([PROBLEM] * 2, tiny, graded, tmp_path, weights=rewards.parse_weights("full")[0],
                       **SETTINGS)  # fmt: skip


@pytest.mark.parametrize(("batch", "shown"), [("1", ""), ("0", "a bar")])
def test_bars_are_hidden_in_batch_runs_alone_and_failures_never(batch, shown, monkeypatch, capsys):
    monkeypatch.setenv("DISTIL_BATCH", batch)
    with pytest.raises(ValueError, match="no memory"), writing.without_bars():
        print("a bar", end="", file=sys.stderr)
        raise ValueError("no memory")
    assert capsys.readouterr().err == shown


def test_attempts_are_shared_out_evenly(monkeypatch):
    log = [step(tokens=10.0, reward=0.1, stuck=1.0), step(tokens=30.0, reward=0.5, stuck=0.5)]
    found = SimpleNamespace(**grpo.summary(log, attempts=16))
    assert (found.completions, found.tokens, found.stuck, found.length_ratio) == (32, 640, 1, 3.0)


def test_a_step_fits_the_gpu_beside_what_writes(tiny, monkeypatch):
    found = {}
    for gib in (4, 24, 80):
        monkeypatch.setattr(grpo.memory, "this_machine", lambda gib=gib: grpo.memory.Machine("cuda", "unsloth", gib))
        for_vllm = writing.vllm_gib(tiny)
        found[gib] = for_vllm, grpo.plan_learning(tiny, 128, 100_000, for_vllm, packed=False).micro_batch_size
    assert found[4][0] == pytest.approx(4 / 3), "no more than a third of it"
    assert found[24][0] == found[80][0] >= writing.VLLM_GIB, "a larger GPU needs no more"
    assert 1 <= found[4][1] < found[24][1] < found[80][1] == grpo.MAX_MICRO_BATCH["trl"]
    rows = grpo.plan_learning(tiny, 128, 100_000, for_vllm, packed=True).micro_batch_size
    assert rows == 128, "no padding, no logits"
