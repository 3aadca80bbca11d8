"""Stage 06: GRPO, with a reward that style alone cannot earn."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import util
from pathlib import Path

from distil.evaluate.answers import right
from distil.llm.prompts import prompt_of
from distil.models.student import base_of, encode_prompt, load_tokenizer
from distil.train import memory
from distil.train.common import load_student_for_training, on_one_gpu, train, trainer_arguments
from distil.train.reward_model import RewardModel
from distil.train.rewards import TERMS, check_spread, length_trend, reward_terms
from distil.verify.registry import verifiable
from distil.workspace.environment import quiet
from distil.workspace.errors import StageError
from distil.workspace.files import digest, read_csv, sha256, write_text
from distil.workspace.rows import Problem

# completions that go through the model together when it learns, at most; more take turns. A laptop has 8 GiB
AT_ONCE = {"cuda": 32, "cpu": 4}
WRITER_GIB, WRITER_SHARE = 6, 1 / 3  # what vLLM gets beside the weights; and of a GPU's free memory at most
COLUMNS = {  # of rewards.csv, and what TRL's log calls them
    "step": "step",
    "reward": "reward",
    "stuck": "frac_reward_zero_std",
    "tokens": "completions/mean_length",
    "cut_off": "completions/clipped_ratio",
    **{term: f"rewards/{term}/mean" for term in TERMS},
}


def problems_a_step() -> int:
    """How many problems are tried in one step."""
    import torch

    return 16 if torch.cuda.is_available() else 2


def engine() -> str:
    """What writes the attempts: `vllm`, in this process, on a GPU where it is installed; else `transformers`."""
    import torch

    return "vllm" if torch.cuda.is_available() and util.find_spec("vllm") else "transformers"


def writers_gib(student: str) -> float:
    """GiB that vLLM may take: its copy of the weights and what writing needs, a third of what is free at most.

    It takes all that it is given, whatever the size of the GPU.
    """
    machine = memory.here()
    weights = memory.estimate(*memory.trained_how(student), 1, 1, machine)["weights"]
    return min(WRITER_SHARE * machine.gib, weights + WRITER_GIB)


def planned_for(student: str, attempts: int, longest: int, taken: float) -> memory.Plan:
    """How the `attempts` of a step, of `longest` tokens at most, are learned from, `taken` GiB being for others."""
    most = min(attempts, AT_ONCE[memory.here().place])
    at_once = max(n for n in range(1, most + 1) if attempts % n == 0)
    return memory.plan_further(student, at_once, longest, taken=taken)


def timed_trainer_class():
    """TRL's trainer, which notes how many tokens of attempts it wrote, and in how many seconds."""
    from trl import GRPOTrainer

    class TimedGRPOTrainer(GRPOTrainer):
        written, writing_s = 0, 0.0

        def _generate_single_turn(self, *args, **kwargs):
            begun = time.perf_counter()
            completion_ids, logprobs = super()._generate_single_turn(*args, **kwargs)
            self.writing_s += time.perf_counter() - begun
            self.written += sum(map(len, completion_ids))
            return completion_ids, logprobs

    return TimedGRPOTrainer


@contextmanager
def without_bars() -> Iterator[None]:
    """In a batch run nothing goes to stderr: vLLM draws its bars whatever it is told. Exceptions come through."""
    if not quiet():
        yield
        return
    nowhere = open(os.devnull, "w", encoding="utf-8")  # left open: a logger made meanwhile may keep it
    with redirect_stderr(nowhere):
        yield


def watch_spread():
    """A callback that stops a training from which nothing can be learned (`rewards.check_spread`)."""
    from transformers import TrainerCallback

    class WatchSpread(TrainerCallback):
        def on_log(self, args, state, control, **_):
            check_spread(rows_of(state.log_history))

    return WatchSpread()


def rows_of(log: Sequence[dict]) -> list[dict]:
    """The steps of TRL's log, with our names."""
    return [{name: row[source] for name, source in COLUMNS.items()} for row in log if "reward" in row]


def reward_functions(reward_model: str, line: tuple[float, float], gated: bool, max_completion: int) -> list:
    """A function a term, as TRL wants them; a completion is graded once for all of them."""
    graded = RewardModel(reward_model)
    known: dict[str, list[dict]] = {}

    def terms(completions: list, completion_ids: list, problem: list[str]) -> list[dict]:
        texts = [completion[0]["content"] for completion in completions]
        key = digest(*texts, *problem)
        if key not in known:
            known.clear()  # the functions are called one after the other on the same completions
            rows = [Problem.from_dict(json.loads(p)) for p in problem]
            grades = graded.grades([row["question"] for row in rows], texts)
            solved = right(texts, rows, boxed_only=True)
            known[key] = [
                reward_terms(text, row, rv, cd, line, len(ids) / max_completion, gated, ok)
                for text, row, (rv, cd, _), ids, ok in zip(texts, rows, grades, completion_ids, solved, strict=True)
            ]
        return known[key]

    def function_of(name: str):
        def function(completions, completion_ids, problem, **_):
            return [row[name] for row in terms(completions, completion_ids, problem)]

        function.__name__ = name
        return function

    return [function_of(term) for term in TERMS]


