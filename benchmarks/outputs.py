"""Put the outputs of a run into the notebooks of this repository: python -m benchmarks.outputs [RUN] [--check]

RUN (default: cpu) was made by `distil run` with the notebooks' own parameters, in the project folder or $DISTIL_HOME.
With --check nothing is written; exit code 1 if a notebook would change. Exit code 2 if a notebook cannot be renewed.
"""

from __future__ import annotations

import argparse
import ast
import base64
import html
import io
import os
import re
import sys
from pathlib import Path

import nbformat

from distil.pipeline.progress import report_folder
from distil.pipeline.report import is_of
from distil.publish import leaks
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import digest, write_text
from distil.workspace.stage import STAGES, read_meta

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LARGEST = 400_000  # bytes of a notebook
COLOURS = 128  # of a picture
SHOWN = ("print", "show.", "plots.")  # how the names of calls begin that a reader sees
# GitHub strips styles, and with them the ends of lines and what is struck through or underlined; git compares lines
MARKUP = {
    r"</tr>": "</tr>\\n",
    r"<div style='(white-space:pre-wrap[^']*)'>(.*?)</div>": r"<pre style='\1'>\2</pre>",
    r"<span style='([^']*line-through)'>(.*?)</span>": r"<del style='\1'>\2</del>",
    r"<span style='([^']*underline)'>(.*?)</span>": r"<ins style='\1'>\2</ins>",
}


def tagged(cell: dict, tag: str) -> bool:
    return tag in cell["metadata"].get("tags", [])


def code_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["cell_type"] == "code" and not tagged(c, "injected-parameters")]


def defaults(notebook: dict) -> dict[str, object]:
    """The parameters of a notebook as its cell of parameters has them."""
    (cell,) = (c for c in code_cells(notebook) if tagged(c, "parameters"))
    body = ast.parse("".join(cell["source"])).body
    return {ast.unparse(node.target): ast.literal_eval(node.value) for node in body if isinstance(node, ast.AnnAssign)}


def sources(notebook: dict) -> list[str]:
    """The code after the cell of parameters: what is before it fetches the package."""
    cells = code_cells(notebook)
    first = next(place for place, cell in enumerate(cells) if tagged(cell, "parameters")) + 1
    return ["".join(cell["source"]) for cell in cells[first:]]


def code_digest(notebook: dict) -> str:
    """Digest of what decides a notebook's outputs: its code, and its parameters' defaults. Its texts do not."""
    return digest(len(code_cells(notebook)), defaults(notebook), sources(notebook))


def silent(notebook: dict) -> list[str]:
    """Ids of the cells that show something in any case, and have no output."""

    def shows(node: ast.stmt) -> bool:
        calls = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        return calls and ast.unparse(node.value.func).startswith(SHOWN)

    cells, codes = code_cells(notebook), sources(notebook)
    pairs = zip(cells[-len(codes) :], codes, strict=True)
    return [cell["id"] for cell, code in pairs if not cell["outputs"] and any(map(shows, ast.parse(code).body))]


def clean_text(text: str) -> str:
    """A text without colours and without this project's folder; of a line that was written over, its last state."""
    lines = ANSI.sub("", text).replace("\r\n", "\n").split("\n")
    kept = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return kept.replace(f"{root().resolve()}{os.sep}", "")


