"""Several training seeds of a student: what it is called, and tables that go by recipe, on answers made by hand."""

import json
import shutil
from dataclasses import fields

import pytest
import small_run
from scipy.stats import norm, t

from benchmarks.reference_run import claim
from distil.evaluate import metrics, recheck, recipes, seen, tables
from distil.models import published, serve
from distil.pipeline import preflight
from distil.publish import facts, upload
from distil.train import own_rows, sft
from distil.workspace import plots
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv, read_jsonl, write_jsonl
from distil.workspace.rows import Completion, Problem
from distil.workspace.stage import Stage, run_folder
from distil.workspace.students import check, home, recipe_of, seed_of


def rows(right: str, n_tokens: int = 10) -> list[Completion]:
    """Answers: `10 11` are two to a first question, the first of which is right, and two to a second, both right."""
    made = {"text": "", "n_tokens": n_tokens, "finish_reason": "stop", "seconds": 0.5}
    return [
        Completion(id=str(q), sample=s, correct=c == "1", answer=c, **made)
        for q, answers in enumerate(right.split())
        for s, c in enumerate(answers)
    ]


@pytest.mark.parametrize(("name", "recipe", "seed", "where"), [
    ("fast", "fast", 7, "04_finetune/fast"), ("fast@1", "fast", 1, "04_finetune/fast@1"),
    ("fast@0", "fast", 0, "04_finetune/fast@0"), ("preferred@1", "preferred", 1, "05_prefer/preferred@1"),
    ("reinforced", "reinforced", 7, "06_reinforce/reinforced"),
])  # fmt: skip
def test_a_name_says_recipe_and_seed(name, recipe, seed, where):
    assert (recipe_of(name), seed_of(name, 7), home(name)) == (recipe, seed, where)
    check([name], 7)


@pytest.mark.parametrize(
    "name", ["fast@x", "@1", "fast@0@1", "base@1", "teacher@1", "fast@", "fast@01", "fast@-1", "fast@1234567890", ""]
)
def test_names_that_no_student_has(name):
    with pytest.raises(StageError, match="student '"):
        check(["slow", name])
    if name:
        with pytest.raises(StageError, match="student '"):
            published.check(f"base,{name}", "transformers:8")


def test_one_checkpoint_is_not_counted_as_two_seeds():
    check(["fast", "fast@1"], 0)
    with pytest.raises(StageError, match="'fast@1': 1 is the run's own seed"):
        check(["fast", "fast@1"], 1)


def test_folders_and_published_students_have_no_seed():
    assert recipe_of("/mnt/me@home/model") == "/mnt/me@home/model" and check(["me/x@1"]) is None
    with pytest.raises(StageError, match="was published, and has no seed"):
        published.check(f"{next(iter(published.published()))}@1", "transformers:8")
    with pytest.raises(StageError, match="letters, digits"):
        own_rows.student_name("mine@1", "mine.jsonl")


@pytest.fixture
def values() -> dict:
    return {
        "04_finetune": {"students": "fast,fast@1", "seed": 0, "train": ""},
        "05_prefer": {"start_from": "fast@1"},
        "06_reinforce": {"start_from": "fast"},
        "07_eval": {"students": "base,fast,fast@1,me/x@2"},
        "01_collect": {"slow_teacher": "m", "chains": ""},
    }


def test_what_no_stage_will_make_is_found_before_the_first(values):
    preflight.check_students(list(values), values)
    for stage, name, given, said in (
        ("07_eval", "students", "base,fast@2", "07_eval.students names fast@2, which no stage will make"),
        ("06_reinforce", "start_from", "slow@1", "06_reinforce.start_from names slow@1"),
        ("04_finetune", "students", "fast,fast@0", "0 is the run's own seed"),
    ):
        with pytest.raises(StageError, match=said):
            preflight.check_students(list(values), values | {stage: values[stage] | {name: given}})
    values["01_collect"]["slow_teacher"] = "none"
    values["04_finetune"]["students"] = "fast,fast@1,slow@1"
    with pytest.raises(StageError, match="slow_teacher=none leaves no chains"):
        preflight.check_students(list(values), values)


