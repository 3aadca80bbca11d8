"""Tokens where nobody has counted them: an estimate by the bytes of a text, whatever its language and the model."""

from __future__ import annotations

BYTES_A_TOKEN = 4  # of UTF-8: four letters of English, one and a third characters of Chinese


def estimate(text: str) -> int:
    """About how many tokens a text has; 0 only for an empty one."""
    return max(1, len(text.encode(errors="replace")) // BYTES_A_TOKEN) if text else 0
