"""Replies by request, on disk: the cache, the resume after a crash, and the recording that a class replays.

A store is an append-only JSON Lines file. Each line begins with the key of its request. Memory holds keys and offsets
only, so that 200,000 replies fit; a reply is read from the file when it is asked for.

Two endpoints may serve different weights under one name. So a line notes who answered (`addresses.answerer`): the host
of a provider, or `own` for every server of one's own, since those move from port to port and from node to node. Two of
one's own with different weights need different names (vLLM: --served-model-name). A line that notes nobody, as those of
recordings and of older stores, answers for all.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from distil.llm.finish import BROKEN_OFF, finish_reason
from distil.llm.tokens import estimate
from distil.workspace.files import appending, write_all

HEAD = b'{"key": "'
START = re.compile(  # how a line begins: its key, its cost if there was a price, who answered, the model in JSON
    rb'\{"key": "([0-9a-f]{64})", (?:"dollars": ([0-9.e+-]+), )?(?:"host": "([^"\\]*)", )?'
    rb'"request": \{"model": ("(?:[^"\\]|\\.)*")'
)
ENDED = re.compile(rb'"finish_reason": "([^"\\]*)", (?:"\w+": \w+, )*"prompt_tokens": ')  # stands before USAGE
USAGE = re.compile(rb'"prompt_tokens": (\d+), "completion_tokens": (\d+)\}\}\s*$')  # how every line ends


class ChatError(RuntimeError):
    """The endpoint, the recording or the store cannot be used as asked; the message says why and what to do."""


@dataclass(frozen=True)
class Reply:
    """One answer: `text` without the reasoning, `reasoning` (may be empty), tokens by the server's own count.

    With the finish_reason `length` it was cut off. If then `text` is empty, the model thought until the limit and said
    nothing. `reasoning_tokens` are those of `completion_tokens` that it thought with: by the server's count or else by
    the share of characters; 0 without reasoning, and in answers of stores that do not say it. `estimated`: the server
    counted nothing, and the tokens are `tokens.estimate`s.
    """

    text: str
    reasoning: str
    finish_reason: str
    reasoning_tokens: int = field(default=0, kw_only=True)  # here, so that a stored line ends in the two counts below
    estimated: bool = field(default=False, kw_only=True)
    prompt_tokens: int
    completion_tokens: int

    def read_for(self, body: dict) -> Reply:
        """The reply to this request with one of our finish reasons, and tokens where the server counted none.

        Without a finish reason it was cut off if it has the tokens of the whole budget, and else ended by itself.
        """
        counted, said = self.completion_tokens, self.text or self.reasoning
        reason = finish_reason(self.finish_reason) or ("length" if counted >= body["max_tokens"] else "stop")
        if counted or not said:
            return dataclasses.replace(self, finish_reason=reason)
        text, thought = estimate(self.text), estimate(self.reasoning)
        prompt = self.prompt_tokens or estimate(text_of(body))
        return Reply(
            self.text, self.reasoning, reason, prompt, text + thought, reasoning_tokens=thought, estimated=True
        )


def request(
    model: str,
    prompt: list[dict],
    *,
    max_tokens: int,
    temperature: float = 0.0,
    seed: int = 0,
    extra: dict | None = None,
) -> dict:
    """A chat request. Greedy requests carry no seed, so that asking twice is asking once.

    `extra` is merged into the body, for what only some servers know: {"chat_template_kwargs": {...}}. What is null in
    it is left out when the request is sent, and stays what it is here: samples differ by their seeds.
    """
    body = {"model": model, "messages": prompt, "max_tokens": max_tokens, "temperature": temperature}
    more = {name: value for name, value in (extra or {}).items() if value is not None}
    return body | ({"top_p": 0.95, "seed": seed} if temperature > 0 else {}) | more


def text_of(body: dict) -> str:
    """The messages of a request as one text."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in body["messages"])


def request_key(body: dict) -> str:
    """SHA-256 of the whole request, independent of the order of its fields and of the endpoint's address."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def recording_file(name: str) -> Path:
    """The file of a shipped recording. Raises ChatError for an unknown name, listing those there are."""
    folder = resources.files("distil") / "recorded"
    file = folder / name / "responses.jsonl.xz"
    if not file.is_file():
        known = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("_"))
        raise ChatError(f"no recording {name!r}; there are: {', '.join(known) or 'none'}")
    return file


@functools.lru_cache(maxsize=1)  # every role of a stage asks for the same one
def read_recording(name: str) -> bytes:
    """A shipped recording as a store's lines. Raises ChatError for an unknown name."""
    lines = []
    for line in lzma.decompress(recording_file(name).read_bytes()).splitlines():
        key = request_key(json.loads(line)["request"])  # keys do not compress: they are not shipped
        lines.append(HEAD + key.encode() + b'", ' + line[1:] + b"\n")
    return b"".join(lines)


