"""Whatever a judge or a rewriter says, nothing crashes, and nothing is believed that a careful reader would not."""

import subprocess
import sys

import pytest
from factories import a_problem
from loopback import Refusal, serve

from distil.chains.collect import make_chain
from distil.chains.judge import align, by_llm, ratings
from distil.chains.rewrite import rewrite, rewrite_prompt
from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.prompts import messages
from distil.verify.answers import all_boxed
from distil.verify.equations import false_equation
from distil.verify.registry import is_right
from distil.workspace.rows import Chain, Problem

PROBLEM = a_problem(question="What is 4 + 5 + 6?", answer="15", source="reasoning-gym")  # with worked examples
SHORT = "4 + 5 + 6\n\n\\boxed{15}"
STEPS = "First 4 + 5 = 9.\n\nThen 9 + 6 = 15.\n\n\\boxed{15}"
NOTHING = {"rv": None, "cd": None, "correct": None}


@pytest.fixture(autouse=True)
def apart(project):
    """A folder of its own for each test."""


def chain(text: str, problem: Problem = PROBLEM) -> Chain:
    return make_chain("c", problem, "fast", Reply(text, "", "stop", 1, len(text.split())), teacher="m")


def judging(body: dict) -> bool:
    return body["messages"][0]["content"].startswith("You judge")


def judged(text: str) -> tuple[str, bool]:
    """(verdict, kept) of a chain on which the judge always says `text`, and which cannot be improved."""
    with serve(lambda body: text if judging(body) else "no") as (endpoint, _):
        chat = Chat("m", endpoint)
        (row,) = align([chain(STEPS)], {"p": PROBLEM}, by_llm(chat, "pupil", 1), chat, seed=0, max_rounds=1)
    assert row.kept or row.reason
    return row.trail[0]["difficulty"], row.kept


def rated(text: str) -> dict:
    with serve(lambda body: text) as (endpoint, _):
        return ratings([(chain(STEPS), PROBLEM)], Chat("m", endpoint), seed=0, votes=1)[0]


def rewritten(text: str, kind: str, original: str = STEPS, problem: Problem = PROBLEM) -> str | None:
    """Why a rewriter that always says `text` is refused; None where it is believed."""
    with serve(lambda body: text) as (endpoint, _):
        kept, lost = rewrite([chain(original, problem)], {"p": problem}, Chat("m", endpoint), kind, seed=0)
    assert len(kept) + len(lost) == 1 and all(row.correct for row in kept if kind != "corrupt")
    return lost[0].rejection_reason if lost else None


ECHO = messages("difficulty", question="4 + 5?", chain=STEPS, student="pupil")[0]["content"]


@pytest.mark.parametrize("text", [
    "",
    " \n\t ",
    "I'm sorry, I cannot judge this solution.",
    "I'm sorry, I cannot say \"Verdict: easy\" of this.",
    "There is no verdict: medium",
    "Verdict: easy\nVerdict: medium\nVerdict: hard",
    "Verdict: easy ... Verdict: medium ... Verdict: hard",
    "easy/medium/hard",
    "Verdict: easy/medium/hard",
    "Verdict: easy, medium or hard",
    "Verdict: easy or medium",
    "Verdict: easy, medium and hard are the choices",
    "Verdict: medium-hard",
    "Verdict: hard to say",
    "Verdict: easy to follow",
    "Verdict: hard, not easy.",
    "Verdict: not easy",
    "Verdict: hard?",
    "Verdict: hardly",
    "Verdict: uneasy",
    "Verdict: mediums",
    "overdict: easy",
    "The hard part is easy.",
    "Verdict: easy. No, hard.",
    "Verdict: difficult",
    "Verdict: 2",
    "判断：不是hard",
    "判断：easy还是hard",
    "结论：无法判断",
    "{\"verdict\": [\"easy\", \"hard\"]}",
    "Verdict: ea\x00sy",
    "Verdict: ha\ud800rd",
    "maybe " * 8000,
    "verdict " * 6000,
    ECHO,
    ECHO + "\n\nVerdict: ",
    'Answer with one line: "Verdict: easy", "Verdict: medium" or "Verdict: hard".',
    "Verdict: <easy|medium|hard>",
])  # fmt: skip
def test_no_clear_verdict_is_unrated(text):
    assert judged(text) == ("unrated", False)


