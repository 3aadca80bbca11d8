"""The book: every link and picture of it is there, nothing of it lies elsewhere, and it can be read on a phone."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

from distil.evaluate import gallery
from distil.workspace.stage import STAGES

pytest.importorskip("myst_nb", reason="the extra `book` is not installed: make bookcheck")
pytest.importorskip("furo", reason="the extra `book` is not installed: make bookcheck")
pytestmark = pytest.mark.slow
LOADED = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}


class Page(HTMLParser):
    """What a page of the book links to, what it loads, and the anchors that it has."""

    def __init__(self, text: str):
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.anchors |= {has[name] for name in ("id", "name") if name in has}
        if tag == "a" and "href" in has:
            self.links.add(has["href"])
        elif has.get(LOADED.get(tag, "")):
            self.loads.add(has[LOADED[tag]])


def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def faults(site: Path) -> list[str]:
    """Links and pictures that lead nowhere in the site, and what is loaded from elsewhere."""
    known, wrong = pages(site), []
    for path, page in known.items():
        for link in sorted(page.links | page.loads):
            where = urlsplit(link)
            if where.scheme == "data" or (where.scheme and link not in page.loads):
                continue
            target = (path.parent / unquote(where.path)).resolve() if where.path else path
            anchor = unquote(where.fragment)
            if where.scheme or where.netloc or not target.is_file() or not target.is_relative_to(site):
                wrong.append(f"{path.relative_to(site).as_posix()}: {link}")
            elif anchor and target in known and anchor not in known[target].anchors:
                wrong.append(f"{path.relative_to(site).as_posix()}: {link}")
    for path in sorted(site.rglob("*.css")):
        for link in re.findall(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')]+)", path.read_text(encoding="utf-8")):
            wrong.append(f"{path.relative_to(site).as_posix()}: {link}")
    return wrong


def build(folder: Path, *options: str) -> Path:
    """The site, built as `make book` builds it."""
    (line,) = re.findall(r"(?m)^\t\$\(BIN\)/(sphinx-build .*)$", (ROOT / "Makefile").read_text(encoding="utf-8"))
    words = line.replace("build/", f"{folder.as_posix()}/").split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return folder / "book"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The book of a repository whose address nobody has said."""
    return build(tmp_path_factory.mktemp("here"), "-D", "repository=OWNER/REPOSITORY")


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("there"), "-D", "repository=someone/handbook")


def test_every_link_and_picture_is_there(site, published):
    assert faults(site) == [] and faults(published) == []


def test_every_page_and_notebook_is_in_the_table_of_contents(site):
    sources = [ROOT / "CONTRIBUTING.md", ROOT / "artifacts/README.md"]
    sources += [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    names = {path.relative_to(ROOT).with_suffix(".html").as_posix() for path in sources}
    assert len(names) >= len(STAGES) + 10
    index = Page((site / "index.html").read_text(encoding="utf-8"))
    assert names <= index.links
    assert any(load.endswith("accuracy_tokens.png") for load in index.loads), "the README's picture"


def test_what_is_no_page_is_found_in_the_repository_or_copied(site, published):
    here, there = (Page((book / "docs/results.html").read_text(encoding="utf-8")).links for book in (site, published))
    there |= Page((published / "index.html").read_text(encoding="utf-8")).links
    assert "https://github.com/someone/handbook/blob/main/benchmarks/results/align.json" in there
    assert "https://github.com/someone/handbook/tree/main/distil/recorded" in there
    assert any(link.startswith("../_downloads/") and link.endswith("/align.json") for link in here)
    assert not any("OWNER" in link for page in pages(site).values() for link in page.links)


def test_formulas_are_written_without_scripts_of_others(site):
    text = (site / "notebooks/05_prefer.html").read_text(encoding="utf-8")
    assert "<math" in text and "β" in text and r"\beta" not in text and "MathJax" not in text


@pytest.mark.parametrize(("page", "wrong"), [
    ('<h2 id="b">b</h2><a href="#b">b</a><a href="x.html#b">b</a><a href="https://x.org">x</a>', []),
    ('<a href="gone.html">a</a>', ["gone.html"]),
    ('<a href="#gone">a</a>', ["#gone"]),
    ('<img src="gone.png">', ["gone.png"]),
    ('<a href="../outside.html">a</a>', ["../outside.html"]),
    ('<script src="https://x.org/a.js"></script>', ["https://x.org/a.js"]),
    ('<link href="//x.org/a.css">', ["//x.org/a.css"]),
])  # fmt: skip
def test_a_link_that_leads_nowhere_is_found(tmp_path, page, wrong):
    (tmp_path / "outside.html").write_text("<p>")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/x.html").write_text(page)
    assert faults(tmp_path / "book") == [f"x.html: {link}" for link in wrong]


MEASURE = "[document.documentElement.scrollWidth, document.querySelectorAll('h1').length]"


def shown(site: Path, name: str, width: int) -> int:
    """How wide a page is in pixels, on a screen that is `width` wide."""
    from benchmarks.browser import PATIENCE, chromium  # not on Windows

    with chromium(gallery.browser()) as browser:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.call("Emulation.setDeviceMetricsOverride", session, **screen)
        browser.call("Page.enable", session)
        browser.call("Page.navigate", session, url=(site / name).as_uri())
        until = time.monotonic() + PATIENCE
        while browser.hear(until).get("method") != "Page.loadEventFired":
            pass
        said = browser.call("Runtime.evaluate", session, expression=MEASURE, returnByValue=True)
        wide, heads = said["result"]["value"]
    assert heads == 1
    return wide


@pytest.mark.browser
@pytest.mark.skipif(gallery.browser() is None, reason="no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", [
    "index.html", "docs/results.html", "docs/gpu.html", "artifacts/README.html", "CONTRIBUTING.html",
    *(f"notebooks/{stage}.html" for stage in STAGES),
])  # fmt: skip
def test_no_page_is_wider_than_its_screen(site, name, width):
    assert shown(site, name, width) <= width


@pytest.mark.browser
@pytest.mark.skipif(gallery.browser() is None, reason="no Chromium")
def test_a_page_that_is_wider_than_its_screen_is_found(tmp_path):
    (tmp_path / "x.html").write_text("<!doctype html><meta name=viewport content='width=device-width'>"
                                     "<h1>x</h1><p style='width:700px'>x")  # fmt: skip
    assert shown(tmp_path, "x.html", 390) > 390
