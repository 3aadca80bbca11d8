"""Stage 06: GRPO, with a reward that style alone cannot earn."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from distil.evaluate.answers import JUDGES, right
from distil.llm.prompts import prompt_of
from distil.models import formats
from distil.models.student import base_of, encode_prompt, identity, load_tokenizer
from distil.train import memory
from distil.train.common import ResultCache, dataset, on_one_gpu, train, trainer_arguments
from distil.train.log import last_value
from distil.train.model import backend, load_student_for_training
from distil.train.packed_policy import PackedPolicy
from distil.train.reward_model import RewardModel
from distil.train.rewards import TERMS, Step, both_ends, check_spread, length_trend, reward_terms, steps_of
from distil.train.writing import TimedWriting, engine, engine_settings, without_bars, write_with_a_copy
from distil.verify.registry import verifiable
from distil.workspace.errors import StageError
from distil.workspace.files import digest, sha256, write_csv
from distil.workspace.fingerprint import code
from distil.workspace.rows import Problem, Row

# the largest micro batch of completions when the student learns from them: TRL pads them, and a laptop has 8 GiB
MAX_MICRO_BATCH = {"packed": 512, "trl": 32, "cpu": 4}


@dataclass(kw_only=True)
class GRPOResult(Row):
    """What a reinforcement came to, as `reinforce.json` keeps it."""

    steps: int
    completions: int
    tokens: int  # of the completions
    reward_first: float  # mean over the first `reward_steps` steps
    reward_last: float  # the same of the last
    stuck: int  # steps in which no group of attempts had any difference of reward
    length: str  # steady, collapse or explosion: of `rewards.length_trend`
    length_ratio: float
    seconds: float  # since it was last started
    writing_s: float  # of these, while attempts were written, and their writer was given the new weights
    grading_s: float  # while attempts were graded
    tokens_per_s: int  # of writing alone
    engine: str  # vllm or transformers
    reward_steps: int = 0  # 0: by an earlier version, which took one
    reward_first_pm: float | None = None  # twice the standard error; None with one step
    reward_last_pm: float | None = None


def problems_per_step() -> int:
    """How many problems are tried in one step."""
    import torch

    return 16 if torch.cuda.is_available() else 2


def packs(student: str) -> bool:
    """Are the attempts scored on packed rows? Only where vLLM writes them: such a model cannot write."""
    return engine() == "vllm" and backend(*memory.base_and_method(student)) == "packed"


def plan_learning(student: str, attempts: int, longest: int, taken: float, packed: bool) -> memory.Plan:
    """The plan of learning from a step's `attempts`, of `longest` tokens at most, with `taken` GiB used by others."""
    way = "packed" if packed else "trl"
    most = min(attempts, MAX_MICRO_BATCH[way if memory.this_machine().device == "cuda" else "cpu"])
    size = max(n for n in range(1, most + 1) if attempts % n == 0)
    return memory.plan_further(student, batch_size=size, longest=longest, taken=taken, backend=way)


def trainer_class(policy: Callable | None):
    """TRL's trainer; it also counts the tokens of the attempts it wrote, and the seconds that writing and grading took.

    `policy` scores attempts in its stead, where there is one.
    """
    from trl import GRPOTrainer

    class TimedGRPOTrainer(TimedWriting, GRPOTrainer):
        grading_s = 0.0

        def _calculate_rewards(self, *args, **kwargs):
            begun = time.perf_counter()
            rewards = super()._calculate_rewards(*args, **kwargs)
            self.grading_s += time.perf_counter() - begun
            return rewards

        def _get_per_token_logps_and_entropies(
            self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, **asked
        ):
            if policy is None:
                scored = super()._get_per_token_logps_and_entropies
                return scored(model, input_ids, attention_mask, logits_to_keep, batch_size=batch_size, **asked)
            return *policy(input_ids, attention_mask, logits_to_keep, batch_size or len(input_ids)), None

    return TimedGRPOTrainer


def spread_callback():
    """A callback that stops a training from which nothing can be learned (`rewards.check_spread`)."""
    from transformers import TrainerCallback

    class Spread(TrainerCallback):
        def on_log(self, args, state, control, **_):
            check_spread(steps_of(state.log_history))

    return Spread()


def reward_functions(
    reward_model: str,
    line: tuple[float, float],
    gated: bool,
    max_completion: int,
    opened: str = "",
    student_format: str = "plain",
) -> list:
    """A function a term, as TRL wants them; a completion is graded once for all of them.

    `opened` is what the chat template wrote of each answer. The reward model learned from plain chains, and is shown
    plain ones.
    """
    judge = RewardModel(reward_model)
    known: dict[str, list[dict]] = {}
    shared: dict[str, Any] = {"line": line, "gated": gated, "student_format": student_format}

    def terms(completions: list, completion_ids: list, problem: list[str]) -> list[dict]:
        texts = [formats.whole(opened, completion[0]["content"]) for completion in completions]
        key = digest(*texts, *problem)
        if key not in known:
            known.clear()  # the functions are called one after the other on the same completions
            problems = [Problem.from_dict(json.loads(text)) for text in problem]
            grades = judge.grades([prompt_of(p) for p in problems], [formats.untagged(text) for text in texts])
            solved = right(texts, problems, boxed_only=True)
            known[key] = [
                reward_terms(text, p, rv=rv, cd=cd, used=len(ids) / max_completion, correct=correct, **shared)
                for text, p, (rv, cd, _), ids, correct in zip(
                    texts, problems, grades, completion_ids, solved, strict=True
                )
            ]
        return known[key]

    def function_of(name: str):
        def function(completions, completion_ids, problem, **_):
            return [of_one[name] for of_one in terms(completions, completion_ids, problem)]

        function.__name__ = name
        return function

    return [function_of(term) for term in TERMS]


