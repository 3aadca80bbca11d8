"""Pages that students write: are they whole, do they throw, do keys change them? And nothing leaves the browser."""

import json
import shutil
import sys

import pytest
from conftest import ROOT
from loopback import Said, serve

from distil.evaluate import gallery

# a snake that goes right by itself, in a game as students write it
SNAKE = """<!DOCTYPE html>
<html><body><canvas width=400 height=400></canvas><script>
localStorage.setItem('best', 1)
const c = document.querySelector('canvas').getContext('2d')
let x = 10, y = 10, d = [1, 0]
const food = Math.floor(Math.random() * 20)
KEYS
function step() {
  x += d[0] / 10; y += d[1] / 10
  c.clearRect(0, 0, 400, 400); c.fillRect(20 * x, 20 * y, 20, 20); c.fillRect(20 * food, 0, 20, 20)
}
LOOP
</script></body></html>"""
KEYS = "addEventListener('keydown', e => {if (e.key == 'ArrowUp') d = [0, -1]})"
LOOPS = {
    "interval": "setInterval(step, 100)",
    "frames": "let last = 0; const f = t => {if (t - last > 90) {last = t; step()}; requestAnimationFrame(f)}; "
    "requestAnimationFrame(f)",
    "every frame": "const f = () => {step(); requestAnimationFrame(f)}; f()",
}


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from benchmarks import pages

    return pages


@pytest.mark.parametrize(("page", "whole"), [
    ("<!doctype html><html><body><p>hi</p></body></html>", True),
    ("<!DOCTYPE html>\n<html><body><p>hi</body></HTML>\n", True),
    ("<!doctype html><html><body><p>hi</p></body>", False),
    ("<!doctype html><html><body><script>let a = '</html>'", False),
    ("<!doctype html><html><head><style>p {} </html>", False),
    ("<!doctype html><html><body><!-- </html>", False),
    ("<!doctype html><html></html><p>more", False),
    ("<p>hi</p></html>", False),
    ("", False),
])  # fmt: skip
def test_a_whole_page_is_closed_outside_of_scripts(pages, page, whole):
    assert pages.is_whole(page) == whole


def look(pages, tmp_path, page):
    (tmp_path / "p.html").write_text(page)
    return pages.looked_at(gallery.browser(), tmp_path / "p.html")


@pytest.mark.browser
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("keys", [KEYS, ""])
def test_keys_that_steer_are_told_from_a_game_that_runs_by_itself(pages, tmp_path, loop, keys):
    page = SNAKE.replace("KEYS", keys).replace("LOOP", LOOPS[loop])
    assert look(pages, tmp_path, page) == {"errors": [], "changed": bool(keys)}
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_a_page_that_throws_hangs_or_has_no_canvas_is_said_to(pages, tmp_path, monkeypatch):
    thrown = look(pages, tmp_path, "<!doctype html><script>nope()</script>")
    assert thrown == {"errors": ["ReferenceError: nope is not defined"], "changed": None}
    late = look(pages, tmp_path, SNAKE.replace("KEYS", KEYS.replace("d = ", "nope.d = ")).replace("LOOP", "step()"))
    assert late["errors"] == ["ReferenceError: nope is not defined"] and late["changed"] is False
    timed = look(pages, tmp_path, "<!doctype html><script>setInterval(() => {throw Error('late')}, 400)</script>")
    assert timed["errors"] == ["Error: late"], "once within the time that passes"
    dice = SNAKE.replace("LOOP", "x = crypto.getRandomValues(new Uint8Array(1))[0] % 19; step()").replace("KEYS", "")
    assert look(pages, tmp_path, dice.replace("20 * x", "x + 30"))["changed"] is None, "no two loads are alike"
    assert look(pages, tmp_path, "<!doctype html><script>alert(1); confirm(2)</script>")["errors"] == []
    (tmp_path / "p.png").unlink()
    sys.modules["browser"].PATIENCE, before = 3, sys.modules["browser"].PATIENCE
    try:
        assert look(pages, tmp_path, "<script>for (;;) {}</script>") == {"errors": ["hangs"], "changed": None}
    finally:
        sys.modules["browser"].PATIENCE = before
    assert not (tmp_path / "p.png").exists()


@pytest.mark.browser
def test_a_page_reaches_no_network(pages):
    from test_gallery import ESCAPES

    with serve(lambda body: "") as (endpoint, seen), pages.chromium(gallery.browser()) as browser:
        for way in ESCAPES.values():
            browser.look(f"<!doctype html><p>here</p>{way.replace('URL', endpoint)}", keys=False)
    assert seen == [] and seen.headers == []


def test_pages_are_asked_for_once_and_looked_at(pages, made, tmp_path, monkeypatch, capsys):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("DISTIL_HOME", str(tmp_path))

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["pages.py", *map(str, words)])
        return pages.main()

    assert command("look", "r") == 2 and "pages.py ask r" in capsys.readouterr().err
    assert command("ask", "r", "--engine", "transformers:8") == 2 and "URL" in capsys.readouterr().err
    assert command("ask", "r", "--engine", "http://127.0.0.1:9/v1", "--students", "none") == 2
    assert "name each once, of those of run 'r': base, fast, reinforced" in capsys.readouterr().err

    def answer(body):
        page = SNAKE.replace("KEYS", KEYS).replace("LOOP", LOOPS["interval"])
        if body["model"] == "teacher":
            return Said(f"Here it is:\n```html\n{page[:300]}", finish_reason="length")
        return f"```html\n{page}\n```" if body["temperature"] == 0 else "I cannot."

    with serve(answer) as (endpoint, seen):
        for _ in range(2):  # the second time all is there already
            assert command("ask", "r", "--engine", endpoint, "--teacher", endpoint, "--samples", 2) == 0
    assert len(seen) == 2 * 2 * 3 and {body["max_tokens"] for body in seen} == {gallery.TOKENS}
    assert {(body["temperature"], body.get("seed")) for body in seen} == {(0.0, None), (0.6, 1), (0.6, 2)}
    opened = []

    def looked_at(program, file):
        opened.append(file.name)
        return {"errors": [], "changed": True}

    monkeypatch.setattr(pages, "looked_at", looked_at)
    monkeypatch.setattr(gallery, "browser", lambda: "chromium")
    assert command("look", "r", "--out", tmp_path / "pages.json") == 0
    found = json.loads((tmp_path / "pages.json").read_text())
    assert found["command"].startswith("python benchmarks/pages.py ask r") and "commit" in found
    rows = {(row["student"], row["page"], row["sample"]): row for row in found["rows"]}
    assert len(rows) == 12 and len(opened) == 2 + 6
    assert rows["fast", "snake", 0] == {
        "student": "fast", "page": "snake", "sample": 0, "temperature": 0.0, "file": "fast-snake-0.html", "whole": True,
        "cut_off": False, "tokens": rows["fast", "snake", 0]["tokens"], "errors": [], "changed": True,
    }  # fmt: skip
    assert rows["fast", "snake", 1]["file"] is None and rows["fast", "snake", 1]["errors"] is None
    assert rows["teacher", "landing", 2]["cut_off"] and not rows["teacher", "landing", 2]["whole"]
