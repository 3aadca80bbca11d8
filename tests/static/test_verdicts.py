"""The pages' verdicts in words follow from the files: no gain is shown, cost accuracy, halves the tokens."""

import json

import pytest
from conftest import ROOT
from pages import PAGES, flat, shown

from distil.workspace.profiles import PROFILES

TEXT = flat(" ".join(PAGES.values()))


def result(name: str) -> dict:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def of(rows: list[dict], **wanted) -> dict:
    (row,) = (row for row in rows if wanted.items() <= row.items())
    return row


def test_no_judge_beats_the_shortest_chain():
    align = result("align")
    gains = {row["selection"]: row for row in align["minus_shortest"]}
    assert "No judge was shown to beat the plainest rule" in TEXT and all(shown(row) < 1 for row in gains.values())
    assert "cost three points, and every seed lost some" in TEXT
    assert round(100 * gains["student"]["difference"]) == -3 and max(gains["student"]["by_seed"]) < 0
    assert {name for name, row in gains.items() if shown(row)} == {"student"}
    assert "likely, and not shown by three seeds" in TEXT and shown(align["student-loop_minus_student"]) == 0
    assert len({row["seed"] for row in align["rows"]}) == 3 and len({row["n"] for row in align["rows"]}) == 1
    assert "no more than chance" in TEXT and align["judges"]["kappa"] <= 0


def test_preference_training_does_not_help_that_shows():
    prefer, unequal = result("prefer"), result("prefer_unequal")
    assert "Does preference training help? No gain is shown." in TEXT and not any(map(shown, prefer["minus_sft"]))
    assert len({row["seed"] for row in prefer["rows"]}) == 3
    assert "one seed of three learned length: half of its answers about triangles were cut off" in TEXT
    wordy = of(unequal["rows"], name="cogpo", seed=1)["families"]["simple_geometry"]
    assert 2 * wordy["cut_off"] == wordy["n"]
    for name in ("dpo", "cogpo"):
        assert sum(gap > 0 for gap in of(unequal["minus_sft"], name=name)["by_seed"]) == 2


def test_reinforcement_helps_and_its_other_terms_do_not_show():
    found, packed, reward = result("reinforce"), result("reinforce_packed"), result("reward")
    assert "It helped these checkpoints" in TEXT and all(shown(row) == 1 for row in found["minus_sft"])
    assert "points: no gain is shown" in TEXT and shown(of(found["minus_correctness"], name="full")) == 0
    assert shown(of(packed["minus_sft"], name="correctness")) == 1
    assert {row["seed"] for row in found["rows"]}.isdisjoint(row["seed"] for row in packed["rows"])
    trained = [row["grpo"] for row in found["rows"] if row["grpo"]]
    assert {(run["engine"], run["completions"]) for run in trained} == {("vllm", trained[0]["completions"])}
    rows = {(row["head"], row["predictor"]): row for row in reward["rows"]}
    assert "It has learned more than length, but from a coarse judge" in TEXT
    for head in ("rv", "cd", "correct"):
        assert rows[head, "model"]["spearman"] > rows[head, "length_only"]["spearman"]
        assert rows[head, "model"]["mae"] < rows[head, "length_only"]["mae"]


def test_a_teachers_distribution_helps_only_in_tokens():
    found = result("whitebox")
    gains, rows = ({row["name"]: row for row in found[key]} for key in ("minus_longer", "rows"))
    assert "halves this checkpoint's tokens, at an accuracy that the interval does not tell apart" in TEXT
    assert shown(gains["prompted"]) == 0 and shown(gains["whitebox"]) == shown(gains["on-policy"]) == -1
    assert rows["prompted"]["tokens_per_answer"] == pytest.approx(rows["longer"]["tokens_per_answer"] / 2, rel=0.15)


def test_the_adaptive_student_does_not_think_longer_where_it_is_harder():
    ratios = {row["name"]: row["harder_over_easy"] for row in result("adaptive")["ratios"]}
    assert "answers grow with the problem no less than the adaptive one's do" in TEXT
    assert ratios["fast"] >= ratios["adaptive"]


def test_what_is_said_of_several_gpus_and_of_students_side_by_side():
    rows = result("several_gpus")["rows"]
    fastest = {row["student"]: max(r["tokens_per_s"] for r in rows if r["student"] == row["student"]) for row in rows}
    packed = of(result("sft")["rows"][:1], name="ours")["tokens_per_s"]
    assert "What fits is trained faster on one, on packed rows" in TEXT
    assert packed > fastest["Qwen2.5-Coder-0.5B-Instruct"]
    assert "Two H200s learn what one does" in TEXT and result("several_gpus")["gpu"] == "NVIDIA H200"
    assert "another training used the GPU during the latter" in TEXT
    beside = result("side_by_side")
    assert beside["beside"].endswith("during the first row") and beside["rows"][0]["processes"] == 1


def test_the_sandbox_let_nothing_out():
    rows = result("sandbox")["rows"]
    assert [row["mechanism"] for row in rows] == ["bwrap", "sandlock"] and "hostile programs contained" in TEXT
    for row in rows:
        assert row["contained"] == row["programs"] == rows[0]["programs"] and row["harm"] == []
        assert row["humaneval_solutions_passed"] == row["humaneval_solutions"] and row["humaneval_empty_passed"] == 0


def test_published_scores_lie_within_our_intervals():
    for row in result("harness")["rows"]:
        assert row["ci"][0] <= row["published"] <= row["ci"][1] and row["weights"].startswith("4 bits")


def test_the_profiles_table_is_of_these_profiles_and_they_fit_their_cards():
    for row in result("profiles")["rows"]:
        asked, seen = PROFILES[row["profile"]], row["measured"]
        training = asked["04_finetune"]
        assert (row["method"], row["max_length"]) == (training["method"], training["max_length"])
        assert row["student"] == asked["all"]["student"]
        assert not seen or seen["peak_gib"] < row["gpu_gib"], "what is offered for a card fits it"


def test_two_measurements_of_one_client_are_one_claim():
    found = result("collect")
    assert (found["ratio"], found["ours_s"]) == (found["rows"][0]["ratio"], found["rows"][0]["ours_s"])
