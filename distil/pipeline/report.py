"""What a run leaves to read: every executed notebook as HTML, and an index of them."""

from __future__ import annotations

import html
from pathlib import Path

from distil.evaluate.suites import measured
from distil.pipeline import minutes
from distil.pipeline.progress import progress, read_run, report_folder
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.stage import run_folder

STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.4rem .8rem;border-bottom:1px solid #ddd}
.done{color:#00684a}.failed{color:#b00020}.running{color:#8a5a00}img{max-width:100%}pre{overflow-x:auto}"""


def exporter():
    """What turns an executed notebook into a page. Raises StageError where nbconvert is not whole."""
    try:
        from nbconvert import HTMLExporter

        return HTMLExporter(template_name="lab")
    except (ImportError, ValueError) as error:  # ValueError: its templates lie where Jupyter does not look
        raise StageError(
            f"no pages can be written of the executed notebooks: {error}. Install nbconvert anew with all it needs "
            "(pip install --force-reinstall nbconvert), or name its folder share/jupyter in JUPYTER_PATH"
        ) from error


def write_html(notebook: Path) -> None:
    """The executed notebook as one self-contained HTML file beside it."""
    import nbformat

    if notebook.exists():
        body, _ = exporter().from_notebook_node(nbformat.read(notebook, as_version=4))
        write_text(notebook.with_suffix(".html"), body)


def is_of(page: Path, run: str, stage: str) -> bool:
    """Is there a page of a stage, and not of a start before it was run by hand?"""
    meta = run_folder(run) / stage / "meta.json"
    return page.exists() and not (meta.exists() and meta.stat().st_mtime > page.stat().st_mtime)


def write_index(run: str) -> None:
    """`papermill_runs/<run>/index.html`: status and minutes of each stage, and the result table when there is one."""
    folder, rows, expected = report_folder(run), [], minutes.told(run)["stages"]
    for stage, now in progress(run).items():
        executed = now.status in ("done", "failed") and is_of(folder / f"{stage}.html", run, stage)
        name = f'<a href="{stage}.html">{stage}</a>' if executed else stage
        took = "" if now.seconds is None else f"{now.seconds / 60:.1f}"
        said = expected.get(stage, {}).get("minutes", "")
        cells = (
            f"<td>{name}</td>",
            f'<td class="{now.status}">{now.status}</td>',
            f"<td>{said}</td>",
            f"<td>{took}</td>",
        )
        rows.append(f"<tr>{''.join(cells)}<td>{html.escape(now.note)}</td></tr>")
    profile, results = read_run(run).get("profile", ""), measured(run) / "results.md"
    measures = html.escape(results.read_text(encoding="utf-8")) if results.exists() else ""
    table = f"<h2>Results</h2><pre>{measures}</pre>" if measures else ""
    figure = measured(run) / "accuracy_tokens.svg"
    drawn = figure.read_text(encoding="utf-8") if figure.exists() else ""
    picture = drawn[drawn.index("<svg") :] if drawn else ""
    write_text(
        folder / "index.html",
        f"<!doctype html><html lang=en><meta charset=utf-8><title>distil: {run}</title><style>{STYLE}</style>"
        f"<h1>Run {run}</h1><p>Profile {profile}</p><table><tr><th>Notebook</th><th>Status</th>"
        f"<th>Minutes expected</th><th>Minutes</th><th>Figures</th></tr>{''.join(rows)}</table>"
        f"{table}{picture}</html>\n",
    )
