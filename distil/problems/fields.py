"""Fields of rows that others wrote: found by name, read as text, split names made ours."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from distil.workspace.rows import Problem

TEXT_FIELDS = [field.name for field in dataclasses.fields(Problem) if field.type == "str"]
KINDS = {type(None): "null", bool: "true or false", list: "a list", dict: "an object"}  # as JSON calls them
SPLITS = {"train": ("train", "training"), "test": ("test", "validation", "valid", "val", "dev", "eval")}


def field_of(record: object, name: str) -> Any:
    """The value of a field; `a.b` names field b within field a, `a.0` the first of list a, `a.-1` the last.

    A field whose own name holds the dot comes first. Raises KeyError if it is not there.
    """
    if isinstance(record, Mapping) and name in record:
        return record[name]
    if isinstance(record, list) and re.fullmatch(r"-?\d+", name) and -len(record) <= int(name) < len(record):
        return record[int(name)]
    for dot in reversed([match.start() for match in re.finditer(r"\.", name)]):
        try:
            return field_of(field_of(record, name[:dot]), name[dot + 1 :])
        except KeyError:
            continue
    raise KeyError(name)


def text_of(value: object, field: str) -> str:
    """A text or a number as text, 3.0 as 3. Raises ValueError, naming the field, for all else.

    >>> text_of(42, "answer")
    '42'
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"field `{field}` is {value}, as some programs write what is missing: write it as a text")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"field `{field}` is {KINDS.get(type(value), type(value).__name__)}: write it as a text")
    return str(value)


def as_texts(row: Mapping[str, Any], needed: Sequence[str]) -> dict[str, Any]:
    """A row whose fields of a `Problem` that hold a text hold one; those that are null and not `needed` are left out.

    Raises ValueError, naming the field, for one that is needed and missing, null or empty, or that is no text, and for
    `choices` that are no list of texts.
    """
    texts: dict[str, Any] = {}
    for field, value in row.items():
        if field == "choices" and value is not None:
            if not isinstance(value, list):
                raise ValueError("field `choices` must be a list of texts")
            texts[field] = [text_of(choice, field) for choice in value]
        elif field not in TEXT_FIELDS:
            texts[field] = value
        elif value is not None or field in needed:
            texts[field] = text_of(value, field)
    for field in needed:
        if field not in texts:
            raise ValueError(f"field `{field}` is missing")
        if not texts[field].strip():
            raise ValueError(f"field `{field}` is empty")
    return texts


def read_split(text: str) -> str:
    """train, test, or "" where none is said, from the usual names of splits. Raises ValueError for another name."""
    word = text.strip().casefold()
    for split, names in SPLITS.items():
        if word in names:
            return split
    if word:
        known = ", ".join(name for names in SPLITS.values() for name in names)
        raise ValueError(f"split {text!r} is unknown; use one of {known}, or leave it out")
    return ""
