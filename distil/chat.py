"""The one client for every model behind an endpoint: teacher, rewriter, judge, served student.

A request that has been answered once is never sent again: answers live in a `Store`, an append-only file keyed by
the hash of the whole request. The store is at once the cache, the resume after a crash, and, shipped as package
data, the *recording* that lets a class work without keys.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import lzma
import os
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

from distil.stage import append_jsonl, read_jsonl

KEY_VARIABLES = ("DISTIL_API_KEY", "OPENAI_API_KEY")
PERMANENT = (400, 401, 402, 403, 404, 405, 413, 422)  # trying again cannot mend these


class ChatError(RuntimeError):
    """The endpoint cannot be used as asked; the message carries its own words."""


@dataclass(frozen=True)
class Reply:
    """One answer: `text` without the reasoning, `reasoning` (may be empty), tokens by the server's own count."""

    text: str
    reasoning: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def request(model: str, prompt: list[dict], *, max_tokens: int, temperature: float = 0.0, seed: int = 0) -> dict:
    """A chat request. Greedy requests carry no seed, so that asking twice is asking once."""
    body = {"model": model, "messages": prompt, "max_tokens": max_tokens, "temperature": temperature}
    return body | ({"top_p": 0.95, "seed": seed} if temperature > 0 else {})


def request_key(body: dict) -> str:
    """SHA-256 of the whole request, independent of the order of its fields and of the endpoint's address."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


class Store:
    """Answers by request. `path` is read and appended to; `recording` (a name in `distil/recorded`) is read only."""

    def __init__(self, path: Path | None = None, recording: str | None = None):
        self.path, self.rows = path, {}
        if recording:
            for row in read_recording(recording):
                self.rows[row["key"]] = row
        if path is not None and path.exists():
            for row in read_jsonl(path):
                self.rows[row["key"]] = row

    def get(self, body: dict) -> Reply | None:
        row = self.rows.get(request_key(body))
        return Reply(**row["reply"]) if row else None

    def put(self, body: dict, reply: Reply) -> None:
        row = {"key": request_key(body), "request": body, "reply": vars(reply)}
        self.rows[row["key"]] = row
        if self.path is not None:
            append_jsonl(self.path, [row])


def read_recording(name: str) -> list[dict]:
    """Rows of a shipped recording. Raises ChatError for an unknown name, listing those there are."""
    folder = resources.files("distil") / "recorded"
    file = folder / name / "responses.jsonl.xz"
    if not file.is_file():
        known = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("_"))
        raise ChatError(f"no recording {name!r}; there are: {', '.join(known) or 'none'}")
    rows = [json.loads(line) for line in lzma.decompress(file.read_bytes()).decode().splitlines()]
    return [row | {"key": request_key(row["request"])} for row in rows]  # keys do not compress: they are not shipped


def api_key(endpoint: str) -> str | None:
    """The key for an endpoint from the environment; a server on this machine needs none."""
    for name in KEY_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    return "none" if urlparse(endpoint).hostname in {"localhost", "127.0.0.1", "::1"} else None


def check_endpoint(endpoint: str) -> None:
    """Raise ChatError unless `endpoint` is `recorded:NAME` or a URL with a key where one is needed."""
    if endpoint.startswith("recorded:"):
        read_recording(endpoint.removeprefix("recorded:"))
        return
    if urlparse(endpoint).scheme not in {"http", "https"} or not urlparse(endpoint).hostname:
        raise ChatError(f"endpoint {endpoint!r}: give recorded:NAME, or a URL such as https://api.deepseek.com/v1")
    if api_key(endpoint) is None:
        raise ChatError(f"endpoint {endpoint} needs a key: set the environment variable {' or '.join(KEY_VARIABLES)}")


def split_reasoning(text: str, reasoning: str | None) -> tuple[str, str]:
    """(answer, reasoning) from a message, whether the reasoning came in a field or between <think> tags."""
    if reasoning:
        return text.strip(), reasoning.strip()
    if "</think>" in text:  # the opening tag is often part of the template and not sent
        before, after = text.split("</think>", 1)
        return after.strip(), before.replace("<think>", "").strip()
    return text.strip(), ""


class Chat:
    """A model behind an OpenAI-compatible endpoint, or behind a recording (`recorded:NAME`).

    `map` answers many requests at once, `concurrency` at a time (default $DISTIL_CONCURRENCY, or 64); every answer is
    in `store` before it is returned.
    """

    def __init__(self, model: str, endpoint: str, store: Path | None = None, concurrency: int | None = None):
        check_endpoint(endpoint)
        self.model, self.endpoint = model, endpoint
        self.concurrency = concurrency or int(os.environ.get("DISTIL_CONCURRENCY", "64"))
        self.recorded = endpoint.startswith("recorded:")
        name = endpoint.removeprefix("recorded:") if self.recorded else None
        self.store = Store(None if self.recorded else store, recording=name)
        self.asked = self.from_store = self.tokens = 0
        self.failures: list[str] = []

    def map(
        self,
        prompts: Sequence[list[dict]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        label: str = "requests",
    ) -> list[Reply | None]:
        """Answer each prompt (a list of messages), in order. None stands for a request that failed after retries.

        Raises ChatError at once where trying again cannot help: a bad key, an unknown model, a context too long,
        or a recording that holds no answer to one of the requests.
        """
        seeds = seeds or [0] * len(prompts)
        bodies = [
            request(self.model, p, max_tokens=max_tokens, temperature=temperature, seed=s)
            for p, s in zip(prompts, seeds, strict=True)
        ]
        waiting = {request_key(b): b for b in bodies if self.store.get(b) is None}
        if waiting and self.recorded:
            body = next(iter(waiting.values()))
            raise ChatError(
                f"{self.endpoint} holds no answer to {len(waiting)} of {len(bodies)} {label}. A prompt, a parameter "
                "or the problems differ from those recorded; name a live endpoint, or record anew with "
                f"`distil record`. The first one without an answer:\n{json.dumps(body, ensure_ascii=False)[:600]}"
            )
        self.from_store += len(bodies) - len(waiting)
        if waiting:
            _run(self._ask_all(list(waiting.values()), label))
            if all(self.store.get(body) is None for body in waiting.values()):
                raise ChatError(
                    f"{self.endpoint} answered none of {len(waiting)} {label}; the last reason: "
                    f"{self.failures[-1]}. What was answered before is kept; give the command again."
                )
        replies = [self.store.get(body) for body in bodies]
        self.tokens += sum(r.completion_tokens for r in replies if r)
        return replies

    async def _ask_all(self, bodies: list[dict], label: str) -> None:
        import openai
        from tqdm.auto import tqdm

        places = asyncio.Semaphore(self.concurrency)
        bar = tqdm(total=len(bodies), desc=label, disable=quiet(), mininterval=1.0)
        async with openai.AsyncOpenAI(
            base_url=self.endpoint, api_key=api_key(self.endpoint), max_retries=5, timeout=600.0
        ) as client:

            async def ask(body: dict) -> None:
                async with places:
                    try:
                        reply = await _ask(client, body)
                    except openai.APIStatusError as error:
                        if error.status_code in PERMANENT:
                            raise ChatError(
                                f"{self.endpoint} refused (HTTP {error.status_code}): {error.message}"
                            ) from None
                        self.failures.append(str(error))
                        return
                    except (openai.APIError, ValueError) as error:
                        self.failures.append(f"{type(error).__name__}: {error}")
                        return  # the caller sees None for this row and lists it
                    self.asked += 1
                    self.store.put(body, reply)
                    bar.update()

            async with asyncio.TaskGroup() as group:
                for body in bodies:
                    group.create_task(ask(body))
        bar.close()


async def _ask(client, body: dict) -> Reply:
    completion = await client.chat.completions.create(**body)
    if not completion.choices:
        raise ValueError("no choices in the answer")
    choice, usage = completion.choices[0], completion.usage
    extra = choice.message.model_extra or {}
    text, reasoning = split_reasoning(
        choice.message.content or "", extra.get("reasoning_content") or extra.get("reasoning")
    )
    return Reply(
        text,
        reasoning,
        choice.finish_reason or "",
        usage.prompt_tokens if usage else 0,
        usage.completion_tokens if usage else 0,
    )


def _run(job: Coroutine) -> None:
    """Run a coroutine to its end, inside a notebook (which has a running loop) or outside."""
    failure: list[BaseException] = []

    def target() -> None:
        try:
            asyncio.run(job)
        except BaseException as error:  # handed to the calling thread below
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failure:
        error = failure[0]
        if isinstance(error, BaseExceptionGroup):
            error = next((e for e in error.exceptions if isinstance(e, ChatError)), error.exceptions[0])
        raise error


def quiet() -> bool:
    """True in a batch run, where progress bars only fill the log."""
    return os.environ.get("DISTIL_BATCH") == "1"
