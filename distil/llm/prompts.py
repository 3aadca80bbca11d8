"""The prompts, one file a prompt in `distil/prompts/`, and how they are filled in.

A folder in there is a prompt set: its files go before those of the same name, for the problems it was written for.
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

from distil.verify.registry import verifier_of
from distil.workspace.files import read_user_text
from distil.workspace.rows import Problem

WORKED_EXAMPLES = "worked-examples"  # a prompt set with solved problems, for the suites that those are taken from
GENERATED = ("reasoning-gym", "distil")  # sources of the problems of `distil/problems/suites.yaml`


def prompt_set(problem: Problem) -> str:
    """The prompt set in which a problem is asked: `worked-examples` for generated suites, else the default, ""."""
    return WORKED_EXAMPLES if problem.source in GENERATED else ""


def template(name: str, prompts: str = "") -> str:
    """The text of a prompt, of the prompt set `prompts` where that has it.

    A file of that name in the folder $DISTIL_PROMPTS replaces the package's own, in every set.
    """
    package, own = resources.files("distil") / "prompts", os.environ.get("DISTIL_PROMPTS")
    files = [Path(own) / f"{name}.md"] if own else []
    files += [package / prompts / f"{name}.md"] if prompts else []
    return read_user_text(next((file for file in files if file.is_file()), package / f"{name}.md"))


def messages(name: str, *, prompts: str = "", **values: str) -> list[dict]:
    """Chat messages of prompt `name`: its parts headed `# system`, `# user`, `# assistant`; without any, one user turn.

    `prompts` names the prompt set. Placeholders `{question}` and the like are replaced in one pass, so that braces
    inside a value do no harm.
    """
    first, *parts = re.split(r"^# (system|user|assistant)\n", template(name, prompts), flags=re.MULTILINE)
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