# three seeds of one recipe, of which 2, 4 and 3 of 4 answers are right: 1/2, 1, 3/4; on the questions 5/6, 2/3
SEEDS = {"fast": rows("11 00", 10), "fast@1": rows("11 11", 20), "fast@2": rows("10 11", 60)}


def test_a_row_over_three_seeds_by_hand():
    (row,) = metrics.results(SEEDS)
    assert (row["student"], row["n"], row["samples"]) == ("fast", 2, 2)
    assert row["accuracy"] == 0.75 and row["tokens_per_answer"] == 30 and row["tokens_median"] == 20
    assert (row["seeds"], row["by_seed"]) == (3, "0.5 1 0.75") and [*row][-2:] == ["seeds", "by_seed"]
    assert row["pass_at_k"] == pytest.approx((1 / 2 + 1 + 1) / 3, abs=1e-4)
    assert row["majority_at_k"] == pytest.approx((1 / 2 + 1 + 3 / 4) / 3, abs=1e-4), "10 is a draw"
    few = {name: [row.replace(id=f"{i}-{row.id}") for i in range(50) for row in of] for name, of in SEEDS.items()}
    (row,) = metrics.results(few)
    questions = metrics.interval([5 / 6, 2 / 3] * 50)
    of_questions, of_seeds = ((questions[1] - questions[0]) / (2 * norm.ppf(0.975))) ** 2, 0.0625 / 3
    half = t.ppf(0.975, 2 * (1 + of_questions / of_seeds) ** 2) * (of_seeds + of_questions) ** 0.5
    assert (row["ci_low"], row["ci_high"]) == (pytest.approx(0.75 - half, abs=1e-4), 1.0), "cut at 1"


def test_seeds_that_agree_are_no_surer_than_their_questions():
    alike = {name: rows("0 0 0 0") for name in ("fast", "fast@1", "fast@2")}
    (row,), (alone,) = metrics.results(alike), metrics.results({"fast": alike["fast"]})
    assert (row["ci_low"], row["ci_high"]) == (alone["ci_low"], alone["ci_high"]) and row["ci_high"] > 0.4


def test_without_seeds_in_names_all_is_as_it_was(tmp_path):
    answers = {"base": rows("10 00"), "fast": rows("11 01")}
    assert metrics.results(answers) == [metrics.summarise(name, answers[name]) for name in answers]
    written = metrics.write_results(metrics.results(answers), metrics.by_checkpoint(answers), tmp_path)
    assert sorted(written) == sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.md"]
    assert tables.gaps(metrics.differences(answers, 0))[1][0][2].endswith(", of these checkpoints")
    assert metrics.curves(answers) == {name: metrics.curve(answers[name]) for name in answers}
    assert recipes.pooled(answers) == answers


def test_each_checkpoint_has_its_row_beside(tmp_path):
    answers = {"base": rows("10 00"), **SEEDS}
    results = metrics.results(answers)
    assert "by_checkpoint.csv" in metrics.write_results(results, metrics.by_checkpoint(answers), tmp_path)
    found = read_csv(tmp_path / "by_checkpoint.csv")
    assert [(r["student"], r["accuracy"]) for r in found] == [
        ("base", 0.25),
        ("fast", 0.5),
        ("fast@1", 1),
        ("fast@2", 0.75),
    ]
    assert [r["seeds"] for r in read_csv(tmp_path / "results.csv")] == [1, 3]
    table = (tmp_path / "results.md").read_text()
    assert "| base | " in table and "| fast (3 seeds) | 75.0% (" in table and "@" not in table
    assert [line[0] for line in tables.results(results)[1]] == ["base", "fast (3 seeds)"]
    alone = {"base": rows("10 00"), "fast@1": SEEDS["fast@1"]}
    assert metrics.write_results(metrics.results(alone), metrics.by_checkpoint(alone), tmp_path)[2:], (
        "named by its seed"
    )


