"""Every page and every table of costs is what its template and the results give; every link in the texts works."""

import json
import re

import pytest
from conftest import ROOT
from pages import PAGES, told

from benchmarks.texts import __main__ as texts
from benchmarks.texts import figures
from distil.workspace.stage import STAGES

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"(?ms)^( *)```.*?^\1```$")
TEXTS = {
    **PAGES,
    **{name: (ROOT / name).read_text(encoding="utf-8")
       for name in ("CONTRIBUTING.md", "artifacts/README.md", "papermill_runs/README.md")},
    **{f"notebooks/{stage}.ipynb": told(stage) for stage in STAGES},
}  # fmt: skip


def test_every_page_is_what_its_template_and_the_results_give(capsys):
    assert texts.main(["--check"]) == 0, capsys.readouterr().out


def test_a_page_that_was_changed_by_hand_is_found_out(monkeypatch, capsys, tmp_path):
    home = tmp_path / "home"
    for file, text in texts.texts().items():
        (home / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        (home / file.relative_to(ROOT)).write_text(text, encoding="utf-8")
    monkeypatch.setattr(texts, "ROOT", home)
    assert texts.main(["--check"]) == 0
    page, notebook = home / "docs/results.md", home / "notebooks/04_finetune.ipynb"
    assert "7.4 times" in page.read_text(encoding="utf-8")
    page.write_text(page.read_text(encoding="utf-8").replace("7.4 times", "7.5 times", 1), encoding="utf-8")
    cost = re.search(r"\| cpu \| ([\d.]+) \|", notebook.read_text(encoding="utf-8"))
    notebook.write_text(notebook.read_text(encoding="utf-8").replace(cost[0], "| cpu | 99 |"), encoding="utf-8")
    assert texts.main(["--check"]) == 1
    assert "docs/results.md" in (told := capsys.readouterr().out) and "04_finetune.ipynb" in told
    assert texts.main([]) == 0 and texts.main(["--check"]) == 0, "and mended"


def test_a_figure_of_a_file_reaches_its_page(monkeypatch, tmp_path):
    found = json.loads((figures.RESULTS / "collect.json").read_text(encoding="utf-8"))
    found["rows"][0]["ours_s"] = 98.76
    real = figures.read
    monkeypatch.setattr(figures, "read", lambda file: found if file.name == "collect.json" else real(file))
    assert [file.name for file in texts.stale()] == ["teachers.md"]
    assert "take 98.76 s" in texts.stale()[ROOT / "docs/teachers.md"]


def test_a_notebook_without_its_row_of_costs_is_found_out():
    costs = figures.result("costs")
    with pytest.raises(ValueError, match="04_finetune: 0 rows of costs"):
        texts.with_costs("| profile | minutes |", "04_finetune", costs)


def test_a_page_without_a_template_is_no_page_that_was_made():
    for name, text in PAGES.items():
        template = ROOT / "docs/src" / (name.removeprefix("docs/") + ".j2")
        assert template.exists() == text.startswith("<!-- Made by `make texts`"), name


def test_the_readme_is_a_screen_and_a_half():
    assert len(PAGES["README.md"].splitlines()) <= 150
    for name in PAGES:
        assert name == "README.md" or f"]({name})" in PAGES["README.md"], f"{name}: README.md leads nowhere near it"
        assert len(re.findall(r"(?m)^# ", FENCE.sub("", PAGES[name]))) == 1, name


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a text."""
    heads = re.findall(r"(?m)^#+ (.+)$", FENCE.sub("", text))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(name: str, text: str) -> list[str]:
    """The links of a text that lead nowhere in the repository."""
    wrong = []
    for link in LINK.findall(re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))):
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        if re.match(r"https?://", link):
            continue
        if not target.exists() or not target.is_relative_to(ROOT):
            wrong.append(link)
        elif anchor and anchor not in anchors(TEXTS.get(target.relative_to(ROOT).as_posix(), "")):
            wrong.append(link)
    return wrong


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_works(name):
    assert broken(name, TEXTS[name]) == []


def test_a_link_that_leads_nowhere_is_found():
    text = "[a](gone.md) [b](results.md#gone) [c](results.md#the-claim) [d](https://x.org) `[e](f)` [g](../../etc)"
    assert broken("docs/x.md", text) == ["gone.md", "results.md#gone", "../../etc"]
    assert anchors("## `make run`, on two CPU cores\n```\n# no\n```\n") == {"make-run-on-two-cpu-cores"}