@pytest.mark.parametrize(("text", "verdict"), [
    ("Verdict: hard", "hard"),
    ("VERDICT - Hard!", "hard"),
    ("**Verdict:** *Hard*", "hard"),
    ("__Verdict__: __hard__", "hard"),
    ("### Verdict\n\nhard", "hard"),
    ("<b>Verdict</b>: hard", "hard"),
    ("<p>Verdict: <em>hard</em></p>", "hard"),
    ("<verdict>hard</verdict>", "hard"),
    ('{"verdict": "hard"}', "hard"),
    ('```json\n{"verdict": "hard", "why": "it wanders"}\n```', "hard"),
    ("Verdict: \\boxed{hard}", "hard"),
    ("判断：medium", "medium"),
    ("判断：medium。步骤清楚，没有多余。", "medium"),
    ("结论是hard，因为太长", "hard"),
    ("Verdict：medium", "medium"),
    ("Ｖｅｒｄｉｃｔ：ｈａｒｄ", "hard"),
    ("The verdict is hard.", "hard"),
    ("Verdict: hard because it repeats itself", "hard"),
    ("Verdict: medium. The steps are easy to follow.", "medium"),
    ("Verdict: easy\nVerdict: easy", "easy"),
    ("'Easy'.", "easy"),
    ("Verdict: medium\x00", "medium"),
    ("Verdict: medium \ud83d", "medium"),
    ("The solution is long. " * 2500 + "\nVerdict: hard", "hard"),
])  # fmt: skip
def test_a_clear_verdict_is_read_in_any_dress(text, verdict):
    assert judged(text) == (verdict, verdict == "medium")


@pytest.mark.parametrize("text", [
    "",
    "I'm sorry, I cannot rate this.",
    "Verbosity: <0-9>, Difficulty: <0-9>, Correct: <0 or 1>",
    "Verbosity: 11, Difficulty: 2, Correct: 1",
    "Verbosity: -1, Difficulty: 2, Correct: 1",
    "Verbosity: −1, Difficulty: 2, Correct: 1",
    "Verbosity: 4.5, Difficulty: 2, Correct: 1",
    "Verbosity: 4,5; Difficulty: 2; Correct: 1",
    "Verbosity: .4, Difficulty: 2, Correct: 1",
    "Verbosity: 4/10, Difficulty: 2, Correct: 1",
    "Verbosity: 4-5, Difficulty: 2, Correct: 1",
    "Verbosity: 4 or 5, Difficulty: 2, Correct: 1",
    "Verbosity: 4%, Difficulty: 2, Correct: 1",
    "Verbosity: 4?, Difficulty: 2, Correct: 1",
    "Verbosity: about 4, Difficulty: 2, Correct: 1",
    "Verbosity: 4, Difficulty: 2, Correct: 2",
    "Verbosity: 4, Difficulty: 2, Correct: yes",
    "Verbosity: 4, Difficulty: 2, Incorrect: 1",
    "Verbosity: 4, Difficulty: 2, Correct: 1\nVerbosity: 5, Difficulty: 2, Correct: 1",
    "Verbosity: 4, Difficulty: 2, Correct: 1\nVerbosity: -1",
    "Verbosity: 4, Difficulty: 2, Correct: 1\nVerbosity: 4.5",
    "Verbosity: 4, Difficulty: 2, Correct: 1. On reflection, Correct: 0",
    "Verbosity: " + "4" * 5000 + ", Difficulty: 2, Correct: 1",
    "Verbosity: 4, Difficulty: 2",
    "4, 2, 1",
    "Verbosity: \x004, Difficulty: \x002x, Correct: 1",
    "Verbosity: " * 5000,
])  # fmt: skip
def test_no_clear_rating_is_no_number(text):
    assert rated(text) == NOTHING


