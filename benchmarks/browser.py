"""A headless Chromium that opens one page offline, presses keys, and says what came of it. On Linux and macOS.

It is spoken to through two pipes (Chrome DevTools Protocol, `--remote-debugging-pipe`), so that there is no port that a
page could reach. The page is the only request that is answered: every other one fails before it leaves the browser.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distil.evaluate.gallery import OFFLINE, POLICY
from distil.workspace.errors import StageError

ADDRESS = "http://page.invalid/"  # a page needs one to have a storage, as one from a file has
SANDBOX = "sandbox allow-scripts allow-same-origin; "  # no popups, forms or dialogs
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", *OFFLINE, "--hide-scrollbars", "--window-size=1200,800"]
OPTIONS += ["--force-webrtc-ip-handling-policy=disable_non_proxied_udp", "--no-first-run", "--remote-debugging-pipe"]
# Two loads of a page are alike: the same random numbers, and a clock that goes on only where `__passTime` is called.
ALIKE = """{
let state = 1, now = 0, last = 0
const timers = new Map(), begun = Date.UTC(2025, 0), wait = ms => Math.max(1, Number(ms) || 0)
const add = (call, ms, every) => (timers.set(++last, {call, at: now + ms, every}), last)
Math.random = () => (state = state * 16807 % 2147483647) / 2147483647
window.setTimeout = (f, ms, ...given) => add(() => f(...given), wait(ms))
window.setInterval = (f, ms, ...given) => add(() => f(...given), wait(ms), wait(ms))
window.requestAnimationFrame = f => add(() => f(now), 16)
window.clearTimeout = window.clearInterval = window.cancelAnimationFrame = id => {timers.delete(id)}
performance.now = () => now
Date.now = () => begun + now
window.Date = new Proxy(Date, {
  construct: (made, given, as) => Reflect.construct(made, given.length ? given : [begun + now], as),
  apply: made => new made(begun + now).toString(),
})
Object.defineProperty(window, '__passTime', {value: async ms => {
  const until = now + ms
  for (;;) {
    const [id, timer] = [...timers].filter(([, t]) => t.at <= until).sort((a, b) => a[1].at - b[1].at)[0] || []
    if (!timer) break
    now = timer.at
    if (timer.every) timer.at += timer.every; else timers.delete(id)
    try {timer.call()} catch (error) {reportError(error)}
    await null
  }
  now = until
}})
}"""
CANVAS = "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL()).join('\\n')"
KEYS = {"ArrowUp": 38, "ArrowLeft": 37}  # whichever way a snake goes, one of them turns it
STEP = 250  # milliseconds of the page's time before the first key, and after each
PATIENCE = 20  # seconds until a page that does not stop computing is given up


class Hangs(Exception):
    """A page has kept the browser busy for too long, or ended it."""


@dataclass(frozen=True)
class Look:
    """What a load of a page came to: its canvases (empty without one), its uncaught errors, a picture as PNG."""

    canvas: str
    errors: list[str]
    picture: bytes


class Chromium:
    """The browser at the other end of two pipes; `write` and `read` are their descriptors."""

    def __init__(self, write: int, read: int):
        self.write, self.read, self.number, self.rest = write, read, 0, b""
        self.page: str | None = None  # that is still to be given
        self.errors: list[str] = []

    def send(self, method: str, session: str | None, **params: object) -> int:
        """Send a command, and return its number."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        return self.number

    def hear(self, until: float) -> dict:
        """The next message; requests of the page are answered on the way. Raises Hangs after the time `until`."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self.read, 2**16) if ready else b""
            if not piece:
                raise Hangs
            self.rest += piece
        line, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Fetch.requestPaused":
            self.answer(message["sessionId"], message["params"])
        elif message.get("method") == "Runtime.exceptionThrown":
            about = message["params"]["exceptionDetails"]
            self.errors.append((about.get("exception", {}).get("description") or about["text"]).split("\n")[0])
        return message

    def answer(self, session: str, request: dict) -> None:
        """Give the page itself, once; fail every other request."""
        which, url = {"requestId": request["requestId"]}, request["request"]["url"]
        if url != ADDRESS or self.page is None:
            self.send("Fetch.failRequest", session, **which, errorReason="BlockedByClient")
            return
        heads = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": SANDBOX + POLICY}
        heads = [{"name": name, "value": value} for name, value in heads.items()]
        body, self.page = base64.b64encode(self.page.encode("utf-8", "replace")).decode(), None
        self.send("Fetch.fulfillRequest", session, **which, responseCode=200, responseHeaders=heads, body=body)

    def call(self, method: str, session: str | None = None, **params: object) -> dict:
        """The result of a command. Raises Hangs."""
        number, until = self.send(method, session, **params), time.monotonic() + PATIENCE
        while (message := self.hear(until)).get("id") != number:
            pass
        if "error" in message:
            raise RuntimeError(f"Chromium refused {method}: {message['error']}")
        return message["result"]

    def look(self, page: str, keys: bool) -> Look:
        """Load a page from its beginning, with a storage of its own; press KEYS or only wait as long. Raises Hangs."""
        self.page, self.errors = page, []
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Page", "Fetch"):
            self.call(f"{domain}.enable", session)
        self.call("Page.addScriptToEvaluateOnNewDocument", session, source=ALIKE)
        self.call("Page.navigate", session, url=ADDRESS)
        until, go_on = time.monotonic() + PATIENCE, {"expression": f"__passTime({STEP})", "awaitPromise": True}
        while self.hear(until).get("method") != "Page.loadEventFired":
            pass
        self.call("Runtime.evaluate", session, **go_on)
        for key, code in KEYS.items():
            for what in ("keyDown", "keyUp") if keys else ():
                about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
                self.call("Input.dispatchKeyEvent", session, type=what, **about)
            self.call("Runtime.evaluate", session, **go_on)
        canvas = self.call("Runtime.evaluate", session, expression=CANVAS)["result"].get("value", "")
        picture = base64.b64decode(self.call("Page.captureScreenshot", session)["data"])
        self.call("Target.disposeBrowserContext", browserContextId=context)
        return Look(canvas, self.errors, picture)


@contextmanager
def chromium(program: str) -> Iterator[Chromium]:
    """A browser of its own, ended after the block. Raises StageError if it does not start."""
    ours, theirs = os.pipe(), os.pipe()  # (read, write) of what it is told, and of what it says

    def connect() -> None:  # in the new process: it reads its descriptor 3 and writes to 4
        told, says = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (ours[0], theirs[1]))
        os.dup2(told, 3)
        os.dup2(says, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, preexec_fn=connect, pass_fds=(3, 4), **quiet)
        for end in (ours[0], theirs[1]):
            os.close(end)
        try:
            started = Chromium(ours[1], theirs[0])
            try:
                started.call("Browser.getVersion")
            except (Hangs, BrokenPipeError):
                raise StageError(
                    f"{program} does not start: does `{program} --headless --dump-dom about:blank`?"
                ) from None
            yield started
        finally:
            process.kill()
            process.wait()
            for end in (ours[1], theirs[0]):
                os.close(end)
