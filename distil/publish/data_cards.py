"""The cards of what a student was made with: its training set and its reward model."""

from __future__ import annotations

from distil.publish.cards import TAGS, Names, commit, fill, finished, suite
from distil.publish.facts import SETS, command
from distil.publish.licences import licence, terms
from distil.train.reward_model import HEADS


def data_card(facts: dict, names: Names) -> str:
    """The card of the training sets. Raises StageError if it says a number that no measured file holds."""
    from huggingface_hub import DatasetCardData

    sets = {kind: {part: rows(facts, part, kind) for part in ("train", "valid")} for kind in SETS}
    sets = {kind: parts for kind, parts in sets.items() if parts["train"]}
    collected, rewritten, judged = (facts[f"{s}/meta.json"] for s in ("01_collect", "02_rewrite", "03_judge"))
    data = DatasetCardData(
        task_categories=["text-generation"],
        annotations_creators=["machine-generated"],
        tags=TAGS,
        configs=[
            {
                "config_name": kind,
                **({"default": True} if kind == next(iter(sets)) else {}),
                "data_files": [
                    {"split": split, "path": f"{kind}/{part}.jsonl"}
                    for part, split in (("train", "train"), ("valid", "validation"))
                    if parts[part]
                ],
            }
            for kind, parts in sets.items()
        ],
    )
    card = fill(
        "training_set",
        data,
        name=names.data.partition("/")[2],
        sets=sets,
        suite=suite(facts),
        teacher=terms(facts),
        collected=collected,
        rewritten=rewritten,
        judged=judged,
        commit=commit(judged),
        command=command(facts),
    )
    return finished(card, facts, names.data)


def rows(facts: dict, part: str, kind: str) -> int:
    return facts.get(f"03_judge/{part}/{kind}.jsonl", {"rows": 0})["rows"]


def reward_card(facts: dict, repository: str) -> str:
    """The card of the reward model. Raises StageError if it says a number that no measured file holds."""
    from huggingface_hub import ModelCardData

    base, made = facts["04_finetune/meta.json"]["params"]["student"], facts["06_reinforce/meta.json"]
    kind, kind_name = licence(base)
    data = ModelCardData(
        base_model=base,
        base_model_relation="finetune",
        library_name="transformers",
        pipeline_tag="text-classification",
        license=kind,
        license_name=kind_name,
        tags=[*TAGS, "reward-model"],
    )
    card = fill(
        "reward_model",
        data,
        name=repository.partition("/")[2],
        repository=repository,
        heads=HEADS,
        figures=made["figures"],
        teacher=terms(facts),
        commit=commit(made),
        command=command(facts),
    )
    return finished(card, facts, repository)
