"""Pages of a student: found in its answer, shown without network or parent, photographed."""

import http.server
import re
import subprocess
import threading

import pytest

from distil.evaluate import gallery
from distil.models.student import load, load_tokenizer
from distil.models.weights import tiny_random

PAGE = "<!doctype html><html><body><h1>Hi</h1></body></html>"


@pytest.mark.parametrize(("text", "page"), [
    (f"Here:\n```html\n{PAGE}\n```\nEnjoy.", PAGE),
    (f"```\n{PAGE}\n```", PAGE),
    (f"<think>```html\n<p>draft</p>\n```</think>```html\n{PAGE}\n```", PAGE),
    (f"```html\n{PAGE}", PAGE),
    (f"Sure! {PAGE}", PAGE),
    ("```css\np {}\n```\n", None),
    ("No page today.", None),
    ("", None),
])  # fmt: skip
def test_the_page_in_an_answer(text, page):
    assert gallery.page_of(text) == page


def test_a_page_cannot_leave_its_attribute():
    nasty = '"></iframe><script>steal()</script><iframe srcdoc="'
    assert gallery.boxed(nasty).count("<iframe") == 1 and "<script>" not in gallery.boxed(nasty)
    assert gallery.frame(nasty).count("<iframe") == 1
    assert re.findall(r'sandbox="([^"]*)"', gallery.boxed(nasty)) == ["allow-scripts"]


def test_pages_are_asked_once_and_an_answer_without_one_says_so(tmp_path, capsys):
    folder = str(tiny_random(tmp_path / "tiny"))
    settings = {"weights": "w", "name": "fast", "engine": "transformers", "max_new_tokens": 8}
    rows = gallery.generate(lambda: (load(folder), load_tokenizer(folder)), tmp_path / "gallery", **settings)
    assert [row.page for row in rows] == ["landing", "snake"]
    assert all(row.file is None and row.n_tokens <= 8 for row in rows)

    def refuse():
        raise AssertionError("it was asked before")

    assert gallery.generate(refuse, tmp_path / "gallery", **settings) == rows
    with pytest.raises(AssertionError, match="asked before"):
        gallery.generate(refuse, tmp_path / "gallery", **settings | {"weights": "others"})
    gallery.show(rows, tmp_path / "gallery")


def test_a_served_students_page_is_kept_and_shown(tmp_path, project, monkeypatch):
    import IPython.display
    from loopback import serve

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda thing: shown.append(thing.data))
    monkeypatch.setattr(gallery, "screenshot", lambda content, path: False)
    settings = {"weights": "w", "name": "fast", "max_new_tokens": 4096}
    with serve(lambda body: f"```html\n{PAGE}\n```") as (endpoint, seen):
        rows = gallery.generate(None, tmp_path / "gallery", engine=endpoint, **settings)
    assert [body["max_tokens"] for body in seen] == [4096, 4096]
    assert {row.file for row in rows} == {"landing.html", "snake.html"}
    assert (tmp_path / "gallery" / "snake.html").read_text() == PAGE
    gallery.show(rows, tmp_path / "gallery")
    assert len(shown) == 2 and all('sandbox="allow-scripts"' in text and "default-src" in text for text in shown)


class Visits(http.server.BaseHTTPRequestHandler):
    seen: list[str] = []

    def do_GET(self) -> None:
        Visits.seen.append(self.path)
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def address():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Visits)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Visits.seen = []
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


# each way out on its own, so that one that works does not hide behind one that does not
ESCAPES = {
    "image": '<img src="URL/image">',
    "script": '<script src="URL/script"></script>',
    "style": '<link rel="stylesheet" href="URL/style">',
    "fetch": '<script>fetch("URL/fetch")</script>',
    "beacon": '<script>navigator.sendBeacon("URL/beacon", "x")</script>',
    "socket": '<script>new WebSocket("URL/socket".replace("http", "ws"))</script>',
    "itself": '<script>location = "URL/itself"</script>',
    "refresh": '<meta http-equiv="refresh" content="0;url=URL/refresh">',
    "frame": '<iframe src="URL/frame"></iframe>',
    "form": '<form action="URL/form"><input></form><script>document.forms[0].submit()</script>',
    "top": '<script>top.location = "URL/top"</script>',
    "popup": '<script>window.open("URL/popup")</script>',
    "preload": '<link rel="preload" as="image" href="URL/preload">',
    "base": '<base href="URL/"><img src="base">',
}
TAKE = 'try { WHO.document.title = "taken" } catch (e) {}'
PARENT = "<script>" + TAKE.replace("WHO", "parent") + TAKE.replace("WHO", "top") + "</script>"


def dom(path) -> str:
    """What a browser makes of a file within three seconds, with the network open."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-popup-blocking", "--dump-dom"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=3000", path.as_uri()], capture_output=True, text=True, timeout=60
    )
    return done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("way", ESCAPES)
def test_a_page_that_tries_to_reach_the_network_does_not(way, address, tmp_path):
    page = f"<!doctype html><p>here</p>{ESCAPES[way].replace('URL', address)}"
    file = tmp_path / "page.html"
    file.write_text(page)
    for _ in range(3):  # a busy machine may end before the page does
        if not Visits.seen:
            dom(file)
    assert Visits.seen, "outside of its box it does"
    Visits.seen.clear()
    for box in (gallery.boxed(page), f"<!doctype html>{gallery.frame(page)}"):
        file.write_text(box)
        assert "iframe" in dom(file)
        assert Visits.seen == []


@pytest.mark.browser
def test_a_page_cannot_reach_its_parent(tmp_path):
    file = tmp_path / "page.html"
    open_frame = f"<!doctype html><title>ours</title><iframe srcdoc='{PARENT}'></iframe>"
    boxes = (
        f"<title>ours</title>{gallery.boxed(PARENT)}",
        f"<!doctype html><title>ours</title>{gallery.frame(PARENT)}",
    )
    for document, title in ((open_frame, "taken"), *((box, "ours") for box in boxes)):
        file.write_text(document)
        assert f"<title>{title}</title>" in dom(file)


@pytest.mark.browser
def test_a_page_is_photographed(tmp_path):
    red = "<!doctype html><body style='margin:0;background:red'><script>document.body.style.background='lime'</script>"
    assert gallery.screenshot(red, tmp_path / "page.png")
    import matplotlib.image

    picture = matplotlib.image.imread(tmp_path / "page.png")
    assert picture.shape[:2] == (800, 1200) and picture[400, 600, :3].tolist() == [0, 1, 0], "its script has run"
    assert list(tmp_path.iterdir()) == [tmp_path / "page.png"]


def test_without_a_browser_there_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery.shutil, "which", lambda _: None)
    assert not gallery.screenshot(PAGE, tmp_path / "page.png") and list(tmp_path.iterdir()) == []