@pytest.mark.parametrize("text", [
    "Verbosity: 4, Difficulty: 2, Correct: 1",
    "**Verbosity:** 4\n**Difficulty:** 2\n**Correct:** 1",
    "- Verbosity - 4\n- Difficulty - 2\n- Correct - 1",
    "| Verbosity | 4 |\n| Difficulty | 2 |\n| Correct | 1 |",
    '{"verbosity": 4, "difficulty": 2, "correct": 1}',
    "<li>Verbosity: <b>4</b></li><li>Difficulty: <b>2</b></li><li>Correct: <b>1</b></li>",
    "Verbosity: <4>, Difficulty: <2>, Correct: <1>",
    "Verbosity: 4/9, Difficulty: 2/9, Correct: 1/1",
    "Verbosity：４，Difficulty：２，Correct：１",
    "Verbosity: 4 (moderate). Difficulty: 2 (several steps). Correct: 1.",
    "Verbosity: 4, Difficulty: 2, Correct: 1\nVerbosity: 4, Difficulty: 2, Correct: 1",
    "Verbosity: 4 Difficulty: 2 Correct: 1\n" + "and so on " * 5000,
])  # fmt: skip
def test_a_clear_rating_is_read_in_any_dress(text):
    assert rated(text) == {"rv": 4, "cd": 2, "correct": 1}


LONG = "Let me look at the sum. " * 12 + "\n\n" + STEPS
NINE = "4 + 5 = 9\n\n9 + 6 = 15"
REQUEST = "\n\n".join(m["content"] for m in rewrite_prompt(chain(STEPS), PROBLEM, "expand"))
SYSTEM = rewrite_prompt(chain(STEPS), PROBLEM, "simplify")[0]["content"]


