"""The cards: of a student, of the reward model, of the training set. Every number comes from a measured file."""

from __future__ import annotations

import json
from dataclasses import dataclass

from distil.evaluate.metrics import markdown
from distil.llm.prompts import student_messages
from distil.publish.facts import LEVEL, command, unbacked
from distil.publish.licences import licence, terms
from distil.workspace.errors import StageError
from distil.workspace.students import PLACES, home

TAGS = ["distil", "distillation", "reasoning", "chain-of-thought"]
# data sets that are registered as benchmarks on the Hub: task in their eval.yaml, and how many problems that is
BENCHMARKS = {"hub:gsm8k": ("openai/gsm8k", "gsm8k", 1319)}


@dataclass(frozen=True)
class Names:
    """Where things go: OWNER/NAME of the student, and of what is published beside it (None: not published)."""

    student: str
    merged: str | None = None
    data: str | None = None


def finished(card: str, facts: dict, *names: str | None) -> str:
    """The card itself. Raises StageError if it says a number that no measured file holds."""
    missing = unbacked(card, facts | {"names": [*facts.get("names", []), *filter(None, names)]})
    if missing:
        words = ", ".join(dict.fromkeys(missing))
        raise StageError(
            f"the card says {words}, which no measured file holds: it is not written. Run the stage that measures "
            "it again; if it is there, distil/publish/cards.py says what it should not"
        )
    return card


def suite(facts: dict) -> str:
    """The problems, in words."""
    name = facts["01_collect/meta.json"]["params"]["problems"].partition("?")[0]
    return "a file of its maker's own" if name.endswith(".jsonl") else f"suite `{name}`"


def commit(meta: dict) -> str:
    """The commit of `distil` that wrote a meta.json, in words."""
    dirty = " and changes that were not committed" if str(meta["commit"]).endswith("+") else ""
    return f"`{meta['commit'] or 'unknown'}` of `distil`{dirty}"


def settings(facts: dict) -> dict:
    return facts.get("07_eval/meta.json") or facts["07_eval/settings.json"]


def model_card(facts: dict, student: str, names: Names, merged: bool) -> str:
    """The card of a student (with its adapter, or `merged` into whole weights). Raises StageError."""
    from huggingface_hub import EvalResult, ModelCardData

    results = facts["07_eval/results.csv"]
    rows = [row for row in results if row["student"] == student]
    if not rows:
        raise StageError(f"07_eval/results.csv has no row {student!r}: measure a student before it is published")
    collected, tuned, evaluated = facts["01_collect/meta.json"], facts["04_finetune/meta.json"], settings(facts)
    base = tuned["params"]["student"]
    adapter = facts.get(f"{home(student)}/adapter_config.json")
    whole = merged or adapter is None
    kind, kind_name = licence(base)
    repository = names.merged if merged else names.student
    asked = {k: v for k, v in evaluated["params"].items() if k in ("max_new_tokens", "batch_size", "seed")}
    data = ModelCardData(
        base_model=base,
        base_model_relation="finetune" if whole else "adapter",
        datasets=[names.data] if names.data else None,
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        license=kind,
        license_name=kind_name,
        tags=TAGS,
        model_name=repository.partition("/")[2],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=collected["params"]["problems"].partition("?")[0].rpartition("/")[2],
                dataset_name="held-out problems",
                dataset_split="test",
                dataset_args={"n": row["n"], **asked},
                metric_type=metric,
                metric_name=name,
                metric_value=row[metric],
                metric_args={"ci_low": row["ci_low"], "ci_high": row["ci_high"]} if metric == "accuracy" else None,
            )
            for row in rows
            for metric, name in (("accuracy", "accuracy, Wilson interval"), ("tokens_per_answer", "tokens an answer"))
        ],
    )
    gaps = "".join(
        f"- {gap['of']} minus {gap['to']}: {100 * gap['difference']:+.1f} points ({100 * gap['ci_low']:+.1f} to "
        f"{100 * gap['ci_high']:+.1f})\n"
        for gap in facts["07_eval/differences.jsonl"]
        if student in (gap["of"], gap["to"])
    )
    machine = evaluated["gpu"] or "a CPU"
    card = f"""---
{data.to_yaml()}
---
# {repository.partition("/")[2]}

`{base}`, taught to reason in few tokens by a larger model: the student `{student}` of a run of `distil`
({"whole weights, the adapter merged in" if merged else "whole weights" if whole else "a LoRA adapter"}).

## Results

{markdown(results)}
{gaps}
Intervals are at 95%: Wilson's for accuracy, a paired bootstrap over questions for differences. {rows[0]["n"]} held-out
problems of {suite(facts)}, one greedy answer each, at most
{evaluated["params"]["max_new_tokens"]} tokens, batches of {evaluated["params"]["batch_size"]}. Seconds are wall time
of batched answering divided by answers, on {machine} with {evaluated["cores"]} cores, where it wrote
{rows[0]["tokens_per_second"]:,.0f} tokens a second. The numbers are those of `results/results.csv` and
`results/differences.jsonl` in this repository.

## How it was made

{recipe(facts, student)}
## Use

{use(student, repository, None if whole else adapter, base, evaluated)}
## Limits

It was measured on problems of the kinds above and on nothing else, with the prompt above and greedy answers; other
prompts, languages and subjects were not tried. Its chains of thought explain how it came to an answer and prove
nothing: {rows[0]["accuracy"]:.1%} of its answers were right, {rows[0]["cut_off"]:.0%} were cut off. No test of safety
was made. It is for study of distillation, not for decisions about people.

## Reproduce

With commit {commit(tuned)}:

```
{command(facts)}
```
"""
    return finished(card, facts, repository, names.student, names.merged, names.data, kind, kind_name)