def test_differences_are_of_the_seeds_that_both_have():
    slow = {"slow": rows("10 00", 100), "slow@2": rows("11 10", 80), "slow@3": rows("00 00", 9)}
    answers = {"base": rows("00 00", 15), **SEEDS, **slow, "reinforced": rows("11 11", 5)}
    gaps = {(g["of"], g["to"]): g for g in metrics.differences(answers, 0)}
    assert recipes.paired(answers, "fast", "slow") == [("fast", "slow"), ("fast@2", "slow@2")]
    both = gaps["fast", "slow"]
    assert both["seeds"] == 2 and both["by_seed"] == [0.25, 0] and both["difference"] == 0.125
    assert both["tokens_ratio"] == round(90 / 35, 4), "of the seeds that both have"
    assert both["ci_low"] < both["over_questions"][0]
    base = gaps["fast", "base"]
    assert base["seeds"] == 3 and base["by_seed"] == [0.5, 1, 0.75] and base["tokens_ratio"] == 0.5
    assert "seeds" not in gaps["reinforced", "base"] and gaps["reinforced", "base"]["tokens_ratio"] == 3
    shown = tables.gaps([both, gaps["reinforced", "base"]])[1]
    assert shown[0][2].endswith(", over 2 seeds and questions") and shown[1][2].endswith(", of these checkpoints")
    assert shown[1][3] == "3.0x"
    assert metrics.differences({"fast@1": SEEDS["fast@1"], "slow@2": slow["slow@2"]}, 0) == [], "nothing to compare"
    assert recipes.paired(answers | {"me/x": []}, "me/x", "fast") == [("me/x", name) for name in SEEDS]
    assert recipes.paired(answers, "reinforced", "fast") == [("reinforced", "fast")], "made of the run's own seed"


def test_curves_and_pictures_go_by_recipe(tmp_path):
    answers = {"base": rows("10 00"), **SEEDS}
    assert metrics.curves(answers)["fast"] == [
        (1, pytest.approx(0.75), pytest.approx(0.75)),
        (2, pytest.approx(2.5 / 3), pytest.approx(0.75)),
    ]
    plots.accuracy_tokens(metrics.results(answers), metrics.by_checkpoint(answers), tmp_path / "x")
    drawn = read_csv(tmp_path / "x.csv")
    assert [r["student"] for r in drawn] == ["base", "fast", *["a seed of fast"] * 3]
    assert [r["accuracy"] for r in drawn[2:]] == [50, 100, 75] and drawn[2]["tokens_per_answer"] == 10
    problems = [Problem(id=i, domain="math", task=i, question="", answer="", verifier="exact", source="") for i in "01"]
    assert tables.families(recipes.pooled(answers), problems)[1] == [["0", "1", "50%", "83%"], ["1", "1", "0%", "67%"]]
    assert plots.colour("fast@1", 0) == plots.colour("fast", 5)


STUDENTS = "base,slow,fast,slow@1,fast@1,reinforced"


@pytest.fixture
def several(home):
    """A run whose fast and slow were measured with two seeds; the second is the first one's weights."""
    stage = Stage("r", "04_finetune", **json.loads((run_folder("r") / "04_finetune/meta.json").read_text())["params"])
    for name in ("fast@1", "slow"):
        shutil.copytree(stage.folder / "fast", stage.path(name))
    stage.path("fast"), stage.params.update(students="fast,slow,fast@1")
    stage.finish(**{f"{name}_{key}": n for name in ("fast", "fast@1") for key, n in (
        ("examples", 50), ("tokens", 12114), ("tokens_per_s", 3441.1))})  # fmt: skip
    small_run.measure("r", "held-out", STUDENTS)
    return run_folder("r")


def test_a_card_is_about_one_checkpoint(several):
    each = {row["student"]: row for row in read_csv(several / "07_eval/by_checkpoint.csv")}
    (row,) = (row for row in read_csv(several / "07_eval/results.csv") if row["student"] == "fast")
    assert each["fast"]["accuracy"] != each["fast@1"]["accuracy"] != row["accuracy"], "so that they can be told apart"
    for name in ("fast", "fast@1"):
        planned = upload.plan("r", name, "me/tiny", STUDENTS)[0]
        right = f"{each[name]['accuracy']:.1%}"
        assert f"| {name} | {right} (" in planned.card and f"{right} of its answers were right" in planned.card
        assert f"value: {each[name]['accuracy']}" in planned.card and "seeds)" not in planned.card
        assert "Differences\nare between recipes" in planned.card and "- fast minus slow: " in planned.card
        assert ("the seed in its name" in planned.card) == (name == "fast@1")
        assert "results/by_checkpoint.csv" in [file for file, _ in planned.files]
    assert facts.unbacked(f"intro\n\n| fast@1 | {row['accuracy']:.1%} |", facts.read("r")) != []
    assert upload.push("r", "fast@1", "me/tiny", dry_run=True) == 0
    (several / "07_eval/by_checkpoint.csv").write_text("student,accuracy\nfast@1,0.99\n")
    with pytest.raises(StageError, match="by_checkpoint.csv of run 'r' was changed"):
        facts.read("r")


