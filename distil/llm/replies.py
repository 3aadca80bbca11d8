"""Reads what a server answers: a chat completion as one JSON object, or as a stream of server-sent events."""

from __future__ import annotations

import json
import re
from typing import Any

from distil.llm.cache import Reply

LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half of a character, which JSON may carry and no file or request can
EVENTS = (b"data:", b":", b"event:", b"id:", b"retry:")  # how a line of a stream begins
SHOWN = 4096  # bytes of an answer that an error keeps; whoever shows them masks keys first, and then cuts
BATCH = 1 << 16  # bytes that are read at once: to read each piece as it comes takes more of the processor's time
ENDED = ("eos", "eos_token", "end_turn", "stop_sequence")  # what some servers call it if a model ended by itself
BROKEN_OFF = ("error", "insufficient_system_resource")  # finish reasons of a server that could not go on
THOUGHTS = ("reasoning_content", "reasoning")  # where servers put what a model thought: some in both


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
        self.spoke, self.finish_reason, self.usage = False, "", {}

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. Raises ValueError as `reply` does."""
        self.pieces.append(piece)
        self.size += len(piece)
        if self.size >= BATCH and self.streams is not False:
            self._read()

    def reply(self) -> Reply:
        """The whole answer. Raises ValueError if it is broken, not whole, an error, or says nothing."""
        self._read()
        rest = b"".join(self.pieces)
        if not self.streams:
            return read_reply(json.loads(rest))
        self._event(rest)
        if not self.finish_reason:
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
        if not data or data == b"[DONE]":
            return
        chunk = json.loads(data)
        try:
            if error := chunk.get("error"):
                raise ValueError(f"an error within the stream: {error_words(error)}")
            self.usage = chunk.get("usage") or self.usage
            for choice in chunk.get("choices") or ():
                delta = choice.get("delta") or {}
                if (text := delta.get("content")) is not None:
                    self.spoke = True
                    self.said.append("" + text)  # a TypeError for what is no text
                if text := delta.get(THOUGHTS[0]) or delta.get(THOUGHTS[1]):
                    self.thought.append("" + text)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
        except (TypeError, AttributeError):
            raise ValueError("no piece of an answer in the stream") from None


def read_reply(answer: Any) -> Reply:
    """A chat completion as a Reply. Raises ValueError for an error, an answer that says nothing, or another shape."""
    try:
        if error := answer.get("error"):
            raise ValueError(error_words(error))
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        fields = [message.get(name) for name in THOUGHTS]
        reasoning = next((text for text in fields if text and isinstance(text, str)), None)
        finish_reason = choice.get("finish_reason") or ""
        finish_reason = "stop" if finish_reason in ENDED else finish_reason
        if finish_reason in BROKEN_OFF:
            raise ValueError(f"the server broke off with finish_reason {finish_reason}")
        if message.get("content") is None and not reasoning and finish_reason in ("", "stop"):
            raise ValueError("the message says nothing")
        text, reasoning = split_reasoning(message.get("content") or "", reasoning)
        text, reasoning = LONE_SURROGATE.sub("\ufffd", text), LONE_SURROGATE.sub("\ufffd", reasoning)
        prompt, completion = (int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens"))
        counted = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        share = len(reasoning) / max(1, len(reasoning) + len(text))
        thought = round(completion * share) if counted is None else int(counted)
        return Reply(text, reasoning, finish_reason, prompt, completion, reasoning_tokens=thought)
    except (LookupError, TypeError, AttributeError):
        raise ValueError("no choice with a message") from None


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
