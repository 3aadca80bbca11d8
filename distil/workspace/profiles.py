"""Profiles: what a run changes against the notebooks' own defaults, which are the profile `cpu`.

`all` holds for every stage that has the parameter. `gpu80` is the reference run, on one GPU of 80 GB, which serves its
teacher, too. It, `smoke` and `cpu` have been run from 01 to 07; the others are starting points whose minutes and memory
are still to be measured.
"""

from __future__ import annotations

TEACHER_HERE = {"teacher": "Qwen/Qwen2.5-Coder-1.5B-Instruct", "endpoint": "vllm"}
DEEPSEEK = {"teacher": "deepseek-chat", "endpoint": "https://api.deepseek.com/v1"}


PROFILES: dict[str, dict[str, dict]] = {
    "cpu": {},
    "smoke": {
        "all": {"student": "tiny-random"},
        "01_collect": {"n_train": 48, "n_test": 8},
        "04_finetune": {"train_tokens": 12000, "learning_rate": 1e-2},
        "05_prefer": {"max_pairs": 8, "betas": "small:0.1,medium:0.2,large:0.5"},
        "06_reinforce": {"steps": 2, "group": 4},
        "07_eval": {"max_new_tokens": 24},
    },
    "t4": {
        "all": DEEPSEEK | {"student": "Qwen/Qwen2.5-1.5B-Instruct"},
        "01_collect": {"n_train": 2000, "n_test": 300},
        "04_finetune": {
            "method": "qlora",
            "train_tokens": 2_000_000,
            "learning_rate": 2e-4,
            "max_length": 2048,
        },
        "06_reinforce": {"steps": 100, "group": 8, "max_completion": 1024},
        "07_eval": {"max_new_tokens": 2048},
    },
    "gpu24": {
        "all": DEEPSEEK | {"student": "Qwen/Qwen2.5-7B-Instruct"},
        "01_collect": {"n_train": 5000, "n_test": 500},
        "04_finetune": {
            "method": "qlora",
            "train_tokens": 10_000_000,
            "learning_rate": 2e-4,
            "max_length": 4096,
        },
        "06_reinforce": {"steps": 150, "group": 8, "max_completion": 2048},
        "07_eval": {"max_new_tokens": 4096},
    },
    "gpu80": {
        "all": TEACHER_HERE | {"student": "Qwen/Qwen2.5-Coder-0.5B-Instruct"},
        # cleaning takes some of the problems to learn from, so that a few more are asked for than are wanted
        "01_collect": {"problems": "reference", "n_train": 1536, "n_test": 500, "turns": True},
        "04_finetune": {
            "students": "fast,slow,unaligned,adaptive",
            "method": "lora",
            "train_tokens": 300_000,
            "learning_rate": 2e-4,
            "max_length": 2048,
        },
        "05_prefer": {"max_pairs": 320, "learning_rate": 1e-5},
        "06_reinforce": {"steps": 150, "group": 8, "learning_rate": 2e-5, "max_completion": 320},
        "07_eval": {
            "students": "teacher,base,slow,unaligned,fast,adaptive,preferred,reinforced",
            "suite": "held-out?samples=4",
            "engine": "vllm",
            "max_new_tokens": 1536,
        },
    },
    "gpu80-7b": {
        "all": DEEPSEEK | {"student": "Qwen/Qwen2.5-7B-Instruct"},
        "01_collect": {"n_train": 5000, "n_test": 500},
        "04_finetune": {
            "method": "lora",
            "train_tokens": 20_000_000,
            "learning_rate": 1e-4,
            "max_length": 8192,
        },
        "06_reinforce": {"steps": 200, "group": 16, "max_completion": 4096},
        "07_eval": {"max_new_tokens": 8192},
    },
    "paper": {
        "all": DEEPSEEK | {"student": "Qwen/Qwen2.5-32B-Instruct"},
        "01_collect": {"n_train": 50_000, "n_test": 1000},
        "04_finetune": {
            "method": "lora",
            "train_tokens": 200_000_000,
            "learning_rate": 1e-5,
            "max_length": 16384,
        },
        "06_reinforce": {"steps": 500, "group": 16, "max_completion": 8192},
        "07_eval": {"max_new_tokens": 32768},
    },
}

# free disk a run wants before it starts, in GB: weights, checkpoints, completions
DISK_GB = {"smoke": 0.5, "cpu": 4, "t4": 20, "gpu24": 60, "gpu80": 10, "gpu80-7b": 60, "paper": 300}
