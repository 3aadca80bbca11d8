"""What the GPU profiles take in 04: by the estimate that 04 makes, and, where a GPU is at hand, by training.

    python benchmarks/profiles.py                              the estimates, into results/profiles.json
    python benchmarks/profiles.py --measure TOKENIZER [NAME …] 20 steps a profile, then the same file with their figures

TOKENIZER is a folder or Hub id with Qwen2.5's tokenizer. Weights are random, of the real shapes: they take the memory
and the time of the real ones. A smaller card is a limit on this process's memory of a larger one; its pace is the
larger one's. Rows are as long as the profile allows: a quarter of `max_length` to all of it. Each profile is a process
of its own, and leaves a row in artifacts/profiles/rows.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from distil.train import memory
from distil.train.model import LORA
from distil.workspace.environment import environment
from distil.workspace.errors import StageError
from distil.workspace.files import append_jsonl, read_jsonl, write_text
from distil.workspace.profiles import PROFILES
from distil.workspace.rows import TrainingRow
from distil.workspace.stage import run_folder

ROWS = 16  # a step on a GPU
STEPS, WARM_UP = 20, 5
CARDS = {  # GiB of the cards that the profiles are meant for, and how many share the weights
    "t4": memory.Machine("cuda", "unsloth", 15.0),
    "gpu24": memory.Machine("cuda", "unsloth", 24.0),
    "gpu80": memory.Machine("cuda", "packed", 79.6),
    "gpu80-7b": memory.Machine("cuda", "packed", 79.6),
    "paper": memory.Machine("cuda", "trl", 79.6, shards=8),
}
# as the models' own config.json have it; written out so that this runs without the Hub
SHAPES = {
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": {"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864,
                                         "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936,
                                         "tie_word_embeddings": True},
    "Qwen/Qwen2.5-1.5B-Instruct": {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960,
                                   "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936,
                                   "tie_word_embeddings": True},
    "Qwen/Qwen2.5-7B-Instruct": {"hidden_size": 3584, "num_hidden_layers": 28, "intermediate_size": 18944,
                                 "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
                                 "tie_word_embeddings": False},
    "Qwen/Qwen2.5-32B-Instruct": {"hidden_size": 5120, "num_hidden_layers": 64, "intermediate_size": 27648,
                                  "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
                                  "tie_word_embeddings": False},
}  # fmt: skip


def asked_of(profile: str) -> tuple[str, dict]:
    """(student, parameters of 04) of a profile."""
    return PROFILES[profile]["all"]["student"], PROFILES[profile]["04_finetune"]


def write_config(student: str, folder: Path) -> None:
    common = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 32768}
    write_text(folder / "config.json", json.dumps(common | SHAPES[student]))


def estimated(profile: str) -> dict:
    """The row of a profile, by the estimate alone."""
    card, (student, asked) = CARDS[profile], asked_of(profile)
    longest = asked["max_length"]
    with tempfile.TemporaryDirectory() as folder:
        write_config(student, Path(folder))
        try:
            if card.backend == "packed":
                memory.this_machine = lambda *_: card
                steps = [[{"input_ids": range(longest)}] * ROWS]
                packed = memory.plan_packed(folder, asked["method"], steps, longest=longest, lora_rank=LORA["r"])
                at_once, checkpointing, expected = (
                    -(-ROWS // packed.parts),
                    packed.gradient_checkpointing,
                    packed.memory,
                )
            else:
                planned = memory.plan(folder, asked["method"], batch_size=ROWS, longest=longest, machine=card)
                at_once, checkpointing, expected = (
                    planned.micro_batch_size,
                    planned.gradient_checkpointing,
                    planned.parts,
                )
        except StageError as error:
            raise SystemExit(f"profile {profile}: {error}") from None
    return {
        "profile": profile, "student": student, "method": asked["method"], "max_length": longest,
        "gpu_gib": card.gib, "gpus": card.shards, "backend": card.backend, "rows_at_once": at_once,
        "checkpointing": checkpointing, "expected_gib": expected,
    }  # fmt: skip


def random_model(student: str, tokenizer: str, folder: Path) -> None:
    """A model of the real shape with random weights, and its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    write_config(student, folder)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.bfloat16)
    model.save_pretrained(folder)


