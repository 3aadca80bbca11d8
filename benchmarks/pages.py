"""Do students and their teacher write HTML pages that work? A landing page and the game Snake, as 07's gallery asks.

python benchmarks/pages.py ask RUN [--students fast] [--engine vllm|URL] [--teacher URL]    beside the servers
python benchmarks/pages.py look RUN [--out FILE]                                            where a Chromium is

`ask` puts each page to each model once greedily and `--samples` times at `--temperature`, and writes
artifacts/RUN/pages: the pages, pages.jsonl and machine.json. Replies are kept there, too; none is asked for twice.
`look` opens the pages offline, writes a PNG beside each, and results/pages.json: was the page `whole` (its </html> is
there, outside of scripts), was the answer `cut_off`, which `errors` did it throw, and was its canvas `changed` by two
arrow keys. For that it is loaded three times with the same random numbers and a clock of its own, twice without keys:
if these two differ, or without a canvas, `changed` is null. A page that does not stop computing has the error `hangs`.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path

from browser import Hangs, chromium
from served import facts, served

from distil.evaluate import engines, gallery
from distil.evaluate.engines import GenerationRequest
from distil.llm.cache import ChatError
from distil.llm.prompts import format_turns, messages
from distil.models.student import Generated
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_jsonl, write_jsonl, write_text
from distil.workspace.stage import run_folder


class Closed(HTMLParser):
    """Reads a page; `last` is the tag that was closed last, outside of scripts and styles."""

    last = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.last = ""

    def handle_endtag(self, tag: str) -> None:
        self.last = tag


def is_whole(page: str) -> bool:
    """Does it begin as an HTML file does, and end with </html> that no open script or style has swallowed?"""
    parser = Closed()
    parser.feed(page)
    parser.close()
    return page.lower().startswith(("<!doctype html", "<html")) and parser.last == "html"


def kept(folder: Path, student: str, page: str, sample: int, temperature: float, reply: Generated) -> dict:
    """Write the page of an answer, if it holds one; returns its row of pages.jsonl."""
    content, file = gallery.page_of(reply.text), folder / f"{student}-{page}-{sample}.html"
    if content:
        write_text(file, content)
    return {"student": student, "page": page, "sample": sample, "temperature": temperature,
            "file": file.name if content else None, "whole": bool(content) and is_whole(content),
            "cut_off": reply.finish_reason == "length", "tokens": reply.n_tokens}  # fmt: skip


def ask(args: argparse.Namespace) -> None:
    """Write the pages, their rows into pages.jsonl, and the machine and the command into machine.json."""
    students, params, servers = served(args.run, args.students.split(","), args.engine, args.teacher)
    folder, rows = run_folder(args.run) / "pages", []
    turns = format_turns(params["student_format"])
    prompts = {page: [*turns, *messages(f"gallery_{page}")] for page in gallery.PAGES}
    wanted = [(0, 0.0), *((sample, args.temperature) for sample in range(1, args.samples + 1))]
    earlier = [path for pattern in ("*.html", "*.png", "pages.jsonl", "machine.json") for path in folder.glob(pattern)]
    for old in earlier:
        old.unlink()
    try:
        for student in students:
            for page, prompt in prompts.items():
                for temperature in dict.fromkeys(at for _, at in wanted):
                    samples = [sample for sample, at in wanted if at == temperature]
                    store = folder / f"{student.name}-{digest(student.weights)[:8]}.replies.jsonl"
                    (replies,) = engines.answers(
                        student.engine, student.load, [[GenerationRequest(prompt, sample) for sample in samples]],
                        name=student.name, store=store, max_new_tokens=gallery.TOKENS, temperature=temperature,
                        extra=student.extra,
                    )  # fmt: skip
                    rows += [kept(folder, student.name, page, sample, temperature, reply)
                             for sample, reply in zip(samples, replies, strict=True)]  # fmt: skip
    finally:
        servers.stop()
    write_jsonl(folder / "pages.jsonl", rows)
    command = f"python benchmarks/pages.py {shlex.join(sys.argv[1:])}"
    about = {"command": command, "max_new_tokens": gallery.TOKENS, **facts()}
    write_text(folder / "machine.json", json.dumps(about, indent=1) + "\n")
    print(f"{sum(row['file'] is not None for row in rows)} pages of {len(rows)} answers in {folder}")


def looked_at(program: str, file: Path) -> dict:
    """{errors, changed} of a page, each in a browser of its own; its picture is left beside it."""
    page = file.read_text(encoding="utf-8")
    try:
        with chromium(program) as browser:
            before, again, after = (browser.look(page, keys) for keys in (False, False, True))
    except Hangs:
        return {"errors": ["hangs"], "changed": None}
    file.with_suffix(".png").write_bytes(after.picture)
    alike = before.canvas and before.canvas == again.canvas
    return {"errors": after.errors, "changed": after.canvas != before.canvas if alike else None}


def look(args: argparse.Namespace) -> None:
    """Open each page of pages.jsonl, and write the results. Raises StageError without pages or a Chromium."""
    folder, program = run_folder(args.run) / "pages", gallery.browser()
    if not (folder / "machine.json").exists():
        raise StageError(f"{folder} has no pages: give `python benchmarks/pages.py ask {args.run}` first")
    if program is None:
        raise StageError("there is no chromium, chromium-browser or google-chrome on the PATH: install one")
    rows = []
    for row in read_jsonl(folder / "pages.jsonl"):
        found = looked_at(program, folder / row["file"]) if row["file"] else {"errors": None, "changed": None}
        rows.append({**row, **found})
        print(rows[-1], flush=True)
    about = json.loads((folder / "machine.json").read_text(encoding="utf-8"))
    write_text(args.out, json.dumps({**about, "rows": rows}, indent=1, ensure_ascii=False) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(required=True)
    asking = steps.add_parser("ask", help="let the models write the pages")
    asking.add_argument("--students", default="fast")
    asking.add_argument("--engine", default="vllm")
    asking.add_argument("--teacher", default="", metavar="URL")
    asking.add_argument("--samples", type=int, default=4, help="beside the greedy answer")
    asking.add_argument("--temperature", type=float, default=0.6)
    asking.set_defaults(step=ask)
    looking = steps.add_parser("look", help="open the pages in a headless Chromium")
    looking.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pages.json")
    looking.set_defaults(step=look)
    for step in (asking, looking):
        step.add_argument("run")
    args = parser.parse_args()
    if args.step is ask and (args.samples < 0 or args.temperature <= 0):
        parser.error("--samples is 0 or more, --temperature above 0")
    try:
        args.step(args)
    except (ChatError, StageError) as error:
        print(f"pages: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