def plain(markup: str) -> str:
    """HTML of `distil.workspace.show` as a text: columns of a table side by side, a difference with - and +."""

    def bare(piece: str) -> str:
        return html.unescape(re.sub(r"<[^>]+>", "", piece))

    rows = [
        [bare(cell) for cell in re.findall(r"(?s)<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in re.findall(r"(?s)<tr>(.*?)</tr>", markup)
    ]
    if rows:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    marked = re.sub(r"<ins[^>]*>", "+ ", re.sub(r"<del[^>]*>", "- ", markup))
    return bare(marked.replace("</b>", "\n"))


def small_png(picture: str) -> str:
    """A picture (base64) with a palette, on white, if that makes it smaller."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    made = io.BytesIO()
    flat.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(made, "PNG", optimize=True)
    return min(base64.b64encode(made.getvalue()).decode() + "\n", picture, key=len)


def clean_data(data: dict[str, str]) -> dict[str, str]:
    """One thing shown, by kind: a picture as PNG only, HTML with a text that reads without it; {} of a widget."""
    if any(kind.startswith("application/vnd.jupyter.widget") for kind in data):
        return {}
    if "image/png" in data:
        return {"image/png": small_png(data["image/png"]), "text/plain": data.get("text/plain", "")}
    texts = {kind: clean_text(text) for kind, text in data.items() if kind in ("text/html", "text/plain")}
    if "text/html" in texts:
        for styled, markup in MARKUP.items():
            texts["text/html"] = re.sub(f"(?s){styled}", markup, texts["text/html"])
        texts["text/plain"] = plain(texts["text/html"])
    return texts


def clean(outputs: list[dict]) -> list[dict]:
    """The outputs of a cell as a reader of the repository should see them."""
    kept: list[dict] = []
    for output in outputs:
        if output["output_type"] == "stream":
            text = clean_text(output["text"]) if output["name"] == "stdout" else ""
            if text.strip() and kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] += text
            elif text.strip():
                kept.append(nbformat.v4.new_output("stream", name="stdout", text=text))
        elif data := clean_data(output.get("data", {})):
            kept.append(nbformat.v4.new_output("display_data", data))
    return kept


def renewed(stage: str, run: str) -> str:
    """The text of a notebook with the outputs of a run. Raises StageError if they cannot be this notebook's."""
    executed, meta = report_folder(run) / f"{stage}.ipynb", read_meta(run, stage)
    if meta is None or not is_of(executed, run, stage):
        raise StageError(f"{executed}: not there, not done, or run by hand since: distil run --run {run}")
    if not meta["commit"] or meta["commit"].endswith("+"):
        raise StageError(f"{stage}: run {run!r} was made with changes that are not committed: commit, then run")
    ours, ran = nbformat.read(NOTEBOOKS / f"{stage}.ipynb", 4), nbformat.read(executed, 4)
    wanted, given = defaults(ours) | {"run": run}, ran.metadata.papermill.parameters
    if differing := sorted(name for name in wanted.keys() | given if wanted.get(name) != given.get(name)):
        raise StageError(f"{stage}: run {run!r} was not made with the notebook's own {', '.join(differing)}")
    if code_digest(ours) != code_digest(ran):
        raise StageError(f"{stage}: its code cells are not those that run {run!r} ran: distil run --run {run}")
    for count, (cell, done) in enumerate(zip(code_cells(ours), code_cells(ran), strict=True), 1):
        if done.metadata.papermill.status != "completed":
            raise StageError(f"{stage}: cell {cell.id} of run {run!r} is {done.metadata.papermill.status}")
        cell.outputs, cell.execution_count = clean(done.outputs), count
        told = "\n".join(text for o in cell.outputs for text in (o.get("text", ""), *texts_of(o)))
        if found := leaks.in_text(told) + leaks.paths(told, everywhere=True):
            raise StageError(f"{stage}: the output of cell {cell.id} holds {', '.join(found)}")
    if without := silent(ours):
        raise StageError(f"{stage}: no output of the cells {', '.join(without)} in run {run!r}")
    ours.metadata["distil"] = {"ran": {"commit": meta["commit"], "digest": code_digest(ours)}}
    text = nbformat.writes(ours) + "\n"
    if len(text.encode()) > LARGEST:
        raise StageError(f"{stage}: {len(text.encode())} bytes with its outputs, and {LARGEST} are the most")
    return text


def texts_of(output: dict) -> list[str]:
    return [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outputs", description=__doc__.split("\n")[0])
    parser.add_argument("run", nargs="?", default="cpu", help="a run with the notebooks' own parameters")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if a notebook would change")
    asked = parser.parse_args(arguments)
    try:
        texts = {NOTEBOOKS / f"{stage}.ipynb": renewed(stage, asked.run) for stage in STAGES}
    except StageError as error:
        print(error, file=sys.stderr)
        return 2
    old = {file: text for file, text in texts.items() if file.read_text(encoding="utf-8") != text}
    for file, text in old.items():
        print(f"{file.name}: {'has not the outputs of this run' if asked.check else 'written'}")
        if not asked.check:
            write_text(file, text)
    return 1 if asked.check and old else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