class Store:
    """Replies by request: in the file `path`, or with `recording` those of a shipped recording, read only.

    `host` is who is asked: answers of others are not given. What a server sent when it broke off is passed over.

    Several processes may use the same file. Each appends whole lines under a lock, after it has read what the others
    appended. `dollars` is what all replies that say so have cost together; `unpriced` has the prompt and completion
    tokens of the others, by model (as JSON has it). Raises ChatError for a line that holds no reply, and from `put` if
    the disk is full.
    """

    def __init__(self, path: Path | None = None, recording: str | None = None, host: str = ""):
        self.path, self.host = path, host.encode()
        # digest of the request, behind it who answered -> offset and length of the line
        self.places: dict[bytes, tuple[int, int]] = {}
        self._forget()
        self.memory = bytearray()  # the lines, where there is no file
        if recording:
            self.memory += read_recording(recording)
            for line in bytes(self.memory).splitlines(keepends=True):
                self._note(line)
        self.refresh()

    def _forget(self) -> None:
        self.places.clear()
        self.end, self.dollars = 0, 0.0  # every whole line before the byte `end` is in `places`
        self.unpriced: dict[bytes, list[int]] = {}

    def refresh(self) -> None:
        """Find what others have stored since."""
        size = self.path.stat().st_size if self.path is not None and self.path.exists() else 0
        if self.path is not None and size < self.end:  # somebody has deleted the file
            self._forget()
        if size > self.end:
            self._index()

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, key: str) -> bool:
        digest = bytes.fromhex(key)
        return digest + self.host in self.places or digest in self.places

    def get(self, body: dict) -> Reply | None:
        """The answer to a request, or None."""
        digest = bytes.fromhex(request_key(body))
        found = digest + self.host if digest + self.host in self.places else digest
        return Reply(**self._row(found)["reply"]).read_for(body) if found in self.places else None

    def others(self, keys: Collection[str]) -> Counter[str]:
        """How many of these requests each other host has answered."""
        wanted = {bytes.fromhex(key) for key in keys}
        return Counter(place[32:].decode() for place in self.places if len(place) > 32 and place[:32] in wanted)

    def rows(self) -> Iterator[dict]:
        """Every answer once, as {key, request, reply}, in the order in which they were written."""
        for place in list(self.places):
            yield self._row(place)

    def put(self, body: dict, reply: Reply, dollars: float | None = None) -> None:
        """Append an answer in one piece, with what it cost; nothing if another process has stored one meanwhile."""
        about: dict = {} if dollars is None else {"dollars": round(dollars, 12)}
        about |= {"host": self.host.decode()} if self.host else {}
        said = {name: value for name, value in vars(reply).items() if name != "estimated" or value}
        row = {"key": request_key(body)} | about | {"request": body, "reply": said}
        line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
        if self.path is None:
            self.memory += line
            self._note(line)
            return
        try:
            self._append(row["key"], line)
        except OSError as error:
            why = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror
            raise ChatError(
                f"{self.path}: an answer could not be stored: {why}. The {len(self)} answers before it are kept; make "
                "room and give the command again: only what is missing will be asked"
            ) from None

    def _append(self, key: str, line: bytes) -> None:
        with appending(self.path) as handle:
            self.refresh()  # under the lock: another process may have stored it meanwhile
            if key not in self:
                write_all(handle, line)
                self._note(line)

    def _index(self) -> None:
        """Note every whole line from `end` on. A last line without its newline is still being written, or was torn."""
        with open(self.path, "rb") as lines:
            lines.seek(self.end)
            for line in lines:
                if line.endswith(b"\n"):
                    self._note(line)

    def _note(self, line: bytes) -> None:
        if line == b"\n":
            self.end += 1
            return
        usage, start = USAGE.search(line, max(0, len(line) - 100)), START.match(line)
        ended = ENDED.search(line, max(0, len(line) - 300))
        try:
            if start and usage and ended:
                key, (dollars, host, model), counts = start[1].decode(), start.groups()[1:], usage.groups()
                host, reason = host or b"", ended[1].decode()
            else:  # not as we write it: read the whole
                row = json.loads(line)
                key, dollars, model = row["key"], row.get("dollars"), json_name(row["request"]["model"])
                host, reply = (row.get("host") or "").encode(), row["reply"]
                counts, reason = (reply["prompt_tokens"], reply["completion_tokens"]), reply["finish_reason"]
            place, tokens = bytes.fromhex(key) + host, [int(count) for count in counts]
            cost = None if dollars is None else float(dollars)
        except (ValueError, KeyError, TypeError):
            where = f"{self.path}, the line at byte {self.end}"
            raise ChatError(f"{where}, holds no answer: delete that line and give the command again") from None
        broken_off = finish_reason(reason) in BROKEN_OFF
        if broken_off or place not in self.places:  # it was paid for, too
            if not broken_off:
                self.places[place] = (self.end, len(line))
            if cost is not None:
                self.dollars += cost
            else:
                sums = self.unpriced.setdefault(model, [0, 0])
                sums[:] = sums[0] + tokens[0], sums[1] + tokens[1]
        self.end += len(line)

    def _row(self, place: bytes) -> dict:
        start, length = self.places[place]
        if self.path is None:
            return json.loads(self.memory[start : start + length])
        with open(self.path, "rb") as lines:
            lines.seek(start)
            return json.loads(lines.read(length))


def json_name(model: str) -> bytes:
    """A model's name as a stored line has it."""
    return json.dumps(model, ensure_ascii=False).encode()
