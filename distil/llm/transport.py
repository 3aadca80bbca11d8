"""Sends one request to an OpenAI-compatible endpoint: with rate limits, retries, an end to silence; reads the Reply.

It uses aiohttp, which needs a fraction of the processor time that the `openai` package needs. With many requests under
way at once, that package itself becomes the bottleneck (benchmarks/client.py measures both).
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import threading
from collections.abc import Coroutine
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from distil.llm.addresses import proxy_of, url_of
from distil.llm.cache import ChatError, Reply
from distil.llm.dialect import Dialect
from distil.llm.faults import LATER, SLOW, UNPAID, remedy, remedy_of
from distil.llm.finish import FILTERED
from distil.llm.keys import NO_KEY, check_way, header, mask
from distil.llm.limits import Limits
from distil.llm.rate_limiter import RateLimiter
from distil.llm.replies import Answer, ErrorAnswer, error_message

if TYPE_CHECKING:
    import aiohttp

MAX_ATTEMPTS = 6
FIRST_BACKOFF, MAX_BACKOFF = 0.5, 30.0  # seconds between attempts: doubled each time
MAX_RETRY_AFTER = 600.0  # seconds; a server that asks for a longer wait means that a quota is used up
RETRYABLE_STATUS = (408, 409, 425, 429)  # of the 4xx; 5xx are all retried
FATAL_WITHIN = (401, 402, 403, 404)  # of an error that comes with HTTP 200, for all requests as for this one
SIGNS_OF_LIFE = 3  # times the limit of silence: so long an endpoint may keep a request waiting with nothing else
CONTENT_FILTER = re.compile(r"content[_ ]filter|data_inspection|content exists risk", re.IGNORECASE)
JOIN_SECONDS = 0.2  # on Windows an interrupt comes through between two waits only


class RequestError(Exception):
    """This request failed for good; others may succeed. The message is the reason."""


class RetryableError(Exception):
    """A fault that another attempt may mend. `retry_after` is how many seconds the server asks to wait.

    `advice` says what to do if none does.
    """

    def __init__(self, reason: str, advice: str, retry_after: float = 0.0):
        super().__init__(reason)
        self.advice, self.retry_after = advice, retry_after


class Refused(Exception):
    """The endpoint refuses a field of this request, which is sent again without it."""


class Transport:
    """A connection to one model at one endpoint, open within `async with`.

    What the endpoint says is passed on without any key. Raises ChatError for a key that others could read on its way.
    """

    def __init__(self, endpoint: str, model: str, key: str, limits: Limits):
        self.endpoint, self.key, self.limits = endpoint, key, limits
        self.dialect = Dialect(endpoint, model, limits.extra)
        self.rate_limiter = RateLimiter(limits)
        self.answered = self.tokens = 0  # for the mean length of an answer with its prompt

    async def __aenter__(self) -> Transport:
        import aiohttp

        self.lock = asyncio.Lock()
        check_way(self.endpoint, self.key)
        self.proxy = proxy_of(self.endpoint)  # looked up here: aiohttp would do so for every request, in a thread
        silence, encrypted = self.limits.timeout, "https://" in f"{self.endpoint} {self.proxy}"
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.limits.concurrency, ssl=trusted() if encrypted else True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=silence, sock_read=silence),
            headers=header(self.endpoint, self.key) | {"Content-Type": "application/json"},
        )
        return self

    async def __aexit__(self, *_) -> None:
        await self.session.close()

    async def send(self, body: dict) -> Reply:
        """Send a request, at most MAX_ATTEMPTS times.

        Raises RequestError if it fails for good, ChatError where no request can succeed.
        """
        guess = self.tokens / self.answered if self.answered else len(json.dumps(body)) / 3 + body["max_tokens"]
        attempts = 0
        while attempts < MAX_ATTEMPTS:
            await self.rate_limiter.acquire(guess, self.lock)
            try:
                reply = (await self._once(self.dialect.translate(body))).read_for(body)
            except Refused:  # each time with one field less
                continue
            except RetryableError as fault:
                reason, advice, attempts = str(fault), fault.advice, attempts + 1
                if fault.retry_after > MAX_RETRY_AFTER:
                    raise RequestError(f"{reason} (asks to wait {fault.retry_after:.0f} s)") from None
                self.rate_limiter.pause(fault.retry_after)
                if attempts < MAX_ATTEMPTS:
                    longest = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** (attempts - 1))
                    await asyncio.sleep(random.uniform(longest / 2, longest))  # apart from others that failed with it
            else:
                used = reply.prompt_tokens + reply.completion_tokens
                self.answered, self.tokens = self.answered + 1, self.tokens + used
                self.rate_limiter.correct(used - guess)
                return reply
        raise RequestError(f"{reason} ({MAX_ATTEMPTS} attempts); {advice}")

    async def _once(self, sent: dict) -> Reply:
        import aiohttp

        data = json.dumps(sent, ensure_ascii=False).encode()
        answer, kind = Answer(), "no type"
        request = {"data": data, "proxy": self.proxy, "allow_redirects": False}
        try:
            async with self.session.post(url_of(self.endpoint, "/chat/completions"), **request) as response:
                kind = response.headers.get("Content-Type", "no content type")
                if 200 <= response.status < 300:
                    await self._hear(response, answer)
                    return answer.reply()
                raw = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise ChatError(
                f"{self.endpoint}: its certificate cannot be trusted ({error.certificate_error}); if a proxy of your "
                "own signs it, name the proxy's certificates in the environment variable SSL_CERT_FILE"
            ) from None
        except aiohttp.ClientConnectorSSLError as error:
            raise ChatError(
                f"{self.endpoint}: no encrypted connection can be made ({error.os_error}); does the server speak http://?"
            ) from None
        except TimeoutError:
            raise RetryableError(f"nothing came for {self.limits.timeout:g} s", SLOW) from None
        except (aiohttp.ClientError, OSError) as error:
            said = self.mask(f"no whole answer: {type(error).__name__}: {error}")
            raise RetryableError(said, remedy_of(error, self.endpoint)) from None
        except ErrorAnswer as error:
            raise self._failure(error.status, f"it sent an error: {self.mask(str(error))[:500]}") from None
        except ValueError as error:
            head = self.mask(answer.head.decode(errors="replace"))[:200]
            said = f"{self.mask(str(error))[:500]} in an answer of {kind}: {head!r}"
            raise RetryableError(said, LATER) from None
        if self.dialect.learn(sent, response.status, raw):
            raise Refused
        wait = retry_after_seconds(response.headers.get("Retry-After", ""))
        said = f"HTTP {response.status}: {self.mask(error_message(raw))[:500]}"
        raise self._failure(response.status, said, wait, whole=False)

    async def _hear(self, response: aiohttp.ClientResponse, answer: Answer) -> None:
        """Feed an answer. Raises RetryableError if for too long only signs of life come."""
        patience, loop = SIGNS_OF_LIFE * self.limits.timeout, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience) as limit:
                async for piece in response.content.iter_any():
                    if answer.feed(piece):
                        limit.reschedule(loop.time() + patience)
        except TimeoutError:
            if limit.expired():
                raise RetryableError(f"nothing but signs of life came for {patience:g} s", SLOW) from None
            raise

    def _failure(self, status: int, said: str, wait: float = 0.0, whole: bool = True) -> Exception:
        """The exception for what an endpoint said in place of an answer, with HTTP 200 if `whole`."""
        advice = remedy(status, said, self.endpoint)
        if CONTENT_FILTER.search(said) and (whole or status == 400):
            return RequestError(f"{FILTERED}: {said}")
        fatal = status in FATAL_WITHIN if whole else 300 <= status < 500 and status not in RETRYABLE_STATUS
        if fatal or UNPAID.search(said):
            return ChatError(
                f"{self.endpoint} refused ({said}): {advice}. What was answered before is kept; mend this first"
            )
        return RetryableError(said, advice, wait)

    def mask(self, text: str) -> str:
        """Replace every key, since some endpoints repeat them."""
        return mask(text if self.key == NO_KEY else text.replace(self.key, "***"))


def trusted() -> ssl.SSLContext:
    """The certificates of this machine and certifi's: some Pythons come without any."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def retry_after_seconds(header: str) -> float:
    """Seconds of a Retry-After header, given as seconds or as a date; 0 for anything else."""
    try:
        if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
            return float(header)
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def run_coroutine(coroutine: Coroutine) -> None:
    """Run a coroutine to its end, inside a notebook (which has a running loop) or outside.

    Raises what it raised; of several failures at once the ChatError, if one is among them.
    """
    failure: list[BaseException] = []
    started: list[tuple[asyncio.AbstractEventLoop, asyncio.Task]] = []

    async def noted() -> None:
        started.append((asyncio.get_running_loop(), asyncio.current_task()))
        await coroutine

    def target() -> None:
        try:
            asyncio.run(noted())
        except BaseException as error:  # handed to the calling thread below
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(JOIN_SECONDS)
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
