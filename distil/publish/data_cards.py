"""The cards of what a student was made with: its training set and its reward model."""

from __future__ import annotations

from distil.publish.cards import TAGS, fill, model_data
from distil.publish.facts import SETS
from distil.train.reward_model import HEADS


def data_card(facts: dict, repository: str) -> str:
    """The card of the training sets. Raises StageError if it says a number that no measured file holds."""
    from huggingface_hub import DatasetCardData

    sets = {kind: {part: rows(facts, part, kind) for part in ("train", "valid")} for kind in SETS}
    sets = {kind: parts for kind, parts in sets.items() if parts["train"]}
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
    judged, rewritten = facts["03_judge/meta.json"], facts["02_rewrite/meta.json"]
    return fill("training_set", data, facts, repository, judged, sets=sets, rewritten=rewritten)


def rows(facts: dict, part: str, kind: str) -> int:
    return facts.get(f"03_judge/{part}/{kind}.jsonl", {"rows": 0})["rows"]


def reward_card(facts: dict, repository: str) -> str:
    """The card of the reward model. Raises StageError if it says a number that no measured file holds."""
    data = model_data(
        facts,
        base_model_relation="finetune",
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[*TAGS, "reward-model"],
    )
    made = facts["06_reinforce/meta.json"]
    return fill("reward_model", data, facts, repository, made, heads=HEADS, figures=made["figures"])