def rows_of(tokenizer: str, longest: int) -> list[TrainingRow]:
    """Rows of digits, which are a token each; prompts take some of the length."""
    from distil.models.student import encode_prompt, load_tokenizer

    rng, question = random.Random(0), "Say the digits."
    room = longest - 1 - len(encode_prompt(load_tokenizer(tokenizer), [{"role": "user", "content": question}]))
    rows = []
    for number in range(STEPS * ROWS):
        length = room if number == 0 else rng.randint(room // 4, room)
        text = "".join(rng.choice("0123456789") for _ in range(length))
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
        rows.append(TrainingRow(instruction=question, output=text, messages=said, problem_id=str(number)))
    return rows


def measure(profile: str, tokenizer: str, kept: Path) -> None:
    """Train `STEPS` steps within the card's memory; the row goes to `kept`."""
    import os

    import torch
    from sft_variants import watch

    from distil.train import examples, sft

    card, (student, asked) = CARDS[profile], asked_of(profile)
    folder = run_folder("profiles") / student.rpartition("/")[2]
    if not list(folder.glob("*.safetensors*")):
        random_model(student, tokenizer, folder)
        torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory / memory.GIB
    torch.cuda.set_per_process_memory_fraction(min(1.0, card.gib / total))
    os.environ["DISTIL_BACKEND"] = card.backend
    sft.prepare_backend(compiler=True, student=str(folder), method=asked["method"])
    memory.this_machine = lambda *_: replace(card, gib=min(card.gib, total))
    examples.fill_budget = lambda encoded, *_: list(encoded)
    torch.cuda.reset_peak_memory_stats()
    seen, begun = watch(check=False, profiled=False), time.perf_counter()
    found: dict = {"profile": profile}
    try:
        with tempfile.TemporaryDirectory() as out:
            sft.sft(
                rows_of(tokenizer, asked["max_length"]),
                [],
                str(folder),
                Path(out),
                train_tokens=10**9,
                learning_rate=1e-5,
                max_length=asked["max_length"],
                method=asked["method"],
                seed=0,
                callbacks=[seen],
            )
        real, padded, _ = seen.counts(WARM_UP, seen.last)
        found |= {
            "steps": seen.last, "tokens_a_step": round(real / (seen.last - WARM_UP)),
            "tokens_per_s": round(real / seen.seconds, 1), "padding": round(1 - real / padded, 4),
            "micro_batches": seen.args.gradient_accumulation_steps,
        }  # fmt: skip
    except (StageError, torch.OutOfMemoryError) as error:
        found["failed"] = str(error)[:300]
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    found |= {"peak_gib": round(peaks[0] / memory.GIB, 2), "reserved_gib": round(peaks[1] / memory.GIB, 2)}
    found |= {"measured_on": torch.cuda.get_device_name(), "seconds": round(time.perf_counter() - begun, 1)}
    append_jsonl(kept, [found])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--measure", metavar="TOKENIZER", help="train, too; a folder or Hub id with Qwen2.5's tokenizer"
    )
    parser.add_argument("profiles", nargs="*", help="which to measure (default: those for one GPU)")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how this script calls itself
    args = parser.parse_args()
    kept = run_folder("profiles") / "rows.jsonl"
    if args.one:
        measure(args.one, args.measure, kept)
        return
    names = args.profiles or [name for name, card in CARDS.items() if card.shards == 1]
    for name in names if args.measure else ():
        print(f"{name} ...", flush=True)
        subprocess.run([sys.executable, __file__, "--measure", args.measure, "--one", name])
    measured = {row["profile"]: row for row in read_jsonl(kept)} if kept.exists() else {}
    rows = [estimated(profile) | {"measured": measured.get(profile)} for profile in CARDS]
    found = {"command": "python benchmarks/profiles.py --measure TOKENIZER", "steps": STEPS, "warm_up_steps": WARM_UP,
             "rows_a_step": ROWS} | environment()  # fmt: skip
    write_text(Path(__file__).parent / "results" / "profiles.json", json.dumps(found | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
