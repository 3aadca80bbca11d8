"""Stage 04 on a file of one's own: rows of {"instruction", "output"}, or of {"messages"}, read and checked."""

from __future__ import annotations

import re
from pathlib import Path

from distil.chains.select import split_by_problem
from distil.llm.prompts import format_turns
from distil.models import formats
from distil.models.published import TEACHER, published
from distil.problems.sources import absolute
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_table
from distil.workspace.rows import TrainingRow
from distil.workspace.students import PLACES

ROLES = ("system", "user", "assistant")
FORMS = '{"instruction", "output"} (also with "input", "system") or {"messages"}'


def check(path: str, student_format: str = "plain") -> int:
    """How many rows a user's file has. Raises StageError, naming the line, if 04 could not train on it."""
    return len(read(path, student_format))


def read(path: str, student_format: str) -> list[TrainingRow]:
    """The rows of a .jsonl file, or of a .json list. A row's `problem_id` is a digest of what is asked.

    The text of `input` goes below the instruction. A system turn is that of the row; without one, that of the student
    format. Of a conversation the last answer is learned. Raises StageError, naming the line, for a row of neither
    form, a file of both, a text that is missing or empty, a role that is unknown or out of place, a last turn that is
    no answer, or an output of another student format.
    """
    rows, first = [], ""
    for number, row in read_table(absolute(path)):
        where = f"{path}, line {number}"
        form = "messages" if "messages" in row else "instruction" if "instruction" in row else ""
        if not form:
            raise StageError(f"{where}: neither of the forms {FORMS}; it has: {', '.join(row) or 'no field'}")
        if form != (first := first or form):
            raise StageError(f"{where}: has {form!r}, and the rows before it have {first!r}: give one form a file")
        messages = conversation(row, where) if form == "messages" else instruction(row, where)
        if fault := formats.fault(messages[-1]["content"], student_format):
            raise StageError(f"{where}: the output is not of student_format={student_format}: {fault}")
        if messages[0]["role"] != "system":
            messages = [*format_turns(student_format), *messages]
        asked = messages[-2]["content"]
        rows.append(
            TrainingRow(
                instruction=asked,
                output=messages[-1]["content"],
                messages=messages,
                problem_id=digest(*[turn for turn in messages[:-1] if turn["role"] != "system"]),
            )
        )
    return rows


def instruction(row: dict, where: str) -> list[dict]:
    """The messages of a row of {"instruction", "output"}."""
    asked = text(row, "instruction", where)
    if row.get("input"):
        asked += "\n\n" + text(row, "input", where)
    system = [{"role": "system", "content": text(row, "system", where)}] if row.get("system") else []
    answer = {"role": "assistant", "content": text(row, "output", where)}
    return [*system, {"role": "user", "content": asked}, answer]


def conversation(row: dict, where: str) -> list[dict]:
    """The messages of a row of {"messages"}: perhaps a system turn, then user and assistant by turns."""
    turns = row["messages"]
    if not (isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns)):
        raise StageError(f'{where}: "messages" is a list of {{"role", "content"}}')
    roles = [turn.get("role") for turn in turns]
    for role in roles:
        if role not in ROLES:
            raise StageError(f"{where}: unknown role {role!r}: use {', '.join(ROLES)}")
    if roles[-1] != "assistant":
        raise StageError(f"{where}: the last message is of role {roles[-1]!r}, not assistant: nothing is to be learned")
    talk = roles[1:] if roles[0] == "system" else roles
    if talk != ["user", "assistant"] * (len(talk) // 2):
        raise StageError(
            f"{where}: roles {', '.join(roles)}: write user and assistant by turns, system first or not at all"
        )
    return [{"role": turn["role"], "content": text(turn, "content", where)} for turn in turns]


def text(row: dict, field: str, where: str) -> str:
    """A field that holds words."""
    value = row.get(field)
    if not (isinstance(value, str) and value.strip()):
        raise StageError(f"{where}: {field!r} is {'missing' if field not in row else 'empty or no text'}")
    return value


def read_split(path: str, student_format: str, seed: int) -> tuple[list[TrainingRow], list[TrainingRow]]:
    """(train, valid) of a user's file: one instruction in ten is set aside, the same ones for one seed.

    Raises StageError as `read` does, or if no row is left to train on.
    """
    train, valid = split_by_problem(read(path, student_format), seed)
    if not train:
        raise StageError(f"{path}: {len(valid)} rows are too few: all fell to validation; give more, or another seed")
    return train, valid


def student_name(students: str, path: str) -> str:
    """The name of the student that a file makes: `students` if it is one name, else the file's, cleaned.

    Raises StageError for a name that means something else in 07.
    """
    name = students.strip()
    if "," in name or not name:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(path).stem).strip("-.")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name):
        raise StageError(f"students={name!r}: name the student of {path} with letters, digits, '.', '_', '-'")
    if name.lower() in map(str.lower, ("base", TEACHER, *PLACES, *published())):  # one folder on macOS and Windows
        raise StageError(f"the student of {path} cannot be called {name!r}, which is another one: give students=NAME")
    return name
