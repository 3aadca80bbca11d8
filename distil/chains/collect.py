"""Stage 01: ask the teacher, in two styles, and verify every chain of thought against the answer."""

from __future__ import annotations

from collections.abc import Sequence

from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.finish import why_unfinished
from distil.llm.multi_turn import AFTERWARDS, talk
from distil.llm.prompts import messages, prompt_set
from distil.verify.registry import map_problems, verifiable, verifier_of
from distil.workspace.rows import Chain, Problem

STYLES = ("fast", "slow")
MAY_ERR = ("slow", "corrupt")  # a slow chain may err, notice and turn back; a corrupted one is meant to


def set_apart(chains: Sequence[Chain]) -> tuple[list[Chain], list[Chain]]:
    """(verified, unverified): chains found right or wrong, and chains that nothing could check."""
    return [c for c in chains if c.correct is not None], [c for c in chains if c.correct is None]


def said(reply: Reply) -> Reply:
    """A reply without what the model thought before it spoke: the text, and the tokens of the text."""
    tokens = reply.completion_tokens - reply.reasoning_tokens
    return Reply(reply.text, "", reply.finish_reason, reply.prompt_tokens, tokens)


def make_chain(chain_id: str, problem: Problem, style: str, reply: Reply, *, teacher: str, **more) -> Chain:
    """A row of `chains.jsonl` from a teacher's reply. `more` are further fields of the chain.

    A slow chain is what was thought and what was said, any other what was said: `n_tokens` counts that alone.
    A chain is `correct` if it ended by itself and its verifier finds no fault: one boxed answer, which is right, and
    no false equation on the way (slow chains may err on the way); or a program that passes its tests. `correct` is None
    where nothing here can check it.
    """
    verifier = verifier_of(problem)
    reply = reply if style == "slow" else said(reply)
    thought, solution = verifier.split(reply.text, reply.reasoning, cut=reply.finish_reason == "length")
    chain = Chain(
        id=chain_id,
        problem_id=problem.id,
        style=style,
        thought=thought,
        solution=solution,
        teacher=teacher,
        n_tokens=reply.completion_tokens,
        finish_reason=reply.finish_reason,
        **more,
    )
    if not verifiable(problem):
        chain.why = f"verifier {problem.verifier!r} cannot run here"
        chain.text = reply.text  # as it came: steps lose indentation
        return chain
    chain.why = why_unfinished(reply.text, reply.finish_reason)
    if chain.why is None:
        chain.why = verifier.fault(chain.full_text, problem, check_steps=style not in MAY_ERR)
    chain.correct = chain.why is None
    return chain


def asked_for(problem: Problem, style: str) -> list[dict]:
    """The request for a chain of one style."""
    name = verifier_of(problem).prompt_name(style)
    return messages(name, prompts=prompt_set(problem), question=problem.question)


def collect(
    problems: Sequence[Problem],
    chat: Chat,
    style: str,
    *,
    samples: int,
    seed: int,
    turns: bool = False,
    max_tokens: int = 1024,
) -> tuple[list[Chain], list[dict]]:
    """(chains, failed): `samples` chains of one style for each problem, verified.

    They are sampled at temperature 0.7. With `turns`, slow chains are made in several turns (`distil.llm.multi_turn`)
    where the verifier allows it; such a chain has `turns` True. `max_tokens` bounds an answer, thought and all; the
    parameter that sets it is named `<style>_tokens`. `failed` holds a row {problem_id, style, sample,
    reason} for each request that failed for good; the next call sends it again. Raises ChatError where asking again
    cannot help.
    """
    jobs = [(problem, k) for problem in problems for k in range(samples)]
    in_turns = turns and style == "slow"
    later = [AFTERWARDS if in_turns and verifier_of(problem).asks_in_turns else () for problem, _ in jobs]
    replies, reasons = talk(
        [asked_for(problem, style) for problem, _ in jobs],
        later,
        chat,
        max_tokens=max_tokens,
        temperature=0.7,
        seeds=[seed * 1000 + k for _, k in jobs],
        label=f"{style} chains",
        limit=f"{style}_tokens",
    )

    def chain(problem: Problem, k: int, reply: Reply, more: Sequence[str]) -> Chain:
        name = f"{problem.id}-{style}-{k}"
        return make_chain(name, problem, style, reply, teacher=chat.model, turns=bool(more))

    answered = [(*job, reply, more) for job, reply, more in zip(jobs, replies, later, strict=True) if reply is not None]
    chains = map_problems(chain, *zip(*answered, strict=True)) if answered else []
    failed = []
    for index, reason in reasons.items():
        problem, k = jobs[index]
        failed.append({"problem_id": problem.id, "style": style, "sample": k, "reason": reason})
    return chains, failed
