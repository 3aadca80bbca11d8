"""Results in pages and notebooks come from files: a template that holds one itself is refused."""

import ast
import json
import re

import pytest
from conftest import ROOT
from jinja2 import Environment, nodes
from pages import PAGES, RESULT, flat, told, unbacked

from distil.evaluate.suites import TEMPERATURE
from distil.publish.facts import LEVEL

TEMPLATES = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "src").glob("*.md.j2"))}
BY_HAND = {name: text for name, text in PAGES.items() if not text.startswith("<!-- Made by")}
NO_RESULTS = {  # what is no result of a measurement
    f"({LEVEL} CI)", f"intervals are at {LEVEL}", f"the interval is at {LEVEL}", f"at {LEVEL}, by a paired bootstrap",
    "Python 3.11 or 3.12", "Linux 6.12", "it takes torch 2.11", f"{TEMPERATURE} where several answers are sampled",
}  # fmt: skip


def literals(template: str) -> list[str]:
    """The results that a template holds itself: in its text, or as values within its expressions."""
    found = []
    for node in Environment().parse(template).find_all(nodes.Const):
        value = node.value
        if isinstance(value, float) or (type(value) is int and value > 9):
            found.append(str(value))
        elif isinstance(value, str):
            found += RESULT.findall(value)
    text = re.sub(r"\{%.*?%\}", " ", template, flags=re.DOTALL)
    return found + unbacked(re.sub(r"\{\{.*?\}\}", "FIGURE", text, flags=re.DOTALL), NO_RESULTS)


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_holds_a_result_itself(name):
    assert literals(TEMPLATES[name]) == []


@pytest.mark.parametrize("name", BY_HAND)
def test_no_page_without_a_template_holds_a_result(name):
    assert unbacked(BY_HAND[name], NO_RESULTS) == []


@pytest.mark.parametrize("text", [
    "accuracy 12.5%", "7.4 times fewer", "+3.4 points", "saw 1,453", "35 minutes", "143 examples", "| fast | 45% |",
    "{{ 0.453 | percent }}", "{{ '45.3%' }}", "{{ 1453 | count }}", "{% set x = 0.4 %}{{ x }}", "99% CI",
])  # fmt: skip
def test_a_result_in_a_template_is_refused(text):
    assert literals(f"words {text} words")


@pytest.mark.parametrize("text", [
    "{{ row.accuracy | percent(1) }}", f"accuracy ({LEVEL} CI)", "`DISTIL_RPM=35 minutes`", "Qwen2.5-0.5B",
    "{{ rows[0].n }} problems", "the 1.5B of [this](a-7.4-b.md)",
])  # fmt: skip
def test_a_figure_in_a_template_is_no_result_of_its_own(text):
    assert literals(f"words {text} words") == []


def test_most_results_are_made():
    made = {name: set(RESULT.findall(PAGES["README.md" if name == "README.md.j2" else f"docs/{name[:-3]}"]))
            for name in TEMPLATES}  # fmt: skip
    assert all(made.values()) and sum(map(len, made.values())) > 400


@pytest.mark.parametrize("module", sorted((ROOT / "benchmarks/texts").glob("*.py")), ids=lambda path: path.stem)
def test_no_function_that_makes_a_page_holds_a_result(module):
    tree = ast.parse(module.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    values = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in told]
    assert not [value for value in values if isinstance(value, float)]
    assert not [value for value in values if isinstance(value, str) and unbacked(value, NO_RESULTS)]


def points(row: dict) -> str:
    gain, low, high = (f"{100 * row[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
    return f"{gain} ({low} to {high})"


def result(name: str) -> dict:
    return json.loads((ROOT / f"benchmarks/results/{name}.json").read_text(encoding="utf-8"))


def words_of_notebooks() -> dict[str, list[str]]:
    """Words that a notebook says, each made of the file that holds its figures."""
    align = result("align")
    chosen = {row["selection"]: points(row) for row in align["minus_shortest"]}
    judged = [
        f"kappa {align['judges']['kappa']:.2f}",
        *(chosen[name] for name in ("student", "student-loop", "llm-loop")),
    ]
    unequal = {row["name"]: row for row in result("prefer_unequal")["minus_sft"]}
    preferred = []
    for row in result("prefer")["minus_sft"]:
        if row["name"] in ("dpo", "cogpo"):
            low, high = (f"{100 * row[key]:+.1f}" for key in ("ci_low", "ci_high"))
            lost = f"lost {-100 * min(unequal[row['name']]['by_seed']):.1f} points each; the other two gained"
            preferred += [f"{100 * row['difference']:+.1f}", f"{low} to {high}", lost]
    reinforced = [points(row).replace(" (", " points (") for row in result("reinforce")["minus_sft"]]
    return {"03_judge": judged, "05_prefer": preferred, "06_reinforce": reinforced}


@pytest.mark.parametrize("stage", words_of_notebooks())
def test_every_gain_in_a_notebook_is_that_of_a_file(stage):
    text, words = flat(told(stage)), words_of_notebooks()[stage]
    assert [said for said in words if said not in text] == []
    left = {number for number in unbacked(text, set(words)) if number[0] in "+-" or number.endswith("%")}
    assert left <= {LEVEL}
    (first, *_) = (number for said in words for number in RESULT.findall(said))
    assert unbacked(text.replace(first, "+77.7", 1), set(words)), "a gain that no file holds is found"