def grpo(
    problems: Sequence[dict],
    student: str,
    reward_model: str,
    line: tuple[float, float],
    out: Path,
    *,
    steps: int,
    group: int,
    learning_rate: float,
    weights: dict[str, float],
    gated: bool,
    seed: int,
    max_completion: int,
) -> dict:
    """GRPO from the student in folder `student`: `steps` steps of `problems_a_step` problems, `group` attempts at each.

    Saves the student and `rewards.csv` (every term's mean, length and lack of spread at every step) to `out`. Returns
    {steps, completions, tokens, reward_first, reward_last, stuck, length, length_ratio, seconds, writing_s,
    tokens_per_s, engine}: seconds since it was last started; tokens_per_s of writing alone; `stuck` counts steps in
    which no group had any difference of reward; `length` says if it was steady. Goes on from its last checkpoint; a
    finished result of the same request is not computed again. Raises StageError if too few problems can be verified,
    or if the reward never differs.
    """
    request = {
        "student": sha256(Path(student)), "reward_model": sha256(Path(reward_model)), "line": list(line),
        "steps": steps, "group": group, "learning_rate": learning_rate, "weights": weights, "gated": gated,
        "seed": seed, "max_completion": max_completion, "problems": digest(*problems),
    }  # fmt: skip
    done = out / "reinforce.json"
    if done.exists() and json.loads(done.read_text())["request"] == request:
        return json.loads(done.read_text())["result"]
    import datasets
    from trl import GRPOConfig

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(student)
    usable = [p for p in problems if verifiable(p)]
    if len(usable) < problems_a_step():
        raise StageError(
            f"{len(usable)} of {len(problems)} problems can be verified, and GRPO takes {problems_a_step()} a step: "
            "collect more"
        )
    rows = [{"prompt": prompt_of(p), "problem": json.dumps(p.to_dict())} for p in usable]
    attempts = problems_a_step() * group
    longest = max(len(encode_prompt(tokenizer, row["prompt"])) for row in rows) + max_completion
    vllm, taken = {}, sum(file.stat().st_size for file in Path(reward_model).glob("*.safetensors")) / memory.GIB
    if engine() == "vllm":
        writers = writers_gib(student)
        vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": longest,
                "vllm_gpu_memory_utilization": writers / memory.whole_gpu()}  # fmt: skip
        taken += writers
    planned = planned_for(student, attempts, longest, taken)
    config = GRPOConfig(
        **trainer_arguments(out, steps, learning_rate, seed)
        | {"logging_steps": 1, "gradient_checkpointing": planned.checkpointing},
        **vllm,
        max_steps=steps,
        per_device_train_batch_size=planned.at_once,
        gradient_accumulation_steps=attempts // planned.at_once,
        num_generations=group,
        temperature=1.0,
        beta=0.0,
        max_completion_length=max_completion,
        reward_weights=[weights[term] for term in TERMS],
        loss_type="dapo",
    )
    with without_bars():
        trainer = timed_trainer_class()(
            model=load_student_for_training(student),
            args=on_one_gpu(config),
            processing_class=tokenizer,
            reward_funcs=reward_functions(reward_model, line, gated, max_completion),
            train_dataset=datasets.Dataset.from_list(rows),
            callbacks=[watch_spread()],
        )
    log = train(trainer, out, request, base=base_of(student), done=done)
    with open(out / "rewards.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS)
        writer.writeheader()
        writer.writerows(rows_of(log))
    result = summary(read_csv(out / "rewards.csv"), attempts) | {
        "seconds": round(next(row["train_runtime"] for row in reversed(log) if "train_runtime" in row), 1),
        "writing_s": round(trainer.writing_s, 1),
        "tokens_per_s": round(trainer.written / max(1e-9, trainer.writing_s)),
        "engine": engine(),
    }
    write_text(done, json.dumps({"request": request, "result": result}, indent=1))
    return result


def summary(rows: Sequence[dict], attempts: int) -> dict:
    """What `rewards.csv` says on the whole, for steps of so many `attempts`."""
    word, ratio = length_trend([row["tokens"] for row in rows])
    return {
        "steps": len(rows),
        "completions": attempts * len(rows),
        "tokens": round(sum(attempts * row["tokens"] for row in rows)),
        "reward_first": round(rows[0]["reward"], 3),
        "reward_last": round(rows[-1]["reward"], 3),
        "stuck": sum(row["stuck"] == 1 for row in rows),
        "length": word,
        "length_ratio": ratio,
    }
