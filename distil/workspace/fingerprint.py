"""What a stage asks models with, beside its parameters: the prompts, and the extra fields of requests."""

from __future__ import annotations

import json
import os
import re
from importlib import resources
from pathlib import Path

from distil.workspace.files import digest, read_user_text

EXTRA = re.compile(r"DISTIL_(?:\w+_)?EXTRA")  # of every role, or of one
OF_STUDENTS = ("student", "gallery")  # how the names of prompts begin that 04 to 07 ask or teach with


def asked_with(stage: str) -> dict[str, object]:
    """{prompts, extra} in force for a stage: one digest of its prompts, and the extra fields by their variable.

    01 to 03 answer for every prompt, the later stages for those of students. A file in the folder $DISTIL_PROMPTS
    stands for the package's file of the same name. Extra fields are sent by 01 to 03, and by 07 to a server.
    """
    teachers = stage < "04"
    texts = prompts_in_force()
    prompts = digest(*((name, text) for name, text in texts.items() if teachers or name.startswith(OF_STUDENTS)))
    return {"prompts": prompts, "extra": extra_fields() if teachers or stage == "07_eval" else {}}


def prompts_in_force() -> dict[str, str]:
    """Text of every prompt by its path below the folder of prompts, such as `worked-examples/fast.md`."""
    package = Path(str(resources.files("distil"))) / "prompts"
    texts = {file.relative_to(package).as_posix(): file for file in sorted(package.rglob("*.md"))}
    if own := os.environ.get("DISTIL_PROMPTS"):
        replaced = {name: Path(own) / name for name in texts}
        texts |= {name: file for name, file in replaced.items() if file.is_file()}
    return {name: read_user_text(file) for name, file in texts.items()}


def extra_fields() -> dict[str, object]:
    """The fields of $DISTIL_EXTRA and $DISTIL_<ROLE>_EXTRA; as text where they are no JSON, which others refuse."""
    found: dict[str, object] = {}
    for name, text in sorted(os.environ.items()):
        if EXTRA.fullmatch(name) and text.strip():
            try:
                found[name] = json.loads(text)
            except json.JSONDecodeError:
                found[name] = text
    return found