def recipe(facts: dict, student: str) -> str:
    """What was done to the student, a line a step, with the figures of each stage's meta.json."""
    collected, judged, tuned = (facts[f"{s}/meta.json"] for s in ("01_collect", "03_judge", "04_finetune"))
    params, figures = tuned["params"], tuned["figures"]
    taught = student if f"{student}_examples" in figures else None
    lines = [
        f"Teacher: {terms(facts)}.",
        f"Data: {collected['figures']['chains']:,} chains collected, {collected['figures']['correct']:,} of them "
        f"correct; {judged['figures']['candidates']:,} judged for this student, {judged['figures']['kept']:,} kept.",
    ]
    if not taught:
        stage = PLACES[student]
        later = facts[f"{stage}/meta.json"]
        taught = later["params"]["start_from"]
        told = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in later["params"].items() if k != "start_from")
        lines.append(f"Then, from `{taught}`, {stage}: {told}.")
    lines.insert(
        2,
        f"Fine-tuning (`{taught}`): {params['method']}, {figures[f'{taught}_examples']:,} examples, "
        f"{figures[f'{taught}_tokens']:,} tokens at {figures[f'{taught}_tokens_per_s']:,.0f} a second on "
        f"{tuned['gpu'] or 'a CPU'}, learning rate {params['learning_rate']}, at most {params['max_length']} tokens an "
        f"example, seed {params['seed']}, loss on the completion only.",
    )
    versions = ", ".join(f"{name} {version}" for name, version in tuned["versions"].items())
    return "".join(f"- {line}\n" for line in [*lines, f"Versions: {versions}."])


def use(student: str, repository: str, adapter: dict | None, base: str, evaluated: dict) -> str:
    """How to ask it: the words it was trained on, its template, its end token."""
    messages = json.dumps(student_messages("QUESTION"), ensure_ascii=False)
    needs = "The adapter needs `peft` beside `transformers`, which then loads the base by itself. " if adapter else ""
    serve = (
        f"vllm serve {repository}"
        if adapter is None
        else f"vllm serve {base} --enable-lora --max-lora-rank {adapter['r']} --lora-modules {student}={repository}"
    )
    return f"""{needs}Ask in the words it was trained on and let the tokenizer's template and end token do the rest:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{repository}")
model = AutoModelForCausalLM.from_pretrained("{repository}", dtype="auto")
messages = {messages}
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
).to(model.device)
settings = {{"do_sample": False, "max_new_tokens": {evaluated["params"]["max_new_tokens"]}}}
output = model.generate(**inputs, **settings, eos_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

As a server: `{serve}`
"""


def benchmark_file(facts: dict, student: str) -> tuple[str, str] | None:
    """(path in the repository, YAML) of a result that the Hub's leaderboards read, or None.

    Only for a data set that is registered there as a benchmark, and only if all of its test problems were answered:
    a score of part of them is no score of the benchmark.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    suite = facts["01_collect/meta.json"]["params"]["problems"].partition("?")[0]
    row = next(row for row in facts["07_eval/results.csv"] if row["student"] == student)
    if suite not in BENCHMARKS or row["n"] != BENCHMARKS[suite][2]:
        return None
    dataset, task, _ = BENCHMARKS[suite]
    notes = (
        f"one greedy answer a question, at most {settings(facts)['params']['max_new_tokens']} tokens; "
        f"{row['ci_low']:.1%} to {row['ci_high']:.1%} (Wilson, {LEVEL})"
    )
    entry = EvalResultEntry(dataset_id=dataset, task_id=task, value=round(100 * row["accuracy"], 2), notes=notes)
    return f".eval_results/{task}.yaml", yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
