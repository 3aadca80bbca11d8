"""Renew the pages, and the notebooks' tables of costs: python -m benchmarks.texts [--check]

`docs/src/README.md.j2` gives README.md, each other template there a page in docs/. With --check nothing is written;
exit code 1 if a file is not what its template and the results give.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.texts import figures, forms, tables
from distil.workspace.files import write_text
from distil.workspace.stage import STAGES

ROOT = figures.ROOT
TEMPLATES = ROOT / "docs" / "src"
NOTE = "<!-- Made by `make texts` of docs/src/{}: change that file, not this one. -->\n\n"


def environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= forms.FILTERS
    made.globals |= figures.KNOWN | {"table": tables.TABLES}
    return made


def texts() -> dict[Path, str]:
    """What each page, and each notebook, should be."""
    made, rendered = environment(), {}
    for template in sorted(TEMPLATES.glob("*.md.j2")):
        name = template.name.removesuffix(".j2")
        page = ROOT / name if name == "README.md" else ROOT / "docs" / name
        rendered[page] = NOTE.format(template.name) + made.get_template(template.name).render()
    costs = figures.result("costs")
    for stage in STAGES:
        notebook = ROOT / "notebooks" / f"{stage}.ipynb"
        rendered[notebook] = with_costs(notebook.read_text(encoding="utf-8"), stage, costs)
    return rendered


def with_costs(notebook: str, stage: str, costs: dict) -> str:
    """A notebook's text with the minutes and memory that were measured. Raises ValueError if it has no row for them."""
    for profile, spent in costs.items():
        row = spent["stages"][stage]
        line = f"| {profile} | {row['minutes']} | {row['peak_ram_gb']} GiB |"
        notebook, found = re.subn(rf"\| {profile} \| [\d.]+ \| [\d.]+ GiB \|", line, notebook)
        if found != 1:
            raise ValueError(f"{stage}: {found} rows of costs of profile {profile} instead of one")
    return notebook


def stale() -> dict[Path, str]:
    """The texts that are not what they should be, and what they should be."""
    return {
        file: text for file, text in texts().items() if not file.exists() or file.read_text(encoding="utf-8") != text
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texts", description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a text is stale")
    check, old = parser.parse_args(arguments).check, stale()
    for file, text in old.items():
        print(f"{file.relative_to(ROOT)}: {'is not what its template and the results give' if check else 'written'}")
        if not check:
            write_text(file, text)
    if check and old:
        print("what to do: make texts")
    return 1 if check and old else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
