"""A whole run in miniature, without training: every stage's files as the stages write them, of a tiny student."""

from __future__ import annotations

import random

from distil.evaluate import recheck, settings, suites
from distil.evaluate.answers import judged
from distil.llm.prompts import student_messages
from distil.models.weights import TINY, resolve
from distil.publish import facts
from distil.train.reward_model import HEADS
from distil.workspace.files import write_jsonl
from distil.workspace.rows import Chain, Completion, Problem
from distil.workspace.stage import Stage

TEACHER = {"teacher": "qwen2.5-coder-1.5b-instruct", "endpoint": "recorded:qwen2.5-coder-1.5b"}
STUDENTS = "base,fast,reinforced"


def make(run: str) -> None:
    """Write a run's stages under $DISTIL_HOME. Its numbers are made up, its formats and weights are real."""
    rng = random.Random(0)
    stage = Stage(run, "01_collect", seed=0, problems="starter", n_train=40, n_test=16, samples=2, **TEACHER)
    stage.write("problems.jsonl", [problem(i) for i in range(16)])
    stage.write("chains.jsonl", [chain(i, style) for style in ("fast", "slow") for i in range(4)])
    stage.finish(problems=56, chains=1192, correct=735, failed=0, usage=usage("fast_teacher", "slow_teacher"))
    stage = Stage(run, "02_rewrite", seed=0, tries=2, **TEACHER)
    stage.finish(slow=65, short=43, token_ratio=0.527, usage=usage("rewriter"))
    stage = Stage(run, "03_judge", seed=0, student=TINY, votes=3, **TEACHER)
    for kind in facts.SETS:
        for part, n in (("train", 12), ("valid", 3)):
            rows = [row(f"{part}-{i}", rng.randint(10, 99), rng.randint(10, 99)) for i in range(n)]
            stage.write(f"{part}/{kind}.jsonl", rows)
    stage.finish(candidates=111, kept=88, improved=6, usage=usage("judge", "rewriter"))
    adapter(run)
    stage = Stage(run, "05_prefer", seed=0, start_from="fast")
    stage.finish(pairs=8)
    reinforce(run)
    measure(run, "held-out", STUDENTS)


def usage(*roles: str) -> dict[str, dict]:
    """What each role asked."""
    asked = {"model": TEACHER["teacher"], "endpoint": TEACHER["endpoint"], "asked": 1, "from_store": 595}
    asked |= {"cut_off": 0, "left_out": [], "asked_prompt_tokens": 90, "asked_completion_tokens": 60}
    asked |= {"stored_prompt_tokens": 53_000, "stored_completion_tokens": 36_000}
    return {role: asked for role in roles}


def measure(run: str, suite: str, students: str) -> None:
    """What 07 writes, of answers made up: tables and figures follow from them."""
    rng, asked = random.Random(0), suites.read(suite)
    sampling = {"samples": asked.samples, "temperature": asked.temperature, "max_new_tokens": 24, "batch_size": 8}
    stage = Stage(run, "07_eval", seed=0, students=students, suite=suite, engine="transformers:8", **sampling)
    held_out = stage.read("01_collect/problems.jsonl", Problem)
    into, (test, source) = asked.folder, suites.load(asked, held_out, 0)
    pinned = settings.pin(asked.name, source, test, seed=0, engine="transformers", **sampling)
    settings.write(stage, into, pinned)
    stage.write(f"{into}problems.jsonl", test)
    answers = {}
    for name in students.split(","):
        share = {"base": 0.3, "slow": 0.5, "fast": 0.6}.get(name, 0.7)
        answers[name] = [answer(p, k, rng.random() < share, rng) for p in test for k in range(asked.samples)]
        stage.write(f"{into}completions/{name}.jsonl", answers[name])
    recheck.headless()
    recheck.work_out(answers, test, stage.folder / into, seed=0, samples=asked.samples)
    for file in sorted(path for path in (stage.folder / into).iterdir() if path.is_file()):
        if file.name not in (".lock", settings.FILE):
            stage.path(f"{into}{file.name}")
    stage.finish()


def problem(i: int) -> Problem:
    kind = {"domain": "math", "task": "sums", "verifier": "exact", "source": "made up", "split": "test"}
    return Problem(id=str(i), question=f"{i} - {i - 1} =", answer="1", **kind)


def chain(i: int, style: str) -> Chain:
    made = {"id": f"{i}-{style}-0", "problem_id": str(i), "style": style, "thought": "Hm.", "solution": "\\boxed{1}"}
    return Chain(**made, teacher=TEACHER["teacher"], n_tokens=9, finish_reason="stop", correct=i > 0)


def row(name: str, a: int, b: int) -> dict:
    question = f"{a} + {b} ="
    output = f"{a} + {b} = {a + b}\n\n\\boxed{{{a + b}}}"
    messages = [*student_messages(question), {"role": "assistant", "content": output}]
    instruction = messages[0]["content"]
    return {"instruction": instruction, "output": output, "messages": messages, "problem_id": name, "chain_id": name}


def answer(problem: Problem, sample: int, correct: bool, rng: random.Random) -> Completion:
    text = "\\boxed{1}" if correct else "A long thought that was cut off before it came to"
    ((given, right),) = judged([text], [problem])
    return Completion(
        id=problem.id,
        of="0",
        text=text,
        n_tokens=rng.randint(5, 24),
        finish_reason="stop" if correct else "length",
        seconds=0.125,
        correct=right,
        answer=given,
        sample=sample,
    )


def adapter(run: str) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    params = {"train_tokens": 12000, "learning_rate": 0.01, "max_length": 512, "method": "lora"}
    stage = Stage(run, "04_finetune", seed=0, student=TINY, students="fast", **params)
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(resolve(TINY)), config)
    model.peft_config["default"].base_model_name_or_path = TINY
    model.save_pretrained(stage.path("fast"), save_embedding_layers=False)
    AutoTokenizer.from_pretrained(resolve(TINY)).save_pretrained(stage.path("fast"))
    write_jsonl(stage.path("fast") / "log.csv", [])
    stage.finish(fast_examples=50, fast_tokens=12114, fast_tokens_per_s=3441.1, fast_loss=0.678)


def reinforce(run: str) -> None:
    import shutil

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    stage = Stage(run, "06_reinforce", seed=0, start_from="fast", steps=2, group=4)
    shutil.copytree(stage.input("04_finetune/fast"), stage.path("reinforced"), dirs_exist_ok=True)
    model = AutoModelForSequenceClassification.from_pretrained(resolve(TINY), num_labels=len(HEADS))
    model.config.id2label = dict(enumerate(HEADS))
    model.save_pretrained(stage.path("reward_model"))
    AutoTokenizer.from_pretrained(resolve(TINY)).save_pretrained(stage.path("reward_model"))
    stage.finish(rv_mae=1.004, rv_mae_length_only=1.631)
