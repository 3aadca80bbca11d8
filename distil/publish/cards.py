"""The cards: of a student, of the reward model, of the training set. Every number comes from a measured file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from distil.evaluate.metrics import markdown
from distil.evaluate.published_scores import benchmarks, label
from distil.llm.prompts import format_turns, student_messages
from distil.publish.facts import ASKED, CHECKPOINTS, LEVEL, checkpoints, command, roles_told, unbacked
from distil.publish.licences import licence, terms
from distil.workspace.errors import StageError
from distil.workspace.students import PLACES, home, recipe_of

if TYPE_CHECKING:
    from huggingface_hub import CardData, ModelCardData

TEMPLATES = Path(__file__).with_name("templates")
TAGS = ["distil", "distillation", "reasoning", "chain-of-thought"]


def problems_of(facts: dict) -> str:
    """01's parameter `problems` without its options."""
    return facts["01_collect/meta.json"]["params"]["problems"].partition("?")[0]


def suite(facts: dict) -> str:
    """The problems, in words, with what sets figures of them apart from published ones."""
    name = problems_of(facts)
    apart = label(name.removeprefix("hub:"))
    known = f"suite `{name}`" + (f" ({apart})" if apart else "")
    return "a file of its maker's own" if name.endswith(".jsonl") else known


def commit(meta: dict) -> str:
    """The commit of `distil` that wrote a meta.json, in words."""
    dirty = " and changes that were not committed" if str(meta["commit"]).endswith("+") else ""
    return f"`{meta['commit'] or 'unknown'}` of `distil`{dirty}"


def fill(template: str, data: CardData, facts: dict, repository: str, made: dict, **values: object) -> str:
    """A card: the front matter, and a template of `templates/` with what every card tells and these values.

    `made` is the meta.json of the stage that made what is published. Raises StageError if the card says a number that
    no measured file holds.
    """
    from huggingface_hub import DatasetCard, DatasetCardData, ModelCard

    kind = DatasetCard if isinstance(data, DatasetCardData) else ModelCard
    teacher = terms(facts)
    card = kind.from_template(
        data,
        str(TEMPLATES / f"{template}.md.j2"),
        repository=repository,
        name=repository.partition("/")[2],
        suite=suite(facts),
        teacher=teacher,
        collected=facts["01_collect/meta.json"],
        judged=facts["03_judge/meta.json"],
        commit=commit(made),
        command=command(facts),
        **values,
    )
    text = f"{card}\n"
    names = [repository, teacher, *map(data.get, ("datasets", "license", "license_name")), *roles_told(facts)]
    if missing := unbacked(text, facts | {"names": names, "result": values.get("result", {})}):
        words = ", ".join(dict.fromkeys(missing))
        raise StageError(
            f"the card says {words}, which no measured file holds: it is not written. Run the stage that measures "
            "it again; if it is there, a template in distil/publish/templates says what it should not"
        )
    return text


def model_data(facts: dict, **more: object) -> ModelCardData:
    """The front matter of a model: its base and licence, and `more`."""
    from huggingface_hub import ModelCardData

    kind, kind_name = licence(facts["base"])
    return ModelCardData(base_model=facts["base"], license=kind, license_name=kind_name, **more)


def model_card(facts: dict, student: str, repository: str, data_set: str | None = None, *, merged: bool) -> str:
    """The card of a student (with its adapter, or `merged` into whole weights). Raises StageError.

    `data_set` is the repository of its training sets, None if they are not published.
    """
    results = checkpoints(facts)
    rows = [row for row in results if row["student"] == student]
    if not rows:
        raise StageError(f"07_eval/results.csv has no row {student!r}: measure a student before it is published")
    tuned = facts["04_finetune/meta.json"]
    adapter = facts.get(f"{home(student)}/adapter_config.json")
    whole = merged or adapter is None
    student_format = tuned["params"].get("student_format", "plain")
    later, taught = None, student
    if f"{student}_examples" not in tuned["figures"]:  # it was made of one that was fine-tuned
        later = facts[f"{PLACES[student]}/meta.json"]
        taught = later["params"]["start_from"]
    return fill(
        "student",
        student_data(facts, rows, repository, data_set, whole=whole),
        facts,
        repository,
        tuned,
        student=student,
        merged=merged,
        whole=whole,
        adapter=adapter,
        table=markdown(results),
        gaps=[gap for gap in facts["07_eval/differences.jsonl"] if recipe_of(student) in (gap["of"], gap["to"])],
        several=CHECKPOINTS in facts,
        result=rows[0],
        evaluated=facts[ASKED],
        tuned=tuned,
        taught=taught,
        later=later,
        told=", ".join(
            f"{name.replace('_', ' ')} {value}"
            for name, value in (later["params"] if later else {}).items()
            if name != "start_from"
        ),
        versions=", ".join(f"{name} {version}" for name, version in tuned["versions"].items()),
        messages=json.dumps([*format_turns(student_format), *student_messages("QUESTION")], ensure_ascii=False),
    )


def student_data(facts: dict, rows: list[dict], repository: str, data_set: str | None, *, whole: bool) -> ModelCardData:
    """The front matter of a student's card: its base and licence, and its row of results as the Hub reads it."""
    from huggingface_hub import EvalResult

    asked = {k: v for k, v in facts[ASKED]["params"].items() if k in ("max_new_tokens", "batch_size", "seed")}
    return model_data(
        facts,
        base_model_relation="finetune" if whole else "adapter",
        datasets=[data_set] if data_set else None,
        library_name="transformers" if whole else "peft",
        pipeline_tag="text-generation",
        tags=TAGS,
        model_name=repository.partition("/")[2],
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=problems_of(facts).rpartition("/")[2],
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


def benchmark_file(facts: dict, student: str) -> tuple[str, str] | None:
    """(path in the repository, YAML) of a result that the Hub's leaderboards read, or None.

    Only for a data set that is registered there as a benchmark, and only if all of its test problems were answered:
    a score of part of them is no score of the benchmark.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    suite = problems_of(facts)
    row = next(row for row in checkpoints(facts) if row["student"] == student)
    known = benchmarks().get(suite.removeprefix("hub:"))
    if not suite.startswith("hub:") or known is None or known["task"] is None or row["n"] != known["questions"]:
        return None
    notes = (
        f"one greedy answer a question, at most {facts[ASKED]['params']['max_new_tokens']} tokens; "
        f"{row['ci_low']:.1%} to {row['ci_high']:.1%} (Wilson, {LEVEL}, of this checkpoint); "
        f"{known['not_as_published']}"
    )
    entry = EvalResultEntry(
        dataset_id=known["dataset"], task_id=known["task"], value=round(100 * row["accuracy"], 2), notes=notes
    )
    return f".eval_results/{known['task']}.yaml", yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
