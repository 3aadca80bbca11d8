"""Why an answer ended. Servers have many words for it; `stop`, `length` and `content_filter` are those used here."""

from __future__ import annotations

WORDS = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "end", "completed"),
    "length": ("length", "max_tokens", "max_output_tokens", "max_length", "model_length"),
    "content_filter": ("content_filter", "safety", "sensitive", "refusal", "blocklist", "prohibited_content"),
}
FILTERED = "refused by the provider's content filter"
# of a server that could not go on: what it said is no answer
BROKEN_OFF = ("error", "insufficient_system_resource", "network_error", "abort", "aborted", "cancelled")


def finish_reason(word: object) -> str:
    """A server's word as one of ours; another word as it is; "" where there is none.

    >>> finish_reason("MAX_TOKENS"), finish_reason("tool_calls"), finish_reason(None)
    ('length', 'tool_calls', '')
    """
    word = str(word or "").strip().casefold()
    return next((ours for ours, theirs in WORDS.items() if word in theirs), word)


def why_unfinished(text: str, reason: str) -> str | None:
    """Why what a model said is no whole answer, in words; None for one that ended by itself."""
    if reason == "length":
        return "cut off at the token limit" if text.strip() else "thought until the token limit, said nothing"
    if reason == "content_filter":
        return FILTERED
    if reason not in ("", "stop"):
        return f"ended by {reason}"
    return None if text.strip() else "said nothing"
