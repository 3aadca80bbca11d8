"""The cards of what a student was made with: its training set and its reward model."""

from __future__ import annotations

from distil.publish.cards import TAGS, Names, commit, finished, suite
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
    lines = "".join(f"| {kind} | {parts['train']:,} | {parts['valid']:,} |\n" for kind, parts in sets.items())
    figures, params = judged["figures"], collected["params"]
    card = f"""---
{data.to_yaml()}
---
# {names.data.partition("/")[2]}

Chains of thought of a larger model, verified, shortened and chosen for one small student. Made by `distil`.

| set | training rows | validation rows |
|---|---|---|
{lines}
`fast` holds short chains that suit the student, `slow` long ones, `unaligned` short ones that nobody judged, `adaptive`
long ones where the problem is hard and short ones where it is easy. Each row: `instruction`, `output`, `messages` (the
same as a chat), `problem_id`, `chain_id`, `task`. No row is of a problem that a student was measured on.

## How it was made

- Teacher: {terms(facts)}.
- Problems: {suite(facts)}, {params["n_train"]:,} for training, seed {params["seed"]}; the licence of their source holds
  for their texts.
- Collected: {collected["figures"]["chains"]:,} chains, {collected["figures"]["correct"]:,} with a correct answer; wrong
  ones were left out.
- Shortened: {rewritten["figures"]["short"]:,} of {rewritten["figures"]["slow"]:,} long chains, to a share of
  {rewritten["figures"]["token_ratio"]} of their tokens; a rewrite that lost the answer was rejected.
- Judged for `{judged["params"]["student"]}`: {figures["candidates"]:,} candidates, {figures["kept"]:,} kept,
  {figures["improved"]:,} of them improved first.

## Limits

The answers were verified, the steps were not. The chains speak as their teacher does, mistakes of style included, and
suit the student named above, which another student need not resemble.

## Reproduce

With commit {commit(judged)}:

```
{command(facts)} \\
    --to 03_judge
```
"""
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
    figures = made["figures"]
    heads = ", ".join(
        f"`{head}` ({'truth' if top == 1 else 'the grade as a share of the largest'})" for head, top in HEADS.items()
    )
    verdict = "" if figures["rv_mae"] < figures["rv_mae_length_only"] else " It is no better than that guess."
    card = f"""---
{data.to_yaml()}
---
# {repository.partition("/")[2]}

A small judge of chains of thought, distilled from a large one: `{base}` with a linear head for each of its outputs on
the last token. The outputs lie between nought and one: {heads}. RV says how verbose a chain is, CD how hard it is to
follow.

On chains that it had not seen, its RV is off by {figures["rv_mae"]} on average; a guess from the chain's length alone
is off by {figures["rv_mae_length_only"]}.{verdict}

## How it was made

- Fitted on graded chains of problems other than those it was tested on; commit {commit(made)}.
- Grades by the teacher: {terms(facts)}.

## Use

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repository}")
model = AutoModelForSequenceClassification.from_pretrained("{repository}")
question = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
read = tokenizer(question + chain, return_tensors="pt", add_special_tokens=False)
grades = dict(zip(model.config.id2label.values(), model(**read).logits[0].tolist()))
```

`messages` hold the question as the student is asked it, `chain` its answer. It guesses at truth and does not check it:
use it beside a verifier, never instead of one.

## Reproduce

```
{command(facts)} \\
    --to 06_reinforce
```
"""
    return finished(card, facts, repository)
