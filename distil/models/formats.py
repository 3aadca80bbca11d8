"""How a student answers: plainly, with a thought before, or in two sections. One module for training and use alike.

| format | what the student writes |
|---|---|
| plain | the thought, a blank line, the solution |
| think | `<think>`, the thought, `</think>`, the solution, as Qwen3 has it; its template is asked for a thought |
| sections | Thought and Solution between tags, asked for by the system prompt `student_sections` |

The format is pinned in the tokenizer, and lies with the student: its chat template renders every prompt in this format,
whoever serves it, and `tokenizer_config.json` names it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from distil.workspace.errors import StageError

FORMATS = ("plain", "think", "sections")
KEY = "student_format"  # in tokenizer_config.json; left out for plain
SWITCH = "enable_thinking"  # what templates of models that can think call their variable
PINNED = re.compile(r"^\{%- set enable_thinking = (?:true|false) %\}")
BEGINS = {
    "plain": "",
    "think": "<think>\n",
    "sections": "<|begin_of_thought|>\n",
}
BETWEEN = {
    "plain": "\n\n",
    "think": "\n</think>\n\n",
    "sections": "\n<|end_of_thought|>\n<|begin_of_solution|>\n",
}
ENDS = {"plain": "", "think": "", "sections": "\n<|end_of_solution|>"}
WHOLE = {
    "think": re.compile(r"<think>\n.*?</think>\s*\S.*", re.DOTALL),
    "sections": re.compile(
        r"<\|begin_of_thought\|>.*?<\|end_of_thought\|>\s*<\|begin_of_solution\|>.*\S.*<\|end_of_solution\|>", re.DOTALL
    ),
}
TAG = re.compile(r"</?think>|<\|(?:begin|end)_of_(?:thought|solution)\|>")


def check(student_format: str) -> None:
    """Raise StageError unless there is such a format."""
    if student_format not in FORMATS:
        raise StageError(f"student_format {student_format!r}: use one of {', '.join(FORMATS)}")


def write(thought: str, solution: str, student_format: str) -> str:
    """What a student writes who thinks `thought` and answers `solution`."""
    if student_format == "plain":
        return "\n\n".join(part for part in (thought, solution) if part)
    return f"{BEGINS[student_format]}{thought}{BETWEEN[student_format]}{solution}{ENDS[student_format]}"


def fault(text: str, student_format: str) -> str | None:
    """What is wrong with the form of a whole answer, or None."""
    tags = TAG.findall(text)
    if student_format == "plain":
        return f"it holds {tags[0]}, which no plain answer has" if tags else None
    if not WHOLE[student_format].fullmatch(text.strip()):
        return f"it is not in the form {write('THOUGHT', 'SOLUTION', student_format)!r}"
    return "a tag comes twice" if len(set(tags)) < len(tags) else None


def said(text: str) -> str:
    """The part of an answer that is read: what follows the thought. Empty if it was cut off within the thought."""
    if "<|begin_of_solution|>" in text:
        return text.rpartition("<|begin_of_solution|>")[2].partition("<|end_of_solution|>")[0].strip()
    if "</think>" in text:
        return text.rpartition("</think>")[2].strip()
    return "" if TAG.search(text) else text


def untagged(text: str) -> str:
    """The same answer as a plain one: its steps without tags, a blank line between its parts."""
    return "\n\n".join(part.strip() for part in TAG.split(text) if part.strip()) if TAG.search(text) else text


def pin(tokenizer, student_format: str) -> None:
    """Make the tokenizer render every prompt for this format, also when others load it from a student's folder.

    A template that knows `enable_thinking` is told its value in its first line; another one is left as it is. Raises
    StageError for an unknown format.
    """
    check(student_format)
    template = tokenizer.chat_template
    if isinstance(template, str) and SWITCH in template:
        value = "true" if student_format == "think" else "false"
        tokenizer.chat_template = f"{{%- set {SWITCH} = {value} %}}" + PINNED.sub("", template)
    tokenizer.init_kwargs.pop(KEY, None)
    if student_format != "plain":
        tokenizer.init_kwargs[KEY] = student_format


def pinned(tokenizer) -> str:
    """The format that `pin` set, or that came with the student's tokenizer; plain where there is none."""
    return tokenizer.init_kwargs.get(KEY, "plain")


def format_in(folder: str | Path) -> str:
    """The format that the student in a folder was taught; plain where nothing is said."""
    file = Path(folder) / "tokenizer_config.json"
    return json.loads(file.read_text(encoding="utf-8")).get(KEY, "plain") if file.exists() else "plain"


def require(name: str, folder: str | Path, student_format: str) -> None:
    """Raise StageError if the student in `folder` was taught another format than the one it is to be asked in."""
    check(student_format)
    taught = format_in(folder)
    if taught != student_format:
        raise StageError(
            f"the student {name!r} was trained with student_format={taught}, and student_format={student_format} is "
            f"asked for: give --set student_format={taught}, or train it again from 03 on"
        )


def opened(tokenizer) -> str:
    """The part of `<think>` and its line break that the chat template itself writes; the student goes on after it."""
    if "<think>" not in (tokenizer.chat_template or ""):
        return ""
    asked = [{"role": "user", "content": "?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    return next((begun for begun in (BEGINS["think"], "<think>") if prompt.endswith(begun)), "")


def whole(begun: str, text: str) -> str:
    """An answer with what the template had `opened`."""
    return text if text.startswith("<think>") else begun + text


def request_fields(folder: str, student_format: str) -> dict:
    """What a request to a server must hold so that chats are rendered in this format and end; {} for most models.

    A model that is served with its publisher's template may think unless it is told not to. A server takes an
    adapter's end token to be its base's; where it is another, the adapter's folder says so (`train.model.save_ends`).
    `folder` has the template; it is empty for a model that is not here.
    """
    if not folder:
        return {}
    files = [Path(folder) / name for name in ("chat_template.jinja", "tokenizer_config.json")]
    knows = any(SWITCH in file.read_text(encoding="utf-8") for file in files if file.exists())
    fields: dict = {"chat_template_kwargs": {SWITCH: student_format == "think"}} if knows else {}
    adapter, ends = Path(folder) / "adapter_config.json", Path(folder) / "generation_config.json"
    if adapter.exists() and ends.exists():
        fields["stop_token_ids"] = json.loads(ends.read_text(encoding="utf-8"))["eos_token_id"]
    return fields
