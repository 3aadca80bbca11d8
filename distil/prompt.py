"""The prompts, one file a prompt in `distil/prompts/`, and how they are filled in."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path


def template(name: str) -> str:
    """Text of a prompt. A file of that name in the folder $DISTIL_PROMPTS goes before the package's own."""
    own = os.environ.get("DISTIL_PROMPTS")
    if own and (Path(own) / f"{name}.md").is_file():
        return (Path(own) / f"{name}.md").read_text(encoding="utf-8")
    return (resources.files("distil") / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def messages(name: str, **values: str) -> list[dict]:
    """Chat messages of prompt `name`: parts headed `# system` and `# user`, or a user turn alone without headings.

    Placeholders `{question}` and the like are replaced in one pass, so that braces inside a value do no harm.
    """
    text = template(name).strip()
    if not text.startswith("# system\n"):
        return [{"role": "user", "content": fill(text, values)}]
    system, _, user = text.removeprefix("# system\n").partition("\n# user\n")
    return [
        {"role": "system", "content": fill(system.strip(), values)},
        {"role": "user", "content": fill(user.strip(), values)},
    ]


def fill(text: str, values: dict[str, str]) -> str:
    """Replace each `{name}` of `values` in `text`; what is inserted is not searched again."""
    import re

    pattern = "|".join(re.escape("{" + name + "}") for name in values)
    return re.sub(pattern, lambda match: values[match.group()[1:-1]], text) if values else text


def student_messages(question: str) -> list[dict]:
    """What the student is asked: the same words in training and in every measurement."""
    return messages("student", question=question)
