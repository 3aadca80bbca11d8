"""Stops asking when most answers are cut off: the budget of tokens is too small, and each of them costs."""

from __future__ import annotations

from distil.llm.cache import ChatError, Reply

ENOUGH = 20  # answers, before they say anything of the rest


class CutOff:
    """Counts the answers of one map, those cut off at `max_tokens`. Without `limit`, its parameter, it never stops."""

    def __init__(self, limit: str, max_tokens: int):
        self.limit, self.max_tokens = limit, max_tokens
        self.answers = self.cut = self.silent = 0

    def note(self, reply: Reply, label: str) -> None:
        """Count an answer. Raises ChatError when more than half of ENOUGH or more were cut off."""
        self.answers += 1
        if reply.finish_reason == "length":
            self.cut += 1
            self.silent += not reply.text
        if not self.limit or self.answers < ENOUGH or self.cut * 2 <= self.answers:
            return
        silent = f"; {self.silent} of them thought until the limit and said nothing" if self.silent else ""
        raise ChatError(
            f"{self.cut} of the first {self.answers} {label} were cut off at {self.max_tokens} tokens{silent}. All "
            f"answers are kept. Raise it with --set {self.limit}=N and give the command again: what a model thinks "
            "counts, so a thinking model wants 8192 to 32768 for a chain, and 4096 for a verdict"
        )
