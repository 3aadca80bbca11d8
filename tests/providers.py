"""Servers on this machine that behave as the recipe's endpoints do, and models behind them.

`serve(models, mind)` is one endpoint. A `Model` says how an answer comes; what it says is right, since its `Mind` knows
the answers. Tokens are words.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from loopback import Server
from minds import Mind, thought

PIECE = 400  # words of a stream's chunk
STREAM_ONLY = "parameter.enable_thinking must be set to false for non-streaming calls"


@dataclass(frozen=True)
class Model:
    """How a model answers. `shows` is where its thought goes: a field of the message, `tags`, `closing tag`, `nowhere`,
    or "" if it does not think. `thinks` are the least and most words of a thought.
    """

    shows: str = ""
    thinks: tuple[int, int] = (1500, 6000)
    stream_only: bool = False
    context: int | None = None  # tokens, told by GET /models
    newest: bool = False  # OpenAI's: max_completion_tokens, no temperature but 1
    refuses: tuple[str, ...] = ()  # fields that it knows and refuses


class Refused(Exception):
    """HTTP 400 (or `status`) with these words; `param` is what the error names."""

    def __init__(self, message: str, param: str | None = None, status: int = 400):
        super().__init__(message)
        self.param, self.status = param, status


@dataclass
class Endpoint:
    """A running server: its address, and what it saw. `requests` are those that it answered, whole."""

    url: str = ""
    keys: list[str] = field(default_factory=list)  # of every request, in order
    requests: list[dict] = field(default_factory=list)
    refused: Counter = field(default_factory=Counter)  # by message
    cut_off: int = 0
    hold_at: int | None = None  # after so many answers the next wait for `release`
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        return self.url.split("/")[2]


def check(body: dict, model: Model) -> None:
    """Raise Refused as the real endpoint does."""
    if any("reasoning_content" in message for message in body["messages"]):
        raise Refused("The reasoning_content is an input field that is not allowed")
    for name in model.refuses:
        if name in body:
            raise Refused(f"This model does not support {name}.", name)
    if model.stream_only and not (body.get("stream") or told_not_to(body)):
        raise Refused(STREAM_ONLY)
    if model.newest and "max_tokens" in body:
        words = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        raise Refused(f"Unsupported parameter: {words}", "max_tokens")
    if model.newest and body.get("temperature", 1) != 1:
        words = "'temperature' does not support this value. Only the default (1) value is supported."
        raise Refused(f"Unsupported value: {words}", "temperature")
    if model.context and body["max_tokens"] >= model.context:
        raise Refused(f"This model's maximum context length is {model.context} tokens.")


@dataclass
class Answer:
    """What a model writes within its budget: the thought, the text (None if the budget ended before), and counts."""

    thought: list[str]
    text: list[str] | None
    finish: str
    prompt_tokens: int

    @property
    def usage(self) -> dict:
        said = len(self.thought) + len(self.text or [])
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": said,
            "total_tokens": self.prompt_tokens + said,
            "completion_tokens_details": {"reasoning_tokens": len(self.thought)},
        }


def write(body: dict, model: Model, mind: Mind) -> Answer:
    """Think, then say: both count, and what is over the budget is not written."""
    budget = body.get("max_completion_tokens") or body["max_tokens"]
    _, question, _ = mind.reads(body)
    words = thought(question, body.get("seed", 0), *model.thinks) if model.shows and not told_not_to(body) else []
    text = mind.says(body).split(" ")
    prompt = sum(len(message["content"].split()) for message in body["messages"])
    if len(words) >= budget:
        return Answer(words[:budget], None, "length", prompt)
    left = budget - len(words)
    return Answer(words, text[:left], "stop" if len(text) <= left else "length", prompt)


def told_not_to(body: dict) -> bool:
    """Is the model asked not to think, in DashScope's way or in vLLM's?"""
    return body.get("enable_thinking") is False or not body.get("chat_template_kwargs", {}).get("enable_thinking", True)


def parts(answer: Answer, model: Model) -> list[tuple[str, str]]:
    """(field of a message, text) in the order in which they are written."""
    said, words = " ".join(answer.text or []), " ".join(answer.thought)
    if not answer.thought or model.shows == "nowhere":
        return [("content", said)]
    if model.shows in ("tags", "closing tag"):
        opened = ("<think>\n" if model.shows == "tags" else "") + words
        return [("content", opened if answer.text is None else f"{opened}\n</think>\n\n{said}")]
    return [(model.shows, words), ("content", said)]


@contextmanager
def serve(models: dict[str, Model], mind: Mind, key: str = "", pause: float = 0.0) -> Iterator[Endpoint]:
    """An endpoint with `models` by name that runs until the block ends; without a `key` it asks for none.

    `pause` is how many seconds it takes before an answer, with signs of life meanwhile.
    """
    seen = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.keys.append(self.headers.get("Authorization", ""))
            listed = [{"id": name} | ({"max_model_len": m.context} if m.context else {}) for name, m in models.items()]
            self.whole(200, {"object": "list", "data": listed})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.keys.append(self.headers.get("Authorization", ""))
            try:
                if key and self.headers.get("Authorization") != f"Bearer {key}":
                    raise Refused("Authentication Fails, Your api key is invalid", status=401)
                if body["model"] not in models:
                    raise Refused(f"The model `{body['model']}` does not exist.", status=404)
                check(body, models[body["model"]])
            except Refused as refusal:
                seen.refused[str(refusal)] += 1
                told = {"message": str(refusal), "type": "invalid_request_error", "param": refusal.param}
                self.whole(refusal.status, {"error": told})
                return
            if seen.hold_at is not None and len(seen.requests) >= seen.hold_at:
                seen.release.wait(60)
            answer = write(body, models[body["model"]], mind)
            (self.stream if body.get("stream") else self.at_once)(body, answer)
            seen.requests.append(body)
            seen.cut_off += answer.finish == "length"

        def at_once(self, body: dict, answer: Answer) -> None:
            time.sleep(pause)
            message = {"role": "assistant"} | dict(parts(answer, models[body["model"]]))
            choice = {"index": 0, "finish_reason": answer.finish, "message": message}
            self.whole(200, {"model": body["model"], "choices": [choice], "usage": answer.usage})

        def stream(self, body: dict, answer: Answer) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for sign in ("\n", ": keep-alive\n\n"):
                self.chunk(sign)
                time.sleep(pause / 2)
            for name, text in parts(answer, models[body["model"]]):
                words = text.split(" ")
                for i in range(0, len(words), PIECE):
                    piece = " ".join(words[i : i + PIECE]) + (" " if i + PIECE < len(words) else "")
                    self.event({"choices": [{"index": 0, "delta": {name: piece}, "finish_reason": None}]})
            self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": answer.finish}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                self.event({"choices": [], "usage": answer.usage})
            self.chunk("data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")

        def event(self, value: dict) -> None:
            self.chunk(f"data: {json.dumps(value)}\n\n")

        def chunk(self, text: str) -> None:
            data = text.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()

        def whole(self, status: int, value: dict) -> None:
            data = b"\n" + json.dumps(value).encode()  # an empty line is a sign of life
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield seen
    finally:
        server.shutdown()


# as published: DeepSeek's API, DashScope (Qwen), vLLM and SGLang with and without a parser, OpenAI's newest
DEEPSEEK = {
    "deepseek-chat": Model(),
    "deepseek-reasoner": Model(shows="reasoning_content", thinks=(2000, 8000), refuses=("logprobs", "top_logprobs")),
}
DASHSCOPE = {
    "qwq-32b": Model(shows="reasoning_content", thinks=(300, 2500), stream_only=True),
    "qwen3-32b": Model(shows="reasoning_content", thinks=(300, 2500), stream_only=True),
}
VLLM = {"Qwen/QwQ-32B": Model(shows="reasoning", thinks=(300, 2500), context=32768)}
SGLANG = {"Qwen/QwQ-32B": Model(shows="reasoning_content", thinks=(300, 2500), context=32768)}
WITHOUT_PARSER = {"Qwen/QwQ-32B": Model(shows="closing tag", thinks=(300, 2500), context=32768)}
OPENAI = {"o4-mini": Model(shows="nowhere", thinks=(300, 2500), newest=True)}
