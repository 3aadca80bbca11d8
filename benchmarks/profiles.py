"""What the GPU profiles would take of memory in 04, by the estimate that 04 makes: results/profiles.json. Nothing runs.

python benchmarks/profiles.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from distil.train import memory
from distil.workspace.environment import environment
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.profiles import PROFILES

ROWS = 16  # a step on a GPU
CARDS = {  # GiB of the cards that the profiles are meant for, and how many share the weights
    "t4": memory.Machine("cuda", "unsloth", 15.0),
    "gpu24": memory.Machine("cuda", "unsloth", 24.0),
    "gpu80": memory.Machine("cuda", "unsloth", 79.6),
    "gpu80-7b": memory.Machine("cuda", "unsloth", 79.6),
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


def main() -> None:
    rows = []
    for profile, card in CARDS.items():
        student, asked = PROFILES[profile]["all"]["student"], PROFILES[profile]["04_finetune"]
        with tempfile.TemporaryDirectory() as folder:
            config = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]} | SHAPES[student]
            (Path(folder) / "config.json").write_text(json.dumps(config))
            try:
                planned = memory.plan(
                    folder, asked["method"], batch_size=ROWS, longest=asked["max_length"], machine=card
                )
            except StageError as error:
                raise SystemExit(f"profile {profile}: {error}") from None
        rows.append({
            "profile": profile, "student": student, "method": asked["method"], "max_length": asked["max_length"],
            "gpu_gib": card.gib, "gpus": card.shards, "backend": card.backend, "rows_at_once": planned.micro_batch_size,
            "checkpointing": planned.gradient_checkpointing, "expected_gib": planned.parts,
        })  # fmt: skip
        print(profile, planned)
    found = {"command": "python benchmarks/profiles.py", "measured": False, "rows_a_step": ROWS} | environment()
    path = Path(__file__).parent / "results" / "profiles.json"
    write_text(path, json.dumps(found | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