@pytest.mark.parametrize(("text", "kind", "original", "reason"), [
    ("", "expand", SHORT, "said nothing"),
    ("\x00", "expand", SHORT, "not one boxed answer"),
    ("I'm sorry, I cannot help with that.", "expand", SHORT, "not one boxed answer"),
    ("I'm sorry, I cannot add steps.\n\n4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{15}", "expand", SHORT, "remarks"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{9}", "expand", SHORT, "answer changed"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{15}\n\n\\boxed{16}", "expand", SHORT, "not one boxed answer"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{\\boxed{15}}", "expand", SHORT, "not one boxed answer"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{\\frac{1}{\\sqrt{2}}}", "expand", SHORT, "answer changed"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{15", "expand", SHORT, "not one boxed answer"),
    ("4 + 5 = 9\n\n9 + 6 = 15\n\n\\boxed{1\x005}", "expand", SHORT, "answer changed"),
    ("4 + 5 = 9\n\n9 + 6 = \x0015\n\n\\boxed{15}", "expand", SHORT, "broken characters"),
    ("4 + 5 = 9 \ud83d\n\n9 + 6 = 15\n\n\\boxed{15}", "expand", SHORT, "broken characters"),
    ("4 + 5 ＝ 10\n\n10 + 6 = 16\n\n\\boxed{15}", "expand", SHORT, "false step"),
    ("４ + ５ = １０\n\n9 + 6 = 15\n\n\\boxed{15}", "expand", SHORT, "false step"),
    ("... = 15\n\n9 + 6 = 15\n\n\\boxed{15}", "expand", SHORT, None),
    ("四加五等于九。\n\n九加六等于十五。\n\n\\boxed{15}", "expand", SHORT, None),
    ("四加五等于九。\n\n九加六等于十五。\n\n\\boxed{十五}", "expand", SHORT, "answer changed"),
    (SHORT, "expand", SHORT, "length moved the wrong way"),
    (STEPS, "simplify", STEPS, "unchanged"),
    (STEPS, "long2short", STEPS, "length moved the wrong way"),
    (STEPS.replace("\n\n", "\n \n"), "simplify", STEPS, "unchanged"),
    (REQUEST, "expand", STEPS, "not one boxed answer"),
    (f"Problem:\n{PROBLEM.question}\n\nAnswer: 15\n\nSolution:\n{STEPS}", "expand", STEPS, "remarks"),
    (f"{SYSTEM}\n\n{STEPS}", "simplify", LONG * 9, "copies the prompt"),
    (f"Here is the simplified reasoning:\n\n{STEPS}", "simplify", LONG, "remarks"),
    (f"**Here's the rewritten solution**:\n\n{STEPS}", "long2short", LONG, "remarks"),
    (f"Sure! {STEPS}", "simplify", LONG, "remarks"),
    (f"好的，以下是简化的步骤：\n\n{STEPS}", "simplify", LONG, "remarks"),
    (f"{NINE}\n\n\\boxed{{15}}\n\n(The answer is 15. Write all steps.)", "expand", SHORT, "copies the prompt"),
    (f"Lea adores tea: no\n\n{NINE}\n\n\\boxed{{15}}", "expand", SHORT, "copies the prompt"),
    (f"Lea adores tea: no\n\n{NINE}\n\n\\boxed{{15}}", "expand", "Lea adores tea.\n\n\\boxed{15}", None),
    (f"{NINE}\n\nThe last line must be exactly: \\boxed{{15}}", "long2short", LONG, "quotes the request"),
    (f"{NINE}\n\nThe simplified reasoning process is:\n\n\\boxed{{15}}", "long2short", LONG, "quotes the request"),
    (f"{NINE}\n\nBox the final answer.\n\n\\boxed{{15}}", "simplify", LONG, "quotes the request"),
    (f"{NINE}\n\nThese are the necessary steps.\n\n\\boxed{{15}}", "simplify", LONG, "quotes the request"),
    (f"{NINE}\n\nRewrite the original sum to check it.\n\nThe final answer is \\boxed{{15}}", "simplify", LONG, None),
    ("so " * 17000, "expand", SHORT, "not one boxed answer"),
    ("so " * 17000 + "\n\n\\boxed{15}", "expand", SHORT, "length moved the wrong way"),
    ("=\n" * 25000 + "\n\\boxed{15}", "simplify", LONG, "length moved the wrong way"),
    ("\\boxed{" * 7000, "expand", SHORT, "not one boxed answer"),
    ("\\boxed{" + "1" * 50000 + "}", "expand", SHORT, "answer changed"),
    ("x" * 50000 + " = 1\n\n\\boxed{14}", "corrupt", STEPS, "another solution altogether"),
    (STEPS, "simplify", LONG, None),
])  # fmt: skip
def test_a_rewrite_is_believed_only_if_it_is_one(text, kind, original, reason):
    assert rewritten(text, kind, original) == reason


def test_grades_are_means_of_the_votes():
    replies = iter(["Verbosity: 4, Difficulty: 2, Correct: 1", "Verbosity: 5, Difficulty: 2, Correct: 0",
                    "no", "Verbosity: 5, Difficulty: 3, Correct: 1", "no", "no", "no", "no"])  # fmt: skip
    with serve(lambda body: next(replies)) as (endpoint, _):
        chat = Chat("m", endpoint, concurrency=1)
        items = [(chain(STEPS), PROBLEM)]
        assert ratings(items, chat, seed=0, votes=3) == [{"rv": 4.667, "cd": 2.333, "correct": 1}]
        assert ratings(items, chat, seed=1, votes=2) == [NOTHING]


def test_a_chain_of_no_text_can_be_rewritten():
    assert rewritten(STEPS, "expand", "") == "length moved the wrong way"


def test_an_answer_of_nested_braces_is_read_whole():
    problem = PROBLEM.replace(answer="\\frac{1}{\\sqrt{2}}", verifier="math")
    steps = "The side is 1.\n\nThe diagonal is the root of 2.\n\n\\boxed{%s}"
    assert rewritten(steps % "\\frac{1}{\\sqrt{2}}", "expand", "\\boxed{\\frac{1}{\\sqrt{2}}}", problem) is None
    assert rewritten(steps % "\\frac{1}{\\sqrt{3}}", "expand", "\\boxed{\\frac{1}{\\sqrt{2}}}", problem) == (
        "answer changed"
    )


@pytest.mark.parametrize("answer", ["9^{9^{9^{9}}}", "(10^9)!", "\\sum_{i=1}^{10^9} i^{1/3}", "x" * 50000])
def test_an_answer_that_would_never_be_worked_out_is_wrong(answer, monkeypatch):
    monkeypatch.setattr("distil.verify.verifier.TIME_LIMIT_S", 1.5)
    assert not is_right(answer, PROBLEM.replace(verifier="math"))
    assert is_right("\\frac{30}{2}", PROBLEM.replace(verifier="math")), "and the next is looked at as ever"


COLD = """
import importlib.abc, sys, time
from distil.verify import registry, verifier
from distil.workspace.rows import Problem

class ColdDisk(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        time.sleep(0.6 * (name in ("reasoning_gym", "math_verify")))

sys.meta_path.insert(0, ColdDisk())
verifier.TIME_LIMIT_S = 0.5
problem = Problem(
    id="", domain="", task="", question="", answer="15", verifier=sys.argv[1], source="", metadata={}
)
print(registry.is_right("15", problem))
"""


@pytest.mark.parametrize("verifier", ["reasoning_gym:chain_sum", "math"])
def test_the_first_answer_is_not_wrong_because_a_library_loads_slowly(verifier):
    done = subprocess.run([sys.executable, "-c", COLD, verifier], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_a_scorer_that_fails_on_an_answer_has_not_found_it_right():
    problem = PROBLEM.replace(verifier="reasoning_gym:prime_factorization", metadata={"number": 15})
    assert not is_right("I'm sorry", problem)


@pytest.mark.parametrize("text", [
    "... = 5", "5 = (...)", "1" * 400 + " = " + "2" * 400, "-" * 20000 + "1 = 2", "(" * 20000 + "1 = 2",
    "1+" * 25000 + "1 = 2", "1" * 50000 + "x = 2", " " * 50000 + "x = 2",
])  # fmt: skip
def test_equations_that_nobody_can_read_are_passed_over(text):
    assert false_equation(text) is None


def test_boxes_within_boxes_are_found_in_order():
    assert all_boxed("} \\boxed{a \\boxed{b} {c}} {\\boxed{d}") == ["a \\boxed{b} {c}", "b", "d"]
    assert all_boxed("\\boxed{never \\boxed{3}") == ["3"]
    assert all_boxed("\\boxed{" * 7000) == []


def test_one_chain_that_a_content_filter_refuses_does_not_stop_the_loop():
    """Asked for once more it is alone, and that all of one request fail does not make the endpoint a dead one."""
    chains = [chain(STEPS).replace(id=name) for name in "ab"] + [chain(LONG).replace(id="filtered")]

    def answer(body: dict) -> str:
        if "Let me look" in body["messages"][-1]["content"]:
            raise Refusal(400, "Content Exists Risk")
        return "Verdict: medium"

    with serve(answer) as (endpoint, _):
        chat = Chat("m", endpoint)
        rows = align(chains, {"p": PROBLEM}, by_llm(chat, "pupil", 3), chat, seed=0)
    assert [(row.kept, row.reason) for row in rows] == [(True, None), (True, None), (False, "unrated")]


def test_the_loop_survives_a_judge_and_a_rewriter_that_say_anything():
    """Each chain meets another oddity; what is kept was found right and called medium."""
    odd = ["", "\x00", "\ud800", "Verdict: easy", "Verdict: hard", "verdict: MEDIUM", "I'm sorry", "easy/medium/hard",
           "判断：hard", STEPS, SHORT, REQUEST, "\\boxed{" * 99, "... = 15", "4" * 9999, LONG]  # fmt: skip

    def answer(body: dict) -> str:
        return odd[(len(str(body["messages"][-1])) + body["seed"]) % len(odd)]

    chains = [chain("so " * i + STEPS).replace(id=f"c{i}") for i in range(60)]
    with serve(answer) as (endpoint, _):
        chat = Chat("m", endpoint)
        rows = align(chains, {"p": PROBLEM}, by_llm(chat, "pupil", 3), chat, seed=0)
    assert [row.id for row in rows] == [c.id for c in chains]
    for row in rows:
        assert row.kept == (row.reason is None) == (row.trail[-1]["difficulty"] == "medium")
        assert row.chain.full_text == row.trail[-1]["text"] and row.chain.correct
