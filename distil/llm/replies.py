"""Reads what a server answers: a chat completion as one JSON object, or as a stream of server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any

from distil.llm.cache import Reply
from distil.llm.finish import BROKEN_OFF, finish_reason

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which JSON may carry and no file or request can
EVENTS = (b"data:", b":", b"event:", b"id:", b"retry:")  # how a line of a stream begins
SHOWN = 4096  # bytes of an answer that an error keeps; whoever shows them masks keys first, and then cuts
BATCH = 1 << 16  # bytes that are read at once: to read each piece as it comes takes more of the processor's time
THOUGHTS = ("reasoning_content", "reasoning")  # where servers put what a model thought: some in both
SAYS = re.compile(rb"^[^\s:]", re.MULTILINE)  # a line that is neither empty nor a comment to keep the connection alive


class ErrorAnswer(ValueError):
    """An error in place of an answer, or within one. `status` is the HTTP status that it names, or else 0."""

    def __init__(self, error: object):
        super().__init__(error_words(error))
        code = error.get("code") if isinstance(error, dict) else None
        self.status = int(code) if re.fullmatch(r"[45]\d\d", str(code)) else 0


class Answer:
    """One answer, from `feed`ing its bytes as they come to `reply`.

    A server may answer with JSON though it was asked to stream. Lines that keep the connection alive are passed over.
    """

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.size = 0
        self.head = b""  # the first bytes, for an error
        self.streams: bool | None = None  # not known before the first line
        self.said: list[str] = []
        self.thought: list[str] = []
        self.spoke, self.ended, self.finish_reason, self.usage = False, False, "", {}

    def feed(self, piece: bytes) -> bool:
        """Take the next bytes. Returns whether they are more than signs of life. Raises ValueError as `reply` does."""
        self.pieces.append(piece)
        self.size += len(piece)
        if self.size >= BATCH and self.streams is not False:
            self._read()
        return bool(SAYS.search(piece))

    def reply(self) -> Reply:
        """The whole answer. Raises ValueError if it is broken, not whole, an error, or says nothing."""
        self._read()
        rest = b"".join(self.pieces)
        if not self.streams:
            return read_reply(json.loads(rest))
        self._event(rest)
        if not (self.finish_reason or self.ended):
            raise ValueError("the stream ended before the answer did")
        message = {"content": "".join(self.said) if self.spoke else None, THOUGHTS[0]: "".join(self.thought)}
        return read_reply({"choices": [{"message": message, "finish_reason": self.finish_reason}], "usage": self.usage})

    def _read(self) -> None:
        data = b"".join(self.pieces)
        self.head = self.head or data[:SHOWN]
        if self.streams is None and (begin := data.lstrip()):
            self.streams = begin.startswith(EVENTS)
        if self.streams:
            *lines, data = data.split(b"\n")
            for line in lines:
                self._event(line)
        self.pieces, self.size = [data], 0

    def _event(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        self.ended = self.ended or data == b"[DONE]"
        if not data or data == b"[DONE]":
            return
        chunk = json.loads(data)
        try:
            if error := chunk.get("error"):
                raise ErrorAnswer(error)
            self.usage = chunk.get("usage") or self.usage
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                text, thought = said_and_thought(delta)
                self.spoke = self.spoke or text is not None
                self.said.append(text or "")
                self.thought.append(thought)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        except (TypeError, AttributeError):
            raise ValueError("no piece of an answer in the stream") from None


def read_reply(answer: Any) -> Reply:
    """A chat completion as a Reply. Raises ValueError for an error, an answer that says nothing, or another shape."""
    try:
        if error := answer.get("error"):
            raise ErrorAnswer(error)
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        said, thought = said_and_thought(message)
        reason = finish_reason(choice.get("finish_reason"))
        if reason in BROKEN_OFF:
            raise ValueError(f"the server broke off with finish_reason {reason}")
        if said is None and not thought and reason in ("", "stop"):
            raise ValueError("the message says nothing")
        text, reasoning = split_reasoning(said or "", thought)
        text, reasoning = LONE_SURROGATE.sub("\ufffd", text), LONE_SURROGATE.sub("\ufffd", reasoning)
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        counted = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        share = len(reasoning) / max(1, len(reasoning) + len(text))
        thinking = round(completion * share) if counted is None else int(counted)
        return Reply(text, reasoning, reason, prompt, completion, reasoning_tokens=thinking)
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no choice with a message") from None


def said_and_thought(message: dict) -> tuple[str | None, str]:
    """(text, thought) of a message, or of a piece of one; None if no text is in it. Raises TypeError for what is none.

    A content may be a list of parts: {"type": "text", "text": ...}, or {"type": "thinking", "thinking": ...}.
    """
    content = message.get("content")
    thoughts = [text for name in THOUGHTS if isinstance(text := message.get(name), (str, list)) and text]
    thought = joined(thoughts[0]) if thoughts else ""
    if not isinstance(content, list):
        return content if content is None else "" + content, thought
    parts = [part if isinstance(part, dict) else {"text": part} for part in content]
    inner = [joined(part.get("thinking") or part.get("text") or "") for part in parts if is_thought(part)]
    said = [joined(part["text"]) for part in parts if not is_thought(part) and part.get("text") is not None]
    return "".join(said) if said else None, thought or "".join(inner)


def is_thought(part: dict) -> bool:
    """Is a part of a content what the model thought?"""
    return str(part.get("type")).startswith(("thinking", "reasoning"))


def joined(text: str | list) -> str:
    """A text, or the texts of a list of parts, as one. Raises TypeError or AttributeError for what is none."""
    return "" + text if isinstance(text, str) else "".join(part["text"] for part in text)


def split_reasoning(text: str, reasoning: str | None) -> tuple[str, str]:
    """(answer, reasoning) from a message, whether the reasoning came in a field or between <think> tags."""
    if reasoning:
        return text.strip(), reasoning.strip()
    if "</think>" in text:  # the opening tag is often part of the template and not sent
        before, after = text.split("</think>", 1)
        return after.strip(), before.replace("<think>", "").strip()
    if text.lstrip().startswith("<think>"):  # cut off while still thinking
        return "", text.replace("<think>", "", 1).strip()
    return text.strip(), ""


def error_of(raw: bytes) -> dict:
    """The error of a response that is one, as the usual JSON has it; empty for any other body."""
    try:
        answer = json.loads(raw)
        error = answer.get("error", answer)
        return error if isinstance(error, dict) else {"message": str(error)}
    except (ValueError, AttributeError):
        return {}


def error_words(error: object) -> str:
    """What an error says: its message and code."""
    if not isinstance(error, dict):
        return str(error)
    return " ".join(str(error[k]) for k in ("message", "detail", "code", "type") if error.get(k))


def error_message(raw: bytes) -> str:
    """The message of an error response: message and code of the usual JSON, or the text of the body; not shortened."""
    return error_words(error_of(raw)) or raw.decode(errors="replace")
