"""How a request differs from the most similar one of a recording that lacks it."""

from __future__ import annotations

import difflib
import os

from distil.llm.cache import Store, text_of

DIFF_LINES = 6  # of each side


def describe_difference(body: dict, store: Store) -> str:
    """Say how a request that the store lacks differs from the most similar one in it: fields, then lines of text."""
    asked, best, closeness = text_of(body), None, -1.0
    for row in store.rows():
        text = text_of(row["request"])
        same = len(os.path.commonprefix([asked, text])) + len(os.path.commonprefix([asked[::-1], text[::-1]]))
        fields = sum(body.get(name) == value for name, value in row["request"].items())  # settles equal texts
        if (score := same / max(1, len(asked), len(text)) + fields / 1000) > closeness:
            best, closeness = row["request"], score
    if best is None:
        return "the recording is empty"
    names = [n for n in {**body, **best} if n != "messages" and body.get(n) != best.get(n)]
    parts = [f"{name} is {body.get(name)!r}, recorded with {best.get(name)!r}" for name in names]
    if asked != text_of(best):
        lines = difflib.unified_diff(text_of(best).splitlines(), asked.splitlines(), "", "", lineterm="", n=0)
        changes = [line[:200] for line in lines if not line.startswith(("---", "+++", "@@"))]
        shown = [line for sign in "-+" for line in [c for c in changes if c[0] == sign][:DIFF_LINES]]
        parts.append("the prompt's text (- recorded, + asked):\n  " + "\n  ".join(shown))
    return "; ".join(parts)
