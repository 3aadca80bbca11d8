"""What README.md and docs/results.md say of students compared like with like follows from the kept answers."""

import pytest
from pages import PAGES, flat, shown

from benchmarks import effort
from benchmarks.gathered import gather
from benchmarks.reference_run.claim import answers, students
from benchmarks.texts.figures import RESULTS, gathered
from benchmarks.texts.tables import fairly
from distil.evaluate import recheck
from distil.workspace.errors import StageError
from distil.workspace.files import write_jsonl, write_text
from distil.workspace.rows import Completion

FAIR, FOLDER = gathered("gpu80"), RESULTS / "gpu80"
README, PAGE = flat(PAGES["README.md"]), flat(PAGES["docs/results.md"])
BRIEF = ("shortest", "fast", "adaptive", "surprise", "random")


def test_both_pages_show_the_whole_table():
    assert flat(fairly("gpu80")) in README and flat(fairly("gpu80")) in PAGE
    assert all(f"`{name}`" in README for name in FAIR["students"] if name != "teacher")


def test_the_verdicts_follow_from_the_kept_files():
    against, of = FAIR["against"], FAIR["students"]
    tokens = {name: row["tokens_per_answer"] for name, row in of.items()}
    lost = {family: row["shortest"] - row["slow"] for family, row in FAIR["families"].items()}
    others = [name for name in BRIEF if name != "shortest"]
    for words, follows in {
        "No rule of choosing chains beat the shortest": not any(shown(against["shortest"][name]) for name in others),
        "and brought no measurable gain in accuracy": shown(against["shortest"]["fast"]) == 0,
        "judging chains for the student cost tokens": tokens["fast"] > tokens["shortest"],
        "all write more": all(tokens[name] > tokens["shortest"] for name in others),
        "It is better than the base here": shown(against["base"]["slow"]) == 1,
        "slow loses most on sums of decimals": sorted(lost, key=lost.__getitem__)[-2:]
        == ["simple_geometry", "decimal_chain_sum"],
        "It wins only where legs of animals are counted": [name for name in lost if lost[name] < 0] == ["leg_counting"],
        "We had hoped for six times with `fast`": against["slow"]["fast"]["tokens_ratio"] < 6,
    }.items():
        assert words in README + PAGE, words
        assert follows, words
    assert all(shown(against["slow"][name]) == 1 for name in BRIEF), "brief chains are better than slow ones"


def test_the_verdict_on_effort_follows_from_the_answers():
    kept = FAIR["effort"]
    again = effort.effort(answers(FOLDER))
    assert again["students"] == kept["students"] and again["minus"] == kept["minus"]
    of, minus = kept["students"], kept["minus"]
    assert "Yes, and so does every student of brief chains" in PAGE
    assert all(of[name]["ci_low"] > 0 for name in BRIEF) and all(minus[name]["slow"]["ci_low"] > 0 for name in BRIEF)
    assert "That adaptive's answers grow faster than fast's is not shown" in PAGE
    assert minus["adaptive"]["fast"]["ci_low"] < 0 < minus["adaptive"]["fast"]["slope"]


def test_students_who_write_alike_everywhere_have_no_slope_and_those_who_double_have_one():
    problems = [f"p{number}" for number in range(40)]

    def student(tokens) -> list[Completion]:
        return [
            Completion(id=id, text="", n_tokens=tokens(number / 39), correct=number < 20, finish_reason="stop",
                       seconds=None, answer=None)
            for number, id in enumerate(problems)
        ]  # fmt: skip

    given = {"base": student(lambda _: 64), "fast": student(lambda hard: round(64 * 2 ** (2 * (hard > 0.5))))}
    found = effort.effort(given)["students"]
    assert found["base"]["slope"] == 0 and found["fast"]["slope"] == pytest.approx(2)


def test_slopes_are_set_against_those_of_the_same_seed():
    given = answers(FOLDER)
    apart = {name: rows for name, rows in given.items() if name not in ("fast", "adaptive@1", "adaptive@2")}
    assert effort.effort(apart)["minus"].get("adaptive", {}).keys() == {"slow"}, "seed 0 against seeds 1 and 2"


def test_students_differ_by_their_chains_alone():
    assert {row["seeds"] for name, row in FAIR["students"].items() if name not in ("base", "teacher")} == {3}
    assert len({row["examples"] for row in FAIR["trained"].values()}) == 1
    assert FAIR["asked"]["samples"] == 1 and FAIR["asked"]["sampling"] == "greedy"


@pytest.mark.parametrize("run", ["gpu80", "cpu3"])
def test_tables_follow_from_the_kept_answers(run, tmp_path):
    kept = RESULTS / run
    problems, names = recheck.rows(kept / "problems.jsonl", recheck.Problem), students(kept)
    given = {name: recheck.stored(kept / f"completions/{name}.jsonl", problems, 1) for name in names}
    recheck.headless()
    write_text(tmp_path / "asked.json", (kept / "asked.json").read_text(encoding="utf-8"))
    recheck.work_out(given, problems, tmp_path, seed=gathered(run)["asked"]["seed"], samples=1)
    for name in ("results.csv", "results.md", "by_checkpoint.csv", "differences.jsonl", "tokens.csv"):
        assert recheck.numbers(tmp_path / name) == recheck.numbers(kept / name), name


def test_the_small_students_verdicts_follow_from_the_kept_files():
    seeds = gathered("cpu3")
    assert flat(fairly("cpu3")) in PAGE and "at equal training tokens" in README
    assert (
        seeds["stages"]["04_finetune"]["params"]["train_tokens"]
        and not seeds["stages"]["04_finetune"]["params"]["epochs"]
    )
    assert {row["seeds"] for name, row in seeds["students"].items() if name != "base"} == {3}
    assert "none is shown to be better than the shortest" in PAGE
    assert not any(shown(seeds["against"]["shortest"][name]) == 1 for name in ("fast", "surprise"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "shortest"])
def test_kept_answers_count_as_the_verifiers_find_them(name):
    problems = recheck.rows(FOLDER / "problems.jsonl", recheck.Problem)
    given = recheck.stored(FOLDER / f"completions/{name}.jsonl", problems, 1)
    assert recheck.judge_again(given, problems, 1) == []


def test_measurements_of_another_kind_are_not_put_together(tmp_path):
    for number, question in enumerate(("1 + 1", "1 + 2")):
        folder = tmp_path / str(number)
        write_text(folder / "asked.json", '{"params": {"students": "base"}, "samples": 1, "seed": 0}')
        row = recheck.rows(FOLDER / "problems.jsonl")[0] | {"question": question}
        write_jsonl(folder / "problems.jsonl", [row])
    with pytest.raises(StageError, match="other problems, words or settings"):
        gather("gpu80", [tmp_path / "0", tmp_path / "1"])
