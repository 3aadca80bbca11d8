"""Publish: the model card, written from measured files, and the push to the Hub, which is off unless asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from distil.evaluate import markdown
from distil.stage import StageError, run_folder

PUSHED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "README.md")


def meta(run: str, stage: str) -> dict:
    """The `meta.json` of a stage. Raises StageError if it is missing: a card has no number without a file."""
    file = run_folder(run) / stage / "meta.json"
    if not file.exists():
        raise StageError(f"{file} is missing: run {stage} before the card is written")
    return json.loads(file.read_text())


def model_card(run: str, results: Sequence[dict], student: str, max_new_tokens: int) -> str:
    """The card of a student, from the run's `meta.json` files and results."""
    collected, judged, tuned = (meta(run, s) for s in ("01_collect", "03_judge", "04_finetune"))
    base, teacher = tuned["params"]["student"], collected["params"]["teacher"]
    figures = tuned["figures"]
    row = next(r for r in results if r["student"] == student)
    return f"""---
base_model: {base}
library_name: transformers
pipeline_tag: text-generation
tags: [distillation, reasoning, chain-of-thought]
---
# {base.split("/")[-1]}, thinking fast

A student of `{teacher}`: fine-tuned on {figures[f"{student}_examples"]:,} examples
({figures[f"{student}_tokens"]:,} tokens) of verified chains of thought that were judged and improved for it.

## Results

{row["n"]} held-out problems of suite `{collected["params"]["problems"]}`, one greedy answer each, at most
{max_new_tokens} tokens; 95% Wilson intervals. Seconds are those of batched answering on {tuned["gpu"] or "a CPU"}
with {tuned["cores"]} cores.

{markdown(results)}
## How it was made

- Teacher: `{teacher}` through `{collected["params"]["endpoint"]}`; its licence and terms hold for what is made of
  its answers.
- Chains: {collected["figures"]["chains"]:,} collected, {collected["figures"]["correct"]:,} correct;
  {judged["figures"]["candidates"]:,} judged, {judged["figures"]["kept"]:,} kept.
- Training: {tuned["params"]["method"]}, learning rate {tuned["params"]["learning_rate"]:g}, seed
  {tuned["params"]["seed"]}, loss on the completion only.
- Versions: {", ".join(f"{k} {v}" for k, v in tuned["versions"].items())}; commit {tuned["commit"]}.

## Use and limits

Ask in the form it was trained on: the question, then a line `Give the answer in \\boxed{{}}.` It was measured on
generated puzzles of the kinds above and on nothing else.
"""


def push(folder: Path, repository: str) -> str:
    """Upload a student's folder to the Hub as a private repository; returns its address.

    The token comes from the environment (HF_TOKEN). Raises StageError before anything is sent if the name is not
    OWNER/NAME or there is no token.
    """
    from huggingface_hub import HfApi

    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise StageError(f"repository {repository!r}: write OWNER/NAME")
    if not os.environ.get("HF_TOKEN"):
        raise StageError("pushing needs a token with write access in the environment variable HF_TOKEN")
    api = HfApi()
    address = api.create_repo(repository, private=True, exist_ok=True)
    api.upload_folder(folder_path=folder, repo_id=repository, allow_patterns=list(PUSHED))
    return str(address)
