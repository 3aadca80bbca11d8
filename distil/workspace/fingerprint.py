"""What a stage's result depends on beside its parameters: prompts, fields of requests, code, the user's own files."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from distil.workspace.files import digest, local, read_user_text, sha256

PACKAGE = Path(str(resources.files("distil")))
# read when the package is: a kernel that was started before a file was changed works with what the file said then
SOURCES = {
    file.relative_to(PACKAGE).as_posix(): file.read_bytes()
    for file in sorted(PACKAGE.rglob("*"))
    if file.is_file() and "__pycache__" not in file.relative_to(PACKAGE).parts
}
# what changes no result: who runs the notebooks; prompts and profiles, which are looked at by themselves
NO_CODE = ("pipeline/", "prompts/", "workspace/profiles", "cli.py", "__main__.py")
FIRST_USED = {"evaluate/": "04", "train/": "04", "publish/": "07"}  # rooms that the stages before do not import
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
NO_PATHS = ("push", "repository", "base_name")  # parameters whose words are names, whatever lies here
EXTRA = re.compile(r"DISTIL_(?:\w+_)?EXTRA")  # of every role, or of one
OF_STUDENTS = ("student", "gallery")  # how the names of prompts begin that 04 to 07 ask or teach with


def asked_with(stage: str) -> dict[str, object]:
    """{prompts, extra, code} in force for a stage: digests of its prompts and of the package's code, and extra fields.

    01 to 03 answer for every prompt, the later stages for those of students. A file in the folder $DISTIL_PROMPTS
    stands for the package's file of the same name. Extra fields are sent by 01 to 03, and by 07 to a server.
    """
    teachers = stage < "04"
    texts = prompts_in_force()
    prompts = digest(*((name, text) for name, text in texts.items() if teachers or name.startswith(OF_STUDENTS)))
    later = tuple(room for room, first in FIRST_USED.items() if stage < first)
    return {
        "prompts": prompts,
        "extra": extra_fields() if teachers or stage == "07_eval" else {},
        "code": code(*(name for name in SOURCES if not name.startswith((*NO_CODE, *later)))),
    }


def code(*below: str) -> str:
    """Digest of what the package's files below these paths say, such as `train/` or `models/student.py`."""
    return digest(*((name, said(name)) for name in SOURCES if name.startswith(below)))


@cache
def said(name: str) -> str:
    """Digest of a file of the package; of Python without its comments, blanks and docstrings, which do nothing."""
    if not name.endswith(".py"):
        return hashlib.sha256(SOURCES[name]).hexdigest()
    tree = ast.parse(SOURCES[name])
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return digest(ast.dump(tree))


def files_named(params: Mapping[str, object]) -> dict[str, str]:
    """{name: SHA-256} of the files and folders here that parameters name: problems, chains, rows, weights.

    A name has a slash or ends in .json or .jsonl; `student` may be any folder. Options may follow it, or an endpoint.
    """
    named = {}
    for parameter, value in params.items():
        if not isinstance(value, str) or parameter in NO_PATHS or "://" in value.partition("@")[0]:
            continue
        for word in re.split(r"[,?&=@]|hub:", value):
            like_a_path = "/" in word or word.endswith((".json", ".jsonl")) or parameter == "student"
            if like_a_path and (path := local(word)):
                named[word] = sha256(path)
    return named


def prompts_in_force() -> dict[str, str]:
    """Text of every prompt by its path below the folder of prompts, such as `worked-examples/fast.md`."""
    package = PACKAGE / "prompts"
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
