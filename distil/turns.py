"""Slow chains in turns: a teacher that is no reasoning model is asked to solve, to check another way, and to conclude.

Asked once, it says what it does and stops. Three turns, joined, have the make of a reasoning model's chain: a first
attempt, doubt, a second way, a comparison. Whoever shows their length has to say that they were made so.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from distil.chat import Chat, Reply
from distil.prompt import messages

AFTERWARDS = ("slow_check", "slow_conclude")  # the prompts of the turns after the first
TAGS = re.compile(r"<\|(?:begin|end)_of_(?:thought|solution)\|>|</?think>")
BOX = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")


def in_turns(
    prompts: Sequence[list[dict]], chat: Chat, *, max_tokens: int, temperature: float, seeds: Sequence[int]
) -> tuple[list[Reply | None], dict[int, str]]:
    """(replies, why: by index) to each of `prompts`, the later turns asked after it and all of them joined to one.

    None, with the reason in `why`, stands for a chain of which a request failed for good. A chain that is cut off in a
    turn ends there. Later turns go without the system prompt: small models take its example for part of the problem.
    `max_tokens` is of each turn. Raises ChatError as `Chat.map` does.
    """
    talks = [list(prompt) for prompt in prompts]
    said: list[list[Reply]] = [[] for _ in prompts]
    why: dict[int, str] = {}
    for number, name in enumerate((None, *AFTERWARDS)):
        going = [i for i, parts in enumerate(said) if i not in why and all(p.finish_reason == "stop" for p in parts)]
        if not going:
            break
        for i in going if name else ():
            talk = [turn for turn in talks[i] if turn["role"] != "system"]
            talks[i] = [*talk, {"role": "assistant", "content": said[i][-1].text}, *messages(name)]
        replies = chat.map(
            [talks[i] for i in going],
            max_tokens=max_tokens,
            temperature=temperature,
            seeds=[seeds[i] for i in going],
            label=f"slow chains, turn {number + 1}",
        )
        why |= {going[failure.index]: failure.reason for failure in chat.failures}
        for i, reply in zip(going, replies, strict=True):
            if reply is not None:
                said[i].append(reply)
    return [None if i in why else joined(parts) for i, parts in enumerate(said)], why


def joined(parts: Sequence[Reply]) -> Reply:
    """The turns of one chain as one reply: only the last keeps its box, and tokens are those of all turns."""
    *before, last = parts
    thoughts = [part.reasoning or unboxed(part.text) for part in before]
    thoughts = [TAGS.sub("", text).strip() for text in (*thoughts, last.reasoning) if text.strip()]
    return dataclasses.replace(
        last,
        text="\n\n".join([*thoughts, last.text]) if before else last.text,
        reasoning="" if before else last.reasoning,
        completion_tokens=sum(part.completion_tokens for part in parts),
    )


def unboxed(text: str) -> str:
    r"""A text with what its boxes hold in their place: a result that is to be checked is no answer yet."""
    return BOX.sub(r"\1", text)
