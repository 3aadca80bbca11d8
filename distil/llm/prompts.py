"""The prompts, one file a prompt in `distil/prompts/`, and how they are filled in."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from distil.verify.registry import verifier_of
from distil.workspace.rows import Problem


def template(name: str) -> str:
    """The text of a prompt. A file of that name in the folder $DISTIL_PROMPTS replaces the package's own."""
    own = os.environ.get("DISTIL_PROMPTS")
    if own and (Path(own) / f"{name}.md").is_file():
        return (Path(own) / f"{name}.md").read_text(encoding="utf-8")
    return (resources.files("distil") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def messages(name: str, **values: str) -> list[dict]:
    """Chat messages of prompt `name`: its parts headed `# system`, `# user`, `# assistant`; without any, one user turn.

    Placeholders `{question}` and the like are replaced in one pass, so that braces inside a value do no harm.
    """
    first, *parts = re.split(r"^# (system|user|assistant)\n", template(name), flags=re.MULTILINE)
    if not parts:
        return [{"role": "user", "content": fill(first.strip(), values)}]
    return [
        {"role": role, "content": fill(text.strip(), values)}
        for role, text in zip(parts[::2], parts[1::2], strict=True)
    ]


def fill(text: str, values: dict[str, str]) -> str:
    """Replace each `{name}` of `values` in `text`. What is inserted is not searched again."""
    pattern = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(pattern, lambda match: values[match.group()[1:-1]], text) if values else text


def student_messages(question: str) -> list[dict]:
    """What the student is asked: the same words in training and in every measurement."""
    return messages("student", question=question)


def prompt_of(problem: Problem, student_format: str = "plain") -> list[dict]:
    """What the student is asked of a problem, in the form that its verifier reads; see `distil.models.formats`."""
    asked = messages(verifier_of(problem).prompt_name("student"), question=problem.question)
    return [*format_turns(student_format), *asked]


def format_turns(student_format: str) -> list[dict]:
    """The system turn that asks for a format, where one does: the same in training and in every measurement."""
    return messages("student_sections") if student_format == "sections" else []
