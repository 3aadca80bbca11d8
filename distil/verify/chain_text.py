"""The parts of a chain of thought as text: its steps, its thought, its solution."""

from __future__ import annotations

import re

from distil.verify.answers import unboxed

TAGS = re.compile(r"<\|(?:begin|end)_of_(?:thought|solution)\|>|</?think>")
SOLUTION = re.compile(r"<\|begin_of_solution\|>(.*?)(?:<\|end_of_solution\|>|$)", re.DOTALL)


def split_steps(text: str) -> list[str]:
    """The steps of a chain: paragraphs, or lines where there are no paragraphs."""
    text = text.strip()
    return [s.strip() for s in re.split(r"\n\s*\n" if "\n\n" in text else r"\n", text) if s.strip()]


def split_chain(text: str, reasoning: str = "", cut: bool = False) -> tuple[str, str]:
    """(thought, solution) of a reply: from its reasoning field, else from its tags; else the last step is the solution.

    A text `cut` off at the token limit within its Thought section has no solution. What a reasoning field boxes on the
    way is unboxed: the answer is the one that was said. Steps are separated by one blank line in the result; if the
    text has no blank lines, every line is a step.
    """
    tagged = SOLUTION.search(text)
    if reasoning:
        thought, solution = unboxed(reasoning), TAGS.sub("", text)
    elif tagged:
        thought, solution = TAGS.sub("", text[: tagged.start()]), TAGS.sub("", tagged.group(1))
    elif cut and "<|begin_of_thought|>" in text and "<|end_of_thought|>" not in text:
        thought, solution = TAGS.sub("", text), ""
    else:
        steps = split_steps(TAGS.sub("", text))
        thought, solution = "\n\n".join(steps[:-1]), steps[-1] if steps else ""
    return "\n\n".join(split_steps(thought)), "\n\n".join(split_steps(solution))
