"""Requests and tokens a minute: when may the next request start?"""

from __future__ import annotations

import asyncio
import time

from distil.llm.limits import Limits

CATCH_UP = 0.05  # seconds that a late start may be made good by the next, else timers make the pace too slow


class RateLimiter:
    """Spaces the starts of requests so that no minute holds more than `rpm` requests or `tpm` tokens."""

    def __init__(self, limits: Limits):
        self.request_s = 60 / limits.rpm if limits.rpm else 0.0
        self.token_s = 60 / limits.tpm if limits.tpm else 0.0
        self.free_at = self.paused_until = 0.0

    async def acquire(self, tokens: float, lock: asyncio.Lock) -> None:
        """Wait until a request of about so many tokens may start."""
        async with lock:  # first come, first served
            while (wait := max(self.free_at, self.paused_until) - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            begin = max(self.free_at, time.monotonic() - CATCH_UP)
            self.free_at = begin + max(self.request_s, tokens * self.token_s)

    def correct(self, tokens: float) -> None:
        """Account for a request that took so many tokens more (or fewer) than was estimated."""
        self.free_at += tokens * self.token_s

    def pause(self, seconds: float) -> None:
        """Start no request for so long: a server that asks one request to wait would ask the others, too."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)
