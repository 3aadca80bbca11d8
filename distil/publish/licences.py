"""Whose terms hold: the licences of well-known weights, and what is known of a run's teacher."""

from __future__ import annotations

import re

from distil.llm.cache import recording_file

LICENCES = (  # of the weights; the first pattern that fits the model's name
    (r"Qwen2\.5.*-3B", "other", "qwen-research"),
    (r"Qwen2\.5.*-72B", "other", "qwen"),
    (r"^Qwen/|^qwen2\.5|SmolLM2", "apache-2.0", None),
    (r"(?i)deepseek-(v3|r1|chat|reasoner)", "mit", None),
)


def licence(model: str) -> tuple[str | None, str | None]:
    """(licence, its name where it is `other`) of well-known weights; (None, None) of others."""
    return next(((kind, name) for pattern, kind, name in LICENCES if re.search(pattern, model)), (None, None))


def terms(facts: dict) -> str:
    """One sentence on the teacher: who it was, and under what terms its answers may be used."""
    params = facts["01_collect/meta.json"]["params"]
    teacher, endpoint = params["teacher"], params["endpoint"]
    if endpoint.startswith("recorded:"):
        name = endpoint.removeprefix("recorded:")
        text = recording_file(name).with_name("README.md").read_text(encoding="utf-8")
        found = re.search(r"licence (\S+)", text)
        said = found.group(1) if found else None
        where = f"replayed from the recording `{name}`"
    else:
        said, where = licence(teacher)[0], "asked at a live endpoint"
    if said:
        return (
            f"`{teacher}`, {where}; licence of its weights: {said}, and its terms hold for what is made of its answers"
        )
    return (
        f"`{teacher}`, {where}; its licence is not recorded. Read its terms before you use these answers or what was "
        "trained on them: some forbid to train other models"
    )
