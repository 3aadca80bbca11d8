"""Stage 01: ask the teacher, in two styles, and verify every chain of thought against the answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from distil.llm.cache import Reply
from distil.llm.client import Chat
from distil.llm.multi_turn import AFTERWARDS, TAGS, talk
from distil.llm.prompts import messages
from distil.verify.check import boxed_answers, is_correct, verifiable
from distil.verify.code import FENCE, extract_code, side_by_side
from distil.verify.equations import false_equation
from distil.workspace.rows import Chain

STYLES = ("fast", "slow")
MAY_ERR = ("slow", "corrupt")  # a slow chain may err, notice and turn back; a corrupted one is meant to
SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|$)", re.DOTALL)


def split_chain(text: str, reasoning: str = "", cut: bool = False) -> tuple[str, str]:
    """(thought, solution): from a reasoning field, from Thought/Solution tags, or by cutting off the last step.

    A text `cut` off at the token limit within its Thought section has no solution.
    Blank lines between steps are made uniform: one, and if the text has none every line is a step.
    """
    tagged = SOLUTION.search(text)
    if reasoning:
        thought, solution = reasoning, TAGS.sub("", text)
    elif tagged:
        thought, solution = TAGS.sub("", text[: tagged.start()]), TAGS.sub("", tagged.group(1))
    elif cut and "<|begin_of_thought|>" in text and "<|end_of_thought|>" not in text:
        thought, solution = TAGS.sub("", text), ""
    else:
        steps = split_steps(TAGS.sub("", text))
        thought, solution = "\n\n".join(steps[:-1]), steps[-1] if steps else ""
    return "\n\n".join(split_steps(thought)), "\n\n".join(split_steps(solution))


def split_program(text: str, reasoning: str = "", cut: bool = False) -> tuple[str, str]:
    """(thought, solution) of an answer that is a program: the last fenced block is the solution, indentation and all.

    An answer `cut` off has no solution.
    """
    text = TAGS.sub("", text)
    begin = [match.start() for match in FENCE.finditer(text)][-1:] or [len(text)]
    thought, solution = text[: begin[0]].strip(), text[begin[0] :].strip()
    return "\n\n".join(part for part in (reasoning.strip(), thought) if part), "" if cut else solution


def set_apart(chains: Sequence[dict]) -> tuple[list[dict], list[dict]]:
    """(verified, unverified): chains found right or wrong, and chains that nothing could check."""
    return [c for c in chains if c["correct"] is not None], [c for c in chains if c["correct"] is None]


def split_steps(text: str) -> list[str]:
    """The steps of a chain: paragraphs, or lines where there are no paragraphs."""
    text = text.strip()
    return [s.strip() for s in re.split(r"\n\s*\n" if "\n\n" in text else r"\n", text) if s.strip()]


def chain_text(chain: dict) -> str:
    """What the student learns to write: the thought, a blank line, the solution."""
    return "\n\n".join(part for part in (chain["thought"], chain["solution"]) if part)


def make_chain(chain_id: str, problem: dict, style: str, reply: Reply, teacher: str, **more) -> dict:
    """A row of `chains.jsonl`.

    `correct` asks, of a program, that it passes its tests; else for one boxed answer, right, in a text not cut off, and
    but for slow chains that no equation written on the way is false. Chains that nothing here can check have `correct`
    None and `verified` False.
    """
    split = split_program if problem["verifier"] == "code" else split_chain
    thought, solution = split(reply.text, reply.reasoning, cut=reply.finish_reason == "length")
    row = Chain(
        id=chain_id,
        problem_id=problem["id"],
        style=style,
        thought=thought,
        solution=solution,
        teacher=teacher,
        n_tokens=reply.completion_tokens,
        finish_reason=reply.finish_reason,
        **more,
    )
    if not verifiable(problem):
        why = f"verifier {problem['verifier']!r} cannot run here"
        return row | {"correct": None, "verified": False, "why": why, "text": reply.text}  # steps lose indentation
    text = chain_text(row)
    why = why_not(row, text, problem)
    return row | ({"correct": True} if why is None else {"correct": False, "why": why})


def why_not(row: dict, text: str, problem: dict) -> str | None:
    """What is wrong with a chain, or None."""
    if row["finish_reason"] != "stop":
        return "cut off at the token limit"
    if problem["verifier"] == "code":
        return None if is_correct(text, problem) else "fails its tests" if extract_code(text) else "no code"
    answers = boxed_answers(text)
    if len(answers) != 1:
        return "several boxed answers" if answers else "no boxed answer"
    if not is_correct(text, problem, boxed_only=True):
        return "wrong answer"
    if row["style"] not in MAY_ERR and false_equation(text):
        return "right answer, false step"
    return None


def prompt_name(style: str, problem: dict) -> str:
    """The prompt that asks for a chain of a style: programs are asked for in other words."""
    return f"{style}_code" if problem["verifier"] == "code" else style


def collect(
    problems: Sequence[dict],
    chat: Chat,
    style: str,
    samples: int,
    seed: int,
    turns: bool = False,
    max_tokens: int = 1024,
) -> tuple[list[dict], list[dict]]:
    """(chains, failed): `samples` chains of one style for each problem, verified, as rows of `chains.jsonl`.

    Sampled at temperature 0.7. With `turns`, slow chains are made in turns (`distil.llm.multi_turn`), but for programs;
    such a chain has `turns` True. A request that failed for good is a row {problem_id, style, sample, reason} of
    `failed`: ask again and it is sent again. Raises ChatError where asking again cannot help.
    """
    jobs = [(problem, k) for problem in problems for k in range(samples)]
    later = [AFTERWARDS if turns and style == "slow" and problem["verifier"] != "code" else () for problem, _ in jobs]
    replies, why = talk(
        [messages(prompt_name(style, problem), question=problem["question"]) for problem, _ in jobs],
        later,
        chat,
        max_tokens=max_tokens,
        temperature=0.7,
        seeds=[seed * 1000 + k for _, k in jobs],
        label=f"{style} chains",
    )

    def chain(problem: dict, k: int, reply: Reply, more: Sequence[str]) -> dict:
        turned = {"turns": True} if more else {}
        return make_chain(f"{problem['id']}-{style}-{k}", problem, style, reply, chat.model, **turned)

    answered = [(*job, reply, more) for job, reply, more in zip(jobs, replies, later, strict=True) if reply is not None]
    chains = side_by_side(chain, *zip(*answered, strict=True)) if answered else []
    failed = []
    for index, reason in why.items():
        problem, k = jobs[index]
        failed.append({"problem_id": problem["id"], "style": style, "sample": k, "reason": reason})
    return chains, failed