def test_verify_and_the_claim_go_by_recipe(several, monkeypatch):
    place = several / "07_eval"
    assert claim.students(place) == STUDENTS.split(",") and recheck.recheck(place, STUDENTS.split(",")) == []
    monkeypatch.setattr(claim, "costs", lambda folder: [{"commit": "", "minutes": 1, "peak_vram_gb": 0}])
    shutil.copytree(several / "01_collect", place / "01_collect")
    (place / "about.json").write_text('{"asked_of_teacher": null}')
    said = claim.claim(place)
    (gap,) = (g for g in read_jsonl(place / "differences.jsonl") if (g["of"], g["to"]) == ("fast", "slow"))
    shown = said["against"]["slow"]["fast"]
    assert shown["seeds"] == 2 and shown["ci_low"] == round(gap["ci_low"], 6) and len(shown["by_seed"]) == 2
    row = {row["student"]: row for row in read_csv(place / "results.csv")}
    assert said["recovered"]["fast"]["fast"] == round(row["fast"]["accuracy"] / 0.75, 4)
    assert said["problems"] == 16 and said["ended"]["of"] == 32 and "fast@1" not in said["against"]["base"]
    told = claim.sentences(said)
    assert any("over seeds and questions" in text and "two training seeds each" in text for text in told)
    assert any(text.startswith("reinforced minus fast: ") and text.endswith(", one training seed") for text in told)
    assert any(text.startswith("fast minus base: ") and text.endswith(")") for text in told)
    change = (place / "by_checkpoint.csv").read_text().replace("fast@1,16,0.", "fast@1,16,0.9")
    (place / "by_checkpoint.csv").write_text(change)
    assert recheck.recheck(place, STUDENTS.split(",")) == [
        f"{place / 'by_checkpoint.csv'}: is not what the answers give"
    ]


def test_a_server_has_every_seed_under_its_name(several):
    words = serve.command("r", [])
    modules = words[words.index("--lora-modules") + 1 :]
    assert f"fast@1={several / '04_finetune/fast@1'}" in modules and len(modules) == 4


def test_what_another_seed_was_trained_on_counts_as_seen(home):
    rows = [{"instruction": "", "output": "", "messages": [], "problem_id": "0"}]
    for name in ("fast", "slow"):
        write_jsonl(run_folder("r") / f"03_judge/train/{name}.jsonl", [])
    write_jsonl(run_folder("r") / "03_judge/train/adaptive.jsonl", rows)
    problems = read_jsonl(run_folder("r") / "01_collect/problems.jsonl", Problem)
    stage = Stage("r", "07_eval")
    for names, found in ((["fast@1"], set()), (["adaptive@1"], {problems[0].question})):
        assert seen.questions(stage, problems, names, {"students": "fast"}) == found


@pytest.mark.parametrize(("name", "given", "seed"), [("fast@3", "0", 3), ("fast", "5", 5)])
def test_several_gpus_train_the_student_that_the_notebook_names(home, monkeypatch, capsys, name, given, seed):
    asked = {}

    def trained(rows, valid, student, out, **settings):
        asked.update(rows=len(rows), out=out, seed=settings["seed"])
        names = [field.name for field in fields(sft.SFTResult) if field.name != "extra"]
        return sft.SFTResult(**dict.fromkeys(names, 0))

    monkeypatch.setattr(sft, "sft", trained)
    known = ["--student", "s", "--learning-rate", "1", "--max-length", "9", "--method", "lora", "--seed", given]
    sft.main(["r", name, *known])
    assert asked == {"rows": 12, "out": run_folder("r") / "04_finetune" / name, "seed": seed}
    with pytest.raises(SystemExit, match="student 'fast@x'"):
        sft.main(["r", "fast@x", *known])
