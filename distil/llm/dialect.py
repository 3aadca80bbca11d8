"""Which fields of a request an endpoint takes. What it refuses by name is learned once, and left out from then on."""

from __future__ import annotations

import re

from distil.llm.faults import TOO_LONG
from distil.llm.replies import error_of, error_words

STREAMING = {"stream": True, "stream_options": {"include_usage": True}}  # how it is sent, not what is asked
OPTIONAL = ("temperature", "top_p", "seed", "stream_options", "stream")
BUDGET, NEW_BUDGET = "max_tokens", "max_completion_tokens"
SAYS_NEW_BUDGET = re.compile(rf"\buse\W+{NEW_BUDGET}\b", re.IGNORECASE)
REFUSED = (400, 422)  # HTTP


class Dialect:
    """How requests for `model` are sent to `endpoint`: without the fields that are null in `extra`.

    `refused` maps each refused field to what became of it.
    """

    def __init__(self, endpoint: str, model: str, extra: dict):
        self.endpoint, self.model = endpoint, model
        self.left_out = [name for name, value in extra.items() if value is None]
        self.refused: dict[str, str] = {}

    def translate(self, body: dict) -> dict:
        """A request as this endpoint takes it: with the fields of the transport, without those that it refuses."""
        unwanted = {*self.refused, *self.left_out}
        sent = {name: value for name, value in (body | STREAMING).items() if name not in unwanted}
        if "stream" not in sent:
            sent.pop("stream_options", None)
        if BUDGET in self.refused:
            sent[NEW_BUDGET] = body[BUDGET]
        return sent

    def learn(self, sent: dict, status: int, raw: bytes) -> bool:
        """Does this response refuse a field of the request `sent` that it can go without? It is told once."""
        if status not in REFUSED:
            return False
        error = error_of(raw)
        words = error_words(error)
        if SAYS_NEW_BUDGET.search(words):
            name = BUDGET
        else:
            names = [] if TOO_LONG.search(words) else [n for n in OPTIONAL if re.search(rf"\b{n}\b", words)]
            names = [error["param"]] if error.get("param") in OPTIONAL else names
            name = next((n for n in names if n in sent), "")
        if name not in sent:
            return False
        if name not in self.refused:  # or another request has learned it meanwhile
            self.refused[name] = f"sent as {NEW_BUDGET}" if name == BUDGET else "left out"
            print(f"{self.endpoint} refuses {name} for {self.model}: {self.refused[name]}")
        return True

    def told(self) -> list[str]:
        """The fields that were refused or left out by the user, one a text."""
        refused = [name if fate == "left out" else f"{name}: {fate}" for name, fate in self.refused.items()]
        return [*refused, *self.left_out]
