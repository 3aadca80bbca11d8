"""Chains made in turns: a teacher that is no reasoning model is asked to solve, to check another way, and to conclude.

Asked once, it says what it does and stops. Three turns, joined, have the make of a reasoning model's chain: a first
attempt, doubt, a second way, a comparison. Whoever shows their length has to say that they were made so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.prompts import messages
from distil.verify.answers import unboxed
from distil.verify.chain_text import TAGS

AFTERWARDS = ("slow_check", "slow_conclude")  # the prompts of the turns after the first


def talk(
    prompts: Sequence[list[dict]],
    later: Sequence[Sequence[str]],
    chat: Chat,
    *,
    max_tokens: int,
    temperature: float,
    seeds: Sequence[int],
    label: str,
) -> tuple[list[Reply | None], dict[int, str]]:
    """(replies, why: by index) to each of `prompts`, and to the prompts named in `later` after it, joined to one reply.

    None, with the reason in `why`, stands for a chain of which a request failed for good. A chain that is cut off in a
    turn ends there. Later turns go without the system prompt: small models take its example for part of the problem.
    `max_tokens` is of each turn. Raises ChatError as `Chat.map` does.
    """
    said: list[list[Reply]] = [[] for _ in prompts]
    talks, why, turn = list(prompts), {}, 0
    going = list(range(len(prompts)))
    while going:
        replies = chat.map(
            [talks[i] for i in going],
            max_tokens=max_tokens,
            temperature=temperature,
            seeds=[seeds[i] for i in going],
            label=f"{label}, turn {turn + 1}" if turn else label,
        )
        why |= {going[failure.index]: failure.reason for failure in chat.failures}
        for i, reply in zip(going, replies, strict=True):
            if reply is not None:
                said[i].append(reply)
        going = [i for i in going if i not in why and said[i][-1].finish_reason == "stop" and turn < len(later[i])]
        for i in going:
            before = [message for message in talks[i] if message["role"] != "system"]
            talks[i] = [*before, {"role": "assistant", "content": said[i][-1].text}, *messages(later[i][turn])]
        turn += 1
    return [None if i in why else joined(parts) for i, parts in enumerate(said)], why


def joined(parts: Sequence[Reply]) -> Reply:
    """The turns of one chain as one reply: only the last keeps its box, and tokens are those of all turns."""
    *before, last = parts
    if not before:
        return last
    thoughts = [*(part.reasoning or unboxed(part.text) for part in before), last.reasoning]
    thoughts = [TAGS.sub("", text).strip() for text in thoughts if text.strip()]
    return dataclasses.replace(
        last,
        text="\n\n".join([*thoughts, last.text]),
        reasoning="",
        completion_tokens=sum(part.completion_tokens for part in parts),
    )
