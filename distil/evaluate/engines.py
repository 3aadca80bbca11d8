"""How a student is asked: here through transformers, here with continuous batching, or behind a server.

Each way takes the same batches of requests and yields their answers in the same order, a few at a time, as rows {text,
n_tokens, finish_reason, seconds}; `seconds` is wall time divided by the answers that came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.llm.client import Chat, check_endpoint
from distil.llm.limits import Limits
from distil.models.vllm_server import AT_ONCE, VLLM
from distil.workspace.errors import StageError
from distil.workspace.files import digest

HERE = ("transformers", "paged")
BATCH = 75  # answers at once, where nothing is said
PAGED_AT_ONCE = 1024  # requests between two writes


@dataclass(frozen=True)
class Asked:
    """One request: chat messages, and the seed of its sampling."""

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
        return text, Limits.read(at_once=AT_ONCE).concurrency
    if not width.startswith("//"):
        raise StageError(f"engine {text!r}: use transformers:75, paged, vllm, or a URL such as http://HOST:8000/v1")
    check_endpoint(text)
    return text, Limits.read().concurrency


def answers(
    engine: str,
    load: Callable[[], Any],
    batches: Sequence[Sequence[Asked]],
    *,
    name: str,
    store: Path,
    max_new_tokens: int,
    temperature: float,
) -> Iterator[list[dict]]:
    """Answers to all requests of `batches`, in order.

    `load` gives (model, tokenizer); for `vllm` the address of a server, which then is up; it is not called where the
    engine is an address. A server is asked for the model `name`, and its replies are kept in `store` one by one.
    """
    if engine not in HERE:
        own = engine == VLLM
        chat = Chat(name, load() if own else engine, store=store, at_once=AT_ONCE if own else None)
        yield from served(chat, batches, max_new_tokens, temperature)
        return
    way: Callable[..., Iterator[list[dict]]] = paged if engine == "paged" else plain
    yield from way(*load(), batches, max_new_tokens, temperature)


def plain(
    model, tokenizer, batches: Sequence[Sequence[Asked]], max_new_tokens: int, temperature: float
) -> Iterator[list[dict]]:
    """`distil.models.student.generate`, a batch at a time; what a batch samples depends on its own seeds alone."""
    import torch

    from distil.models.student import generate

    for batch in batches:
        with torch.random.fork_rng(enabled=temperature > 0):
            if temperature > 0:
                torch.manual_seed(int(digest(*[asked.seed for asked in batch]), 16) % 2**31)
            yield next(generate(model, tokenizer, [a.messages for a in batch], max_new_tokens, len(batch), temperature))


def paged(
    model, tokenizer, batches: Sequence[Sequence[Asked]], max_new_tokens: int, temperature: float, **config: object
) -> Iterator[list[dict]]:
    """Continuous batching of transformers: a request that is finished makes room for the next at once.

    Needs a GPU; without one, and for requests that fail in it, `plain` answers. Sampled answers depend on how much
    memory is free, so that they are not the same on another machine. `config` goes to ContinuousBatchingConfig.
    """
    import torch
    from transformers import ContinuousBatchingConfig, GenerationConfig

    from distil.models.student import encode_prompt, sampling

    if not torch.cuda.is_available() and not config:
        print("continuous batching needs a GPU; answering in plain batches")
        yield from plain(model, tokenizer, batches, max_new_tokens, temperature)
        return
    asked = [a for batch in batches for a in batch]
    generation = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **sampling(temperature),
    )
    for start in range(0, len(asked), PAGED_AT_ONCE):
        part = asked[start : start + PAGED_AT_ONCE]
        begun = time.perf_counter()
        outputs = model.generate_batch(
            [encode_prompt(tokenizer, a.messages) for a in part],
            generation_config=generation,
            continuous_batching_config=ContinuousBatchingConfig(
                seed=int(digest(*[a.seed for a in part]), 16) % 2**31, **config
            ),
        )
        seconds = round((time.perf_counter() - begun) / len(part), 6)
        if len(outputs) < len(part):  # it gave up, and does not say on which
            print(f"continuous batching answered {len(outputs)} of {len(part)}; answering all in plain batches")
            yield from plain(model, tokenizer, [part], max_new_tokens, temperature)
            continue
        rows = []
        for a, output in zip(part, outputs.values(), strict=True):
            if output.error is not None:
                rows += next(plain(model, tokenizer, [[a]], max_new_tokens, temperature))
                continue
            written = output.generated_tokens
            rows.append(
                {
                    "text": tokenizer.decode(written, skip_special_tokens=True).strip(),
                    "n_tokens": len(written),
                    "finish_reason": "stop" if tokenizer.eos_token_id in written else "length",
                    "seconds": seconds,
                }
            )
        yield rows


def served(
    chat: Chat, batches: Sequence[Sequence[Asked]], max_new_tokens: int, temperature: float
) -> Iterator[list[dict]]:
    """A served student. Tokens are counted by the server.

    Of replies that were in the store already no time is known. They are those that ended first, so the rest alone would
    pass for slower than the student is: their tokens are given the time that as many of the rest took. `seconds` is
    None if every reply was in the store.

    Raises StageError if a request failed for good, naming the first: an unanswered question is not a wrong answer.
    """
    asked = [a for batch in batches for a in batch]
    begun = time.perf_counter()
    replies = chat.map(
        [a.messages for a in asked],
        max_tokens=max_new_tokens,
        temperature=temperature,
        seeds=[a.seed for a in asked],
        label=f"answers of {chat.model}",
    )
    if chat.failures:
        raise StageError(
            f"{chat.endpoint} left {len(chat.failures)} of {len(asked)} questions to {chat.model!r} unanswered, the "
            f"first because: {chat.failures[0].reason}. The other answers are kept: give the command again"
        )
    spent = time.perf_counter() - begun
    (_, asked_tokens), (_, stored_tokens) = chat.used["asked"], chat.used["stored"]
    share = asked_tokens / (asked_tokens + stored_tokens) if asked_tokens else chat.asked / len(replies)
    seconds = round(spent / share / len(replies), 6) if share else None
    yield [
        {
            "text": f"<think>\n{reply.reasoning}\n</think>\n\n{reply.text}" if reply.reasoning else reply.text,
            "n_tokens": reply.completion_tokens,
            "finish_reason": reply.finish_reason,
            "seconds": seconds,
        }
        for reply in replies
    ]
