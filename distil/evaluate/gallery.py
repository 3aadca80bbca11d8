"""Pages that a student writes as HTML, shown in a box that reaches neither the network nor the notebook."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from distil.evaluate import engines
from distil.evaluate.engines import GenerationRequest
from distil.llm.prompts import format_turns, messages
from distil.models import formats
from distil.workspace.files import digest, write_text
from distil.workspace.row_cache import RowCache
from distil.workspace.rows import Row

PAGES = ("landing", "snake")
TOKENS = 2048  # a page takes about so many: a student that may write less is not asked
HEIGHT = 480  # pixels of the box
# Inside the box's own document nothing may be loaded; the page lies in a second frame, so that even a page that
# navigates itself is stopped, by the frame-src of its parent.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:"
# no network for the browser that takes the picture, whatever the page tries
OFFLINE = ["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND", "--disable-background-networking"]


@dataclass(kw_only=True)
class Page(Row):
    """A student's answer to the prompt of a page, a row of `answers.jsonl`."""

    page: str
    of: str  # digest of weights, prompt, length and engine
    text: str
    n_tokens: int
    finish_reason: str
    seconds: float | None
    file: str | None  # the page, in the same folder; None for an answer without one


def generate(
    load: Callable[[], tuple],
    folder: Path,
    *,
    weights: str,
    name: str,
    engine: str,
    max_new_tokens: int,
    student_format: str = "plain",
    extra: dict | None = None,
) -> list[Page]:
    """Ask a student once, greedily, for each page.

    The page of an answer is `<page>.html` in `folder`, with a picture `<page>.png` where there is a Chromium. Answers
    are kept in `answers.jsonl`, and taken from there if weights, prompt, length and engine are the same.
    """
    prompts = {page: [*format_turns(student_format), *messages(f"gallery_{page}")] for page in PAGES}
    taught = [student_format] if student_format != "plain" else []
    made_by = engines.made_by(engine, extra)
    digests = {page: digest(weights, prompts[page], max_new_tokens, engine, made_by, *taught) for page in PAGES}
    cache = RowCache(folder / "answers.jsonl", Page, lambda row: row.page, digests)
    missing = [page for page in PAGES if page not in cache.rows]
    if missing:
        replies = engines.answers(
            engine,
            load,
            [[GenerationRequest(prompts[page], 0)] for page in missing],
            name=name,
            store=folder / f"{name}-{digest(weights)[:8]}.replies.jsonl",
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            extra=extra,
        )
        for page, reply in zip(missing, chain.from_iterable(replies), strict=True):
            content = page_of(reply.text)
            for left in (f"{page}.html", f"{page}.png"):  # of an earlier answer, which perhaps held a page
                (folder / left).unlink(missing_ok=True)
            if content:
                write_text(folder / f"{page}.html", content)
                screenshot(content, folder / f"{page}.png")
            file = f"{page}.html" if content else None
            cache.append([Page(page=page, of=digests[page], **vars(reply), file=file)])
    return [cache.rows[page] for page in PAGES]


def page_of(text: str) -> str | None:
    """The HTML in an answer: of the last fenced block that holds some, or from the first tag on; None without any."""
    text = formats.said(text)
    blocks = [b for b in re.findall(r"```(?:html)?[^\S\n]*\n(.*?)(?:```|\Z)", text, flags=re.DOTALL) if "<" in b]
    if blocks:
        return blocks[-1].strip()
    match = re.search(r"<!doctype html|<html", text, flags=re.IGNORECASE)
    return text[match.start() :].strip() if match else None


def boxed(content: str) -> str:
    """A document that shows a page in a frame without network, popups, forms, top navigation, storage or a parent."""
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta http-equiv="x-dns-prefetch-control" content="off">'
        "<style>html,body{margin:0;height:100%}iframe{border:0;width:100%;height:100%}</style>"
        f'<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" srcdoc="{html.escape(content)}"></iframe>'
    )


def frame(content: str) -> str:
    """The box as an element of a notebook's output."""
    return (
        f'<iframe sandbox="allow-scripts" referrerpolicy="no-referrer" srcdoc="{html.escape(boxed(content))}" '
        f'style="width:100%;height:{HEIGHT}px;border:1px solid #bbb"></iframe>'
    )


def show(pages: Sequence[Page], folder: Path) -> None:
    """Show each page in its box, or the beginning of an answer that holds none."""
    from IPython.display import HTML, display

    from distil.workspace.show import text

    for page in pages:
        ended = ", cut off" if page.finish_reason == "length" else ""
        title = f"{page.page}: {page.n_tokens} tokens{ended}"
        if page.file:
            display(HTML(f"<b>{html.escape(title)}</b>{frame((folder / page.file).read_text(encoding='utf-8'))}"))
        else:
            text(f"{title}, no page", page.text[:500])


def browser() -> str | None:
    """The Chromium on the PATH; None without one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def screenshot(content: str, path: Path) -> bool:
    """A picture of a page after its first three seconds, taken offline; False where no Chromium takes one."""
    program = browser()
    if program is None:
        return False
    box = path.with_suffix(".box.html")
    write_text(box, boxed(content))
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", *OFFLINE, "--hide-scrollbars"]
    command += [f"--screenshot={path.resolve()}", "--window-size=1200,800", "--virtual-time-budget=3000"]
    try:
        subprocess.run([*command, box.resolve().as_uri()], capture_output=True, timeout=60, check=True)
    except (subprocess.SubprocessError, OSError):
        return False
    finally:
        box.unlink()
    return path.exists()