def grpo(
    problems: Sequence[Problem],
    student: str,
    reward_model: str,
    out: Path,
    *,
    line: tuple[float, float],
    steps: int,
    group: int,
    learning_rate: float,
    weights: dict[str, float],
    gated: bool,
    seed: int,
    max_completion: int,
    student_format: str = "plain",
) -> GRPOResult:
    """GRPO from the student in folder `student`: `steps` steps of `problems_per_step` problems, `group` attempts each.

    `line`, `weights` and `gated` make the reward, as `rewards` has it. The student and `rewards.csv`, a `Step` a row,
    go to `out`. An interrupted training goes on from its last checkpoint; a finished result of the same request is not
    computed again. Raises StageError if too few problems can be verified, or if the reward never differs.
    """
    request = {
        "student": identity(student), "reward_model": sha256(Path(reward_model)), "line": list(line),
        "judged_by": code(*JUDGES),
        "steps": steps, "group": group, "learning_rate": learning_rate, "weights": weights, "gated": gated,
        "seed": seed, "max_completion": max_completion,
        "problems": digest(*problems, *(prompt_of(p, student_format) for p in problems)),
        "student_format": student_format,
    }  # fmt: skip
    cache = ResultCache(out / "reinforce.json", request, GRPOResult)
    if (known := cache.read()) is not None:
        return known
    from trl import GRPOConfig

    tokenizer = load_tokenizer(student)
    usable = [p for p in problems if verifiable(p)]
    if len(usable) < problems_per_step():
        raise StageError(
            f"{len(usable)} of {len(problems)} problems can be verified, and GRPO takes {problems_per_step()} a step: "
            "collect more"
        )
    rows = [{"prompt": prompt_of(p, student_format), "problem": json.dumps(p.to_dict())} for p in usable]
    attempts = problems_per_step() * group
    longest = max(len(encode_prompt(tokenizer, row["prompt"])) for row in rows) + max_completion
    vllm, for_vllm = engine_settings(student, longest, tokenizer.eos_token_id)
    taken = sum(file.stat().st_size for file in Path(reward_model).glob("*.safetensors")) / memory.GIB + for_vllm
    packed = packs(student)
    planned = plan_learning(student, attempts, longest, taken, packed)
    config = GRPOConfig(
        **trainer_arguments(
            out,
            steps=steps,
            learning_rate=learning_rate,
            seed=seed,
            batch_size=attempts,
            micro_batch_size=planned.micro_batch_size,
            gradient_checkpointing=planned.gradient_checkpointing,
        )
        | {"logging_steps": 1},
        **vllm,
        max_steps=steps,
        num_generations=group,
        temperature=1.0,
        beta=0.0,
        max_completion_length=max_completion,
        reward_weights=[weights[term] for term in TERMS],
        loss_type="dapo",
    )
    model = load_student_for_training(student, packed=packed)
    write_with_a_copy(model)
    policy = None
    if packed:
        policy = PackedPolicy(
            model, longest=longest, temperature=config.temperature, pad_token_id=tokenizer.pad_token_id
        )
    with without_bars():
        trainer = trainer_class(policy)(
            model=model,
            args=on_one_gpu(config),
            processing_class=tokenizer,
            reward_funcs=reward_functions(
                reward_model, line, gated, max_completion, formats.opened(tokenizer), student_format
            ),
            train_dataset=dataset(rows),
            callbacks=[spread_callback()],
        )
    log = train(trainer, out, cache, base=base_of(student))
    taken_steps = steps_of(log)
    write_csv(out / "rewards.csv", [asdict(step) for step in taken_steps], [field.name for field in fields(Step)])
    return cache.write(
        GRPOResult(
            **summary(taken_steps, attempts),
            seconds=round(last_value(log, "train_runtime"), 1),
            writing_s=round(trainer.writing_s, 1),
            grading_s=round(trainer.grading_s, 1),
            tokens_per_s=round(trainer.written / max(1e-9, trainer.writing_s)),
            engine=engine(),
        )
    )


def summary(steps: Sequence[Step], attempts: int) -> dict:
    """The fields of `GRPOResult` that follow from the steps, each of so many `attempts`."""
    word, ratio = length_trend([step.tokens for step in steps])
    return {
        "steps": len(steps),
        "completions": attempts * len(steps),
        "tokens": round(sum(attempts * step.tokens for step in steps)),
        **both_ends([step.reward for step in steps]),
        "stuck": sum(step.stuck == 1 for step in steps),
        "length": word,
        "length_ratio": ratio,
    }
