"""One request to an OpenAI-compatible endpoint: paced, timed, tried again where that can help, read into a Reply.

On aiohttp, which needs a fraction of the processor time that the `openai` package needs for a request: with many under
way at once the client, not the endpoint, becomes what is waited for (benchmarks/results/collect.json has both).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import threading
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from distil.llm.cache import ChatError, Reply
from distil.llm.limits import Limits

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between attempts: doubled each time
LONGEST_ASKED = 600.0  # seconds; who is told to come back later than this has used up a quota
PASSING = (408, 409, 425, 429)  # of the 4xx, those that another attempt may mend
THIS_PROMPT = re.compile(r"content[_ ]filter|data_inspection|content exists risk", re.IGNORECASE)
NO_KEY = "none"  # what a server on this machine gets
LONE = re.compile("[\ud800-\udfff]")  # half of a character, which JSON may carry and no file or request can
CATCH_UP = 0.05  # seconds that a late start may be made good by the next, else timers make the pace too slow


class Failed(Exception):
    """This request has no answer, after all attempts; others may have one. The message is the reason."""


class Passing(Exception):
    """A fault that another attempt may mend; `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class Pacer:
    """Starts of requests, spaced so that no minute holds more than `rpm` requests or `tpm` tokens."""

    def __init__(self, limits: Limits):
        self.request_s = 60 / limits.rpm if limits.rpm else 0.0
        self.token_s = 60 / limits.tpm if limits.tpm else 0.0
        self.free_at = self.paused_until = 0.0

    async def turn(self, tokens: float, lock: asyncio.Lock) -> None:
        """Wait until a request of about so many tokens may start."""
        async with lock:  # first come, first served
            while (wait := max(self.free_at, self.paused_until) - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            begin = max(self.free_at, time.monotonic() - CATCH_UP)
            self.free_at = begin + max(self.request_s, tokens * self.token_s)

    def correct(self, tokens: float) -> None:
        """A request took so many tokens more (or fewer) than was thought."""
        self.free_at += tokens * self.token_s

    def pause(self, seconds: float) -> None:
        """Start nothing for so long: the server has asked one request to wait, and would ask the others."""
        self.paused_until = max(self.paused_until, time.monotonic() + seconds)


class Transport:
    """The way to one endpoint, open within `async with`. The key is masked in whatever the endpoint says."""

    def __init__(self, endpoint: str, key: str, limits: Limits):
        self.endpoint, self.key, self.limits = endpoint, key, limits
        self.pacer = Pacer(limits)
        self.answered = self.tokens = 0  # for the mean length of an answer with its prompt

    async def __aenter__(self) -> Transport:
        import aiohttp
        import certifi

        trusted = ssl.create_default_context()
        trusted.load_verify_locations(certifi.where())  # some Pythons come without any certificates
        self.lock = asyncio.Lock()
        url = urlparse(self.endpoint)  # the proxy is looked up here: aiohttp would do so for every request, in a thread
        self.proxy = None if proxy_bypass(url.hostname) else getproxies().get(url.scheme)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.limits.concurrency, ssl=trusted),
            timeout=aiohttp.ClientTimeout(total=self.limits.timeout),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        return self

    async def __aexit__(self, *_) -> None:
        await self.session.close()

    async def ask(self, body: dict) -> Reply:
        """The answer, after at most ATTEMPTS attempts. Raises Failed, or ChatError where no request can succeed."""
        data = json.dumps(body, ensure_ascii=False).encode()
        guess = self.tokens / self.answered if self.answered else len(data) / 3 + body["max_tokens"]
        for attempt in range(ATTEMPTS):
            await self.pacer.turn(guess, self.lock)
            try:
                reply = await self._once(data)
            except Passing as fault:
                reason = str(fault)
                if fault.wait > LONGEST_ASKED:
                    raise Failed(f"{reason} (asks to wait {fault.wait:.0f} s)") from None
                self.pacer.pause(fault.wait)
                if attempt + 1 < ATTEMPTS:
                    longest = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                    await asyncio.sleep(random.uniform(longest / 2, longest))  # apart from others that failed with it
            else:
                used = reply.prompt_tokens + reply.completion_tokens
                self.answered, self.tokens = self.answered + 1, self.tokens + used
                self.pacer.correct(used - guess)
                return reply
        raise Failed(f"{reason} ({ATTEMPTS} attempts)")

    async def _once(self, data: bytes) -> Reply:
        import aiohttp

        url = f"{self.endpoint.rstrip('/')}/chat/completions"
        try:
            async with self.session.post(url, data=data, proxy=self.proxy, allow_redirects=False) as response:
                raw = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise ChatError(
                f"{self.endpoint}: its certificate cannot be trusted ({error.certificate_error}); if a proxy of your "
                "own signs it, name the proxy's certificates in the environment variable SSL_CERT_FILE"
            ) from None
        except TimeoutError:
            raise Passing(f"no answer within {self.limits.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Passing(self.mask(f"no whole answer: {type(error).__name__}: {error}")) from None
        if 200 <= response.status < 300:
            try:
                return read_reply(json.loads(raw))
            except ValueError as error:
                kind = response.headers.get("Content-Type", "no content type")
                raise Passing(
                    self.mask(f"{error} in an answer of {kind}: {raw[:200].decode(errors='replace')!r}")
                ) from None
        words = self.mask(error_words(raw))
        said = f"HTTP {response.status}: {words}"
        if response.status == 400 and THIS_PROMPT.search(words):
            raise Failed(said)
        if "insufficient_quota" in words or 300 <= response.status < 500 and response.status not in PASSING:
            raise ChatError(f"{self.endpoint} refused ({said}). What was answered before is kept; mend this first")
        raise Passing(said, wait_asked(response.headers.get("Retry-After", "")))

    def mask(self, text: str) -> str:
        """Text of the endpoint without the key, which some echo."""
        return text if self.key == NO_KEY else text.replace(self.key, "***")


def wait_asked(header: str) -> float:
    """Seconds of a Retry-After header, given as seconds or as a date; 0 for anything else."""
    try:
        if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
            return float(header)
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def error_words(raw: bytes) -> str:
    """What an endpoint says in the body of an error: the message and code of the usual JSON, or the text itself."""
    try:
        answer = json.loads(raw)
        error = answer.get("error", answer)
        words = " ".join(str(error[k]) for k in ("message", "detail", "code", "type") if error.get(k))
    except (ValueError, AttributeError):
        words = ""
    return (words or raw.decode(errors="replace"))[:500]


def read_reply(answer: Any) -> Reply:
    """A chat completion as a Reply. Raises ValueError for JSON of any other shape."""
    try:
        choice = answer["choices"][0]
        message, usage = choice["message"], answer.get("usage") or {}
        fields = [message.get(name) for name in ("reasoning_content", "reasoning")]
        reasoning = next((text for text in fields if text and isinstance(text, str)), None)
        text, reasoning = split_reasoning(message.get("content") or "", reasoning)
        text, reasoning = LONE.sub("\ufffd", text), LONE.sub("\ufffd", reasoning)
        counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        return Reply(text, reasoning, choice.get("finish_reason") or "", *counts)
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


def run(job: Coroutine) -> None:
    """Run a coroutine to its end, inside a notebook (which has a running loop) or outside.

    Raises what it raised; of several failures at once the ChatError, if one is among them.
    """
    failure: list[BaseException] = []
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = []

    async def noted() -> None:
        started.append((asyncio.get_running_loop(), asyncio.current_task()))
        await job

    def target() -> None:
        try:
            asyncio.run(noted())
        except BaseException as error:  # handed to the calling thread below
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:  # an interrupted cell must not go on asking, and paying, behind the reader's back
        for loop, task in started:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if failure:
        error = failure[0]
        if isinstance(error, BaseExceptionGroup):
            error = next((e for e in error.exceptions if isinstance(e, ChatError)), error.exceptions[0])
        raise error
