"""An OpenAI-compatible server on this machine for tests; `answer(body)` says what it replies.

It streams if it is asked to. `answer` and the list of what was seen get the request as it was meant: without the fields
that ask for a stream. The list's `raw` has the bodies whole, its `headers` those of each request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE = 40  # characters of a streamed answer that come at once


class Refusal(Exception):
    """Raised by an `answer` function: reply with this HTTP status instead, and a Retry-After (seconds) if given.

    `more` are further fields of the error, such as {"param": "temperature"}; `location` is where a redirect leads.
    """

    def __init__(
        self, status: int, message: str, retry_after: float | None = None, more: dict | None = None, location: str = ""
    ):
        super().__init__(message)
        self.status, self.more = status, more or {}
        self.headers = {"Location": location} if location else {}
        self.headers |= {} if retry_after is None else {"Retry-After": str(retry_after)}


class Raw(Exception):
    """Raised by an `answer` function: send these bytes with HTTP 200."""

    def __init__(self, data: bytes, content_type: str = "application/json"):
        self.data, self.content_type = data, content_type


class Cut(Exception):
    """Raised by an `answer` function: close the connection, without a word or in the middle of one."""


@dataclass(frozen=True)
class Said:
    """Returned by an `answer` function: what a model that thinks says. `field` is where its thoughts are sent.

    `tokens` are the completion tokens counted (else the words), `thought` those of them that were thought with.
    """

    text: str | None
    reasoning: str = ""
    finish_reason: str = "stop"
    field: str = "reasoning_content"
    tokens: int | None = None
    thought: int | None = None

    def usage(self) -> dict:
        """As servers count."""
        words = len(((self.text or "") + " " + self.reasoning).split())
        usage = {"prompt_tokens": 1, "completion_tokens": self.tokens or words, "total_tokens": 1}
        return usage | (
            {} if self.thought is None else {"completion_tokens_details": {"reasoning_tokens": self.thought}}
        )

    def whole(self, model: str) -> bytes:
        """One JSON object."""
        message = {"role": "assistant", "content": self.text} | ({self.field: self.reasoning} if self.reasoning else {})
        choice = {"index": 0, "finish_reason": self.finish_reason, "message": message}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": model}
        return json.dumps(answer | {"choices": [choice], "usage": self.usage()}).encode()

    def stream(self, model: str) -> bytes:
        """The same as events: thoughts, words, why it ended, what it took."""
        deltas = [{"role": "assistant", "content": None if self.text is None else ""}]
        for field, text in ((self.field, self.reasoning), ("content", self.text or "")):
            deltas += [{field: text[i : i + PIECE]} for i in range(0, len(text), PIECE)]
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish_reason}]})
        chunks.append({"choices": [], "usage": self.usage()})
        head = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": model}
        lines = [b"data: " + json.dumps(head | chunk).encode() for chunk in chunks]
        return b": keep-alive\n\n" + b"\n\n".join([*lines, b"data: [DONE]"]) + b"\n\n"


class Seen(list):
    """The requests seen so far, with `raw` bodies and `headers`."""

    def __init__(self) -> None:
        self.raw: list[dict] = []
        self.headers: list[dict] = []


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_) -> None:  # clients that were killed
        pass


@contextmanager
def serve(
    answer: Callable[[dict], str | Said], models: list[dict] | None = None, location: str = ""
) -> Iterator[tuple[str, Seen]]:
    """(endpoint, requests seen so far) of a server that runs until the block ends.

    `models` is what it lists, if it does; with `location` who asks for the list is sent there.
    """
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = {name: value for name, value in raw.items() if name not in ("stream", "stream_options")}
            seen.append(body)
            seen.raw.append(raw)
            seen.headers.append(dict(self.headers))
            status, kind, headers = 200, "application/json", {}
            try:
                said = answer(body)
                said = said if isinstance(said, Said) else Said(said)
                kind = "text/event-stream" if raw.get("stream") else kind
                data = said.stream(body["model"]) if raw.get("stream") else said.whole(body["model"])
            except Refusal as refusal:
                status, headers = refusal.status, refusal.headers
                data = json.dumps({"error": {"message": str(refusal)} | refusal.more}).encode()
            except Raw as given:
                data, kind = given.data, given.content_type
            except Cut as cut:
                self.wfile.write(str(cut).encode())
                self.close_connection = True
                return
            self.reply(status, kind, data, headers)

        def do_GET(self) -> None:
            seen.headers.append(dict(self.headers))
            known = self.path == "/v1/models" and models is not None
            data = json.dumps({"data": models}).encode()
            self.reply(302 if location else 200 if known else 404, "application/json", data, {"Location": location})

        def reply(self, status: int, kind: str, data: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()  # seconds until it sees its end
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", seen
    finally:
        server.shutdown()
