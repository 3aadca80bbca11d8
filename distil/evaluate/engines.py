"""How a student is asked: here through transformers, here with continuous batching, or behind a server.

Each engine takes the same batches of requests and yields their answers in the same order, a few at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.llm.client import Chat
from distil.llm.endpoints import check_endpoint
from distil.llm.limits import Limits
from distil.models import formats
from distil.models.student import Generated, encode_prompt, generate, sampling
from distil.models.templates import stop_ids
from distil.models.vllm_server import DEFAULT_CONCURRENCY, VLLM
from distil.workspace.errors import StageError
from distil.workspace.files import digest
from distil.workspace.fingerprint import code

LOCAL_ENGINES = ("transformers", "paged")
BATCH = 75  # answers at once, where nothing is said
# code that answers are written by
WRITERS = ("evaluate/engines.py", "models/student.py", "models/templates.py", "models/formats.py")
PAGED_AT_ONCE = 1024  # requests between two writes


@dataclass(frozen=True)
class GenerationRequest:
    """Chat messages to answer, and the seed of the sampling."""

    messages: list[dict]
    seed: int


def read(text: str) -> tuple[str, int]:
    """(engine, answers generated or requests under way at once) from `transformers:75`, `paged`, `vllm` or a URL.

    Raises StageError or ChatError for anything else, a URL without a key where one is needed among it.
    """
    name, _, width = text.partition(":")
    if name == "transformers" and (not width or width.isdecimal() and int(width)):
        return name, int(width or BATCH)
    if text == "paged":
        return text, PAGED_AT_ONCE
    if text == VLLM:
        return text, Limits.read(default_concurrency=DEFAULT_CONCURRENCY).concurrency
    if not width.startswith("//"):
        raise StageError(f"engine {text!r}: use transformers:75, paged, vllm, or a URL such as http://HOST:8000/v1")
    check_endpoint(text)
    return text, Limits.read().concurrency


def made_by(engine: str, extra: dict | None) -> object:
    """What answers depend on beside weights, prompts and sampling: our code, or the fields of a request to a server."""
    return code(*WRITERS) if engine in LOCAL_ENGINES else (extra or {}) | Limits.read().extra


def answers(
    engine: str,
    load: Callable[[], Any],
    batches: Sequence[Sequence[GenerationRequest]],
    *,
    name: str,
    store: Path,
    max_new_tokens: int,
    temperature: float,
    extra: dict | None = None,
) -> Iterator[list[Generated]]:
    """Answers to all requests of `batches`, in order.

    `load` gives (model, tokenizer); for `vllm` the address of a server, which then is up; it is not called where the
    engine is an address. A server is asked for the model `name`, with the fields `extra` in each request; its replies
    are kept in `store` one by one.
    """
    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    if engine not in LOCAL_ENGINES:
        limits: dict[str, Any] = {"extra": extra | Limits.read().extra} if extra else {}
        if engine == VLLM:
            chat = Chat(name, load(), store=store, default_concurrency=DEFAULT_CONCURRENCY, **limits)
        else:
            chat = Chat(name, engine, store=store, **limits)
        yield from served(chat, batches, **settings)
        return
    generate_here: Callable[..., Iterator[list[Generated]]] = paged if engine == "paged" else batched
    yield from generate_here(*load(), batches, **settings)


def batched(
    model, tokenizer, batches: Sequence[Sequence[GenerationRequest]], *, max_new_tokens: int, temperature: float
) -> Iterator[list[Generated]]:
    """`distil.models.student.generate`, a batch at a time. What a batch samples depends on its own seeds alone."""
    import torch

    for batch in batches:
        with torch.random.fork_rng(enabled=temperature > 0):
            if temperature > 0:
                torch.manual_seed(int(digest(*[request.seed for request in batch]), 16) % 2**31)
            prompts = [request.messages for request in batch]
            yield next(generate(model, tokenizer, prompts, max_new_tokens, len(batch), temperature=temperature))


def paged(
    model,
    tokenizer,
    batches: Sequence[Sequence[GenerationRequest]],
    *,
    max_new_tokens: int,
    temperature: float,
    **config: object,
) -> Iterator[list[Generated]]:
    """Continuous batching of transformers: a request that is finished makes room for the next at once.

    Needs a GPU; without one, and for requests that fail in it, `batched` answers. Sampled answers depend on how much
    memory is free, so that they are not the same on another machine. `config` goes to ContinuousBatchingConfig.
    """
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    settings = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    if not torch.cuda.is_available() and not config:
        print("continuous batching needs a GPU; answering in plain batches")
        yield from batched(model, tokenizer, batches, **settings)
        return
    requests = [request for batch in batches for request in batch]
    opened, ends = formats.opened(tokenizer), stop_ids(model, tokenizer)
    generation = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        **sampling(temperature),
    )
    for start in range(0, len(requests), PAGED_AT_ONCE):
        part = requests[start : start + PAGED_AT_ONCE]
        begun = time.perf_counter()
        outputs = model.generate_batch(
            [encode_prompt(tokenizer, request.messages) for request in part],
            generation_config=generation,
            continuous_batching_config=ContinuousBatchingConfig(
                seed=int(digest(*[request.seed for request in part]), 16) % 2**31, **config
            ),
        )
        seconds = round((time.perf_counter() - begun) / len(part), 6)
        if len(outputs) < len(part):  # it gave up, and does not say on which
            print(f"continuous batching answered {len(outputs)} of {len(part)}; answering all in plain batches")
            yield from batched(model, tokenizer, [part], **settings)
            continue
        rows = []
        for request, output in zip(part, outputs.values(), strict=True):
            if output.error is not None:
                rows += next(batched(model, tokenizer, [[request]], **settings))
                continue
            written = output.generated_tokens
            stopped = any(token in ends for token in written)
            text = formats.whole(opened, tokenizer.decode(written, skip_special_tokens=True).strip())
            rows.append(Generated(text, len(written), "stop" if stopped else "length", seconds))
        yield rows


def served(
    chat: Chat, batches: Sequence[Sequence[GenerationRequest]], *, max_new_tokens: int, temperature: float
) -> Iterator[list[Generated]]:
    """A served student. Tokens are counted by the server.

    Of replies that were in the store already no time is known. They are those that ended first, so the rest alone would
    pass for slower than the student is: their tokens are given the time that as many of the rest took. `seconds` is
    None if every reply was in the store.

    Raises StageError if a request failed for good, naming the first: an unanswered question is not a wrong answer.
    """
    requests = [request for batch in batches for request in batch]
    begun = time.perf_counter()
    replies = chat.map(
        [request.messages for request in requests],
        max_tokens=max_new_tokens,
        temperature=temperature,
        seeds=[request.seed for request in requests],
        label=f"answers of {chat.model}",
    )
    if chat.failures:
        raise StageError(
            f"{chat.endpoint} left {len(chat.failures)} of {len(requests)} questions to {chat.model!r} unanswered, the "
            f"first because: {chat.failures[0].reason}. The other answers are kept: give the command again"
        )
    spent = time.perf_counter() - begun
    (_, asked_tokens), (_, stored_tokens) = chat.used["asked"], chat.used["stored"]
    share = asked_tokens / (asked_tokens + stored_tokens) if asked_tokens else chat.asked / len(replies)
    seconds = round(spent / share / len(replies), 6) if share else None
    yield [
        Generated(
            f"<think>\n{reply.reasoning}\n</think>\n\n{reply.text}" if reply.reasoning else reply.text,
            reply.completion_tokens,
            reply.finish_reason,
            seconds,
        )
        for reply in replies
    ]
