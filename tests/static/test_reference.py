"""What docs/results.md says of the kept run: the whole claim, and verdicts that follow."""

import pytest
from pages import PAGES, flat, shown

from benchmarks.reference_run import claim
from benchmarks.texts.figures import reference

RUN = reference()
RESULTS = flat(PAGES["docs/results.md"])


def unsaid(run: dict, text: str) -> list[str]:
    """What a page has to say of a kept run, word for word, and does not."""
    wanted = [run["table"], "artifacts/reference/accuracy_tokens.png)", *run["sentences"], *run["claim"]["commits"]]
    return [words for words in wanted if flat(words) not in flat(text)]


def test_the_page_says_what_the_kept_run_says():
    assert unsaid(RUN, RESULTS) == []


@pytest.mark.parametrize("words", [*RUN["sentences"], *RUN["claim"]["commits"], flat(RUN["table"]).split(" |---|")[0]])
def test_a_page_that_leaves_it_out_is_found_out(words):
    assert len(unsaid(RUN, RESULTS.replace(words, ""))) >= 1


def test_the_verdicts_on_each_stage_follow_from_the_kept_files():
    against, greedy, students = RUN["claim"]["against"], RUN["greedy"]["gaps"], RUN["students"]
    over_fast = against["fast"]
    for words, follows in {
        "**The alignment of 03 cost this checkpoint accuracy.**": shown(over_fast["unaligned"]) == 1,
        "This checkpoint is no better than the base": shown(against["base"]["slow"]) <= 0,
        "Where answers are greedy it is worse": shown(greedy["slow"]["base"]) == -1,
        "with fewer tokens.": over_fast["unaligned"]["tokens_gain"] > 1,
        "No gain is shown.": shown(over_fast["preferred"]) == 0,
        "Its answers are longer": over_fast["preferred"]["tokens_gain"] < 1,
        "No student here is more often right": students["reinforced"]["accuracy"]
        == max(row["accuracy"] for name, row in students.items() if name != "teacher"),
        "in a quarter of its tokens": students["teacher"]["tokens_per_answer"]
        == pytest.approx(4 * students["reinforced"]["tokens_per_answer"], rel=0.1),
        "and longer ones": RUN["trained"]["fast"]["tokens_an_example"]
        > RUN["trained"]["unaligned"]["tokens_an_example"],
        "learned from equal tokens": RUN["trained"]["fast"]["tokens"]
        == pytest.approx(RUN["trained"]["slow"]["tokens"], rel=0.01),
        "We had hoped for 8 times fewer": against["slow"]["fast"]["seconds_gain"] < 8,
    }.items():
        assert words in RESULTS, words
        assert follows, words
    assert shown(greedy["unaligned"]["fast"]) == 0 and "Where answers are greedy, the difference is" in RESULTS


def test_a_run_that_asked_for_its_answers_itself_says_no_more_than_its_minutes():
    assert claim.sentences(RUN["claim"] | {"answered_before": 0, "minutes": 51.3})[-1] == "the whole took 51 minutes"
