"""Whose terms hold: the licences of well-known weights, and what is known of a run's teacher."""

from __future__ import annotations

import re
from pathlib import Path

from distil.llm.cache import recording_file
from distil.publish.facts import is_folder, public

LICENCES = (  # of the weights; the first pattern that fits the model's name
    (r"Qwen2\.5.*-3B", "other", "qwen-research"),
    (r"Qwen2\.5.*-72B", "other", "qwen"),
    (r"^Qwen/|^qwen2\.5|SmolLM2", "apache-2.0", None),
    (r"(?i)deepseek-(v3|r1|chat|reasoner)", "mit", None),
)


ASKING = ("01_collect", "02_rewrite", "03_judge")  # stages that ask models behind endpoints


def licence(model: str) -> tuple[str | None, str | None]:
    """(licence, its name where it is `other`) of well-known weights; (None, None) of others."""
    return next(((kind, name) for pattern, kind, name in LICENCES if re.search(pattern, model)), (None, None))


def terms(facts: dict) -> str:
    """A sentence on each model that was asked: who it was, and under what terms its answers may be used."""
    said = [terms_of(model, endpoint, facts) for model, endpoint in asked(facts)]
    if chains := facts["01_collect/meta.json"]["params"].get("chains"):
        source = public("chains", chains)
        facts["names"] = facts.get("names", []) + [source]
        said.append(f"slow chains that existed, from `{source}`: the terms of that set and of its teacher hold")
    return ". ".join(said)


def asked(facts: dict) -> list[tuple[str, str]]:
    """(model, endpoint) of each model that 01 to 03 asked, once; of a run that has no roles its teacher."""
    metas = [facts.get(f"{stage}/meta.json", {}) for stage in ASKING]
    usage = [role for meta in metas for role in meta.get("figures", {}).get("usage", {}).values()]
    named = {(role["model"], role["endpoint"]): None for role in usage if isinstance(role, dict)}
    params = metas[0]["params"]
    return list(named) or [(params["teacher"], params["endpoint"])]


def terms_of(teacher: str, endpoint: str, facts: dict) -> str:
    """One sentence on one model; what it names goes into `facts["names"]`."""
    teacher = Path(teacher).name if is_folder(teacher) else teacher
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
