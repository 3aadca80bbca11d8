"""Long chains from a teacher that is no reasoning model: it is asked to solve, to check another way, and to conclude.

Asked once, such a teacher says what it does and stops. Three turns, joined, resemble the chain of a reasoning model:
a first attempt, doubt, a second way, a comparison. Whoever reports their length must say that they were made so.
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
    limit: str,
) -> tuple[list[Reply | None], dict[int, str]]:
    """Ask each of `prompts`, then the prompts that `later` names for it, and join the turns to one reply.

    Returns (replies, why). A reply is None where a request of the chain failed for good; `why` has the reason, by
    index. A chain that is cut off in a turn, or says nothing, ends there. Later turns omit the system prompt, because
    small models take its example for part of the problem; what the model thought before is not sent back. `max_tokens`
    holds for each turn, and `limit` names the parameter that set it. Raises ChatError as `Chat.map` does.
    """
    said: list[list[Reply]] = [[] for _ in prompts]
    conversations, why, turn = list(prompts), {}, 0
    going = list(range(len(prompts)))
    while going:
        replies = chat.map(
            [conversations[i] for i in going],
            max_tokens=max_tokens,
            temperature=temperature,
            seeds=[seeds[i] for i in going],
            label=f"{label}, turn {turn + 1}" if turn else label,
            limit=limit,
        )
        why |= {going[failure.index]: failure.reason for failure in chat.failures}
        for i, reply in zip(going, replies, strict=True):
            if reply is not None:
                said[i].append(reply)
        whole = [i for i in going if i not in why and said[i][-1].finish_reason == "stop" and said[i][-1].text]
        going = [i for i in whole if turn < len(later[i])]
        for i in going:
            before = [message for message in conversations[i] if message["role"] != "system"]
            conversations[i] = [*before, {"role": "assistant", "content": said[i][-1].text}, *messages(later[i][turn])]
        turn += 1
    return [None if i in why else joined(parts) for i, parts in enumerate(said)], why


def joined(parts: Sequence[Reply]) -> Reply:
    """Join the turns of one chain to one reply. Only the last keeps its box; the tokens are those of all turns.

    If the last turn says nothing, all is reasoning.
    """
    *before, last = parts
    if not before:
        return last
    thoughts = [*(part.reasoning or part.text for part in before), last.reasoning]
    thoughts = [TAGS.sub("", unboxed(text)).strip() for text in thoughts if text.strip()]
    last = dataclasses.replace(
        last,
        completion_tokens=sum(part.completion_tokens for part in parts),
        reasoning_tokens=sum(part.reasoning_tokens for part in parts),
    )
    if not last.text:
        return dataclasses.replace(last, reasoning="\n\n".join(thoughts))
    return dataclasses.replace(last, text="\n\n".join([*thoughts, last.text]), reasoning="")
