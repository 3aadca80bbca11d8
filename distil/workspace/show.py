"""How the notebooks show things: tables, texts, differences between two chains, the environment line."""

from __future__ import annotations

import difflib
import html
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from distil.workspace.environment import choose_dtype, environment

T = TypeVar("T")
BOX = "white-space:pre-wrap;border-left:3px solid #bbb;padding:.3em .8em;margin:.2em 0;font-family:monospace"
TABLE = "border-collapse:collapse;text-align:left"


def _display(text: str) -> None:
    from IPython.display import HTML, display

    display(HTML(text))


def environment_line(seed: int) -> str:
    """GPU or CPU, versions and seed in one line."""
    facts = environment()
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{facts['gpu'] or str(facts['cores']) + ' CPU cores, no GPU'} | {versions} | seed {seed}"


def environment_and_dtype(seed: int) -> None:
    """The environment line and, for stages that compute, the number format with the reason for it."""
    dtype, why = choose_dtype()
    print(f"{environment_line(seed)}\n{str(dtype).removeprefix('torch.')}: {why}")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; numbers as they are given, everything escaped."""
    head = "".join(f"<th style='text-align:left'>{html.escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(str(v))}</td>" for v in row) + "</tr>"
        for row in rows
    )
    _display(f"<table style='{TABLE}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def text(title: str, content: str) -> None:
    """A titled text in a box, line breaks kept."""
    _display(f"<b>{html.escape(title)}</b><div style='{BOX}'>{html.escape(content)}</div>")


def difference(before: str, after: str, title: str) -> None:
    """Two chains as one text, line by line: what was taken out is struck through, what was put in is underlined."""
    styles = {
        "- ": "color:#b00020;text-decoration:line-through",
        "+ ": "color:#00684a;text-decoration:underline",
        "  ": "",
    }
    lines = [
        f"<span style='{styles[line[:2]]}'>{html.escape(line[2:])}</span>"
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line[:2] in styles and line[2:].strip()
    ]
    _display(f"<b>{html.escape(title)}</b><div style='{BOX}'>" + "\n".join(lines) + "</div>")


def by_group(rows: Iterable[T], key: Callable[[T], object], **values: Callable[[T], float]) -> list[tuple]:
    """(group, rows in it, {name: mean}) for each group, in the order in which groups first appear."""
    groups: dict[object, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [
        (name, len(group), {v: sum(f(row) for row in group) / len(group) for v, f in values.items()})
        for name, group in groups.items()
    ]


def finished(meta: dict) -> None:
    """The last line of a stage: time, memory, and where its record lies."""
    print(
        f"{meta['stage']} of run {meta['run']}: {meta['seconds']:.0f} s, peak memory {meta['peak_ram_gb']} GiB"
        + (f", GPU {meta['peak_vram_gb']} GiB" if meta["peak_vram_gb"] else "")
        + f"; recorded in artifacts/{meta['run']}/{meta['stage']}/meta.json"
    )
