"""The tables of the pages: each function reads files of results and returns Markdown."""

from __future__ import annotations

from benchmarks.texts.figures import RESULTS, finetuned, gathered, read, reference, result
from benchmarks.texts.forms import accuracy, count, fixed, gap, percent, table

ACCURACY = "accuracy (95% CI)"
WAYS = {"one": "one", "ddp": "two, DDP", "fsdp": "two, FSDP"}
TAUGHT_BY = {
    "fast": "nothing",
    "longer": "the same chains again",
    "whitebox": "the teacher's probabilities on these chains",
    "on-policy": "its probabilities on the student's own answers",
    "prompted": "likewise, the teacher asked for brief chains",
}


def costs() -> str:
    """Minutes and GPU memory of the stages of the reference run."""
    rows = ((row["stage"], fixed(row["minutes"], 2), fixed(row["peak_vram_gb"])) for row in reference()["costs"])
    return table(["stage", "minutes", "GPU, GiB at most"], rows)


def fairly(run: str) -> str:
    """Students of several seeds on the same problems. Seconds are left out: several were answered at once."""
    found, rows = gathered(run), []
    best = found["students"].get("teacher")
    for name, row in found["students"].items():
        over_slow = found["against"]["slow"].get(name)
        rows.append([
            f"{name} ({row['seeds']} seeds)" if row["seeds"] > 1 else name,
            f"{percent(row['accuracy'], 1)} ({percent(row['ci_low'], 1)} to {percent(row['ci_high'], 1)})",
            count(row["tokens_per_answer"]), percent(row["cut_off"]),
            gap(over_slow) if over_slow else "", fixed(over_slow["tokens_ratio"]) if over_slow else "",
            *([percent(row["accuracy"] / best["accuracy"]) if row != best else ""] if best else []),
        ])  # fmt: skip
    heads = ["student", ACCURACY, "tokens an answer", "cut off", "minus slow, points (95% CI)",
             "times fewer tokens than slow", *(["of the teacher's accuracy"] if best else [])]  # fmt: skip
    return table(heads, rows)


def seeds(file: str, name: str, minus: str, head: str) -> str:
    """Accuracy and tokens by seed of what a benchmark compares, and the gain over its baseline."""
    found = result(file)
    gained = {row[name]: gap(row) for row in found[f"minus_{minus}"]}
    of = list(dict.fromkeys(row["seed"] for row in found["rows"]))
    made = []
    for kind in dict.fromkeys(row[name] for row in found["rows"]):
        rows = [row for row in found["rows"] if row[name] == kind]
        accuracies = " / ".join(f"{100 * row['accuracy']:.1f}" for row in rows)
        lengths = " / ".join(f"{row['tokens_per_answer']:.0f}" for row in rows)
        made.append([kind, accuracies, gained.get(kind, ""), lengths])
    by_seed = f"accuracy, seeds {' / '.join(map(str, of))}"
    baseline = minus.upper() if minus == "sft" else minus
    return table([head, by_seed, f"minus {baseline}, points (95% CI)", "tokens an answer"], made)


def reinforce() -> str:
    found = result("reinforce")
    gained = {row["name"]: gap(row) for row in found["minus_sft"]}
    rows = ([row["name"], accuracy(row), gained.get(row["name"], ""), fixed(row["tokens_per_answer"])]
            for row in found["rows"])  # fmt: skip
    return table(["reward", ACCURACY, "minus SFT, points (95% CI)", "tokens an answer"], rows)


def reward() -> str:
    found = {(row["head"], row["predictor"]): row for row in result("reward")["rows"]}
    rows = []
    for head in ("rv", "cd", "correct"):
        ours, length = found[head, "model"], found[head, "length_only"]
        rows.append([head, *(fixed(row[figure], 2) for figure in ("spearman", "mae") for row in (ours, length))])
    return table(["head", "Spearman", "length alone", "mean absolute error", "length alone"], rows)


def whitebox() -> str:
    found = result("whitebox")
    gained = {row["name"]: gap(row) for row in found["minus_longer"]}
    rows = []
    for row in found["rows"]:
        name, training = row["name"], row["training"]
        rows.append([
            f"{name}: {TAUGHT_BY[name]}", accuracy(row), gained.get(name, ""), count(row["tokens_per_answer"]),
            count(training["tokens"]), count(training["seconds"]),
        ])  # fmt: skip
    heads = [
        "taught further by",
        ACCURACY,
        "minus longer, points (95% CI)",
        "tokens an answer",
        "tokens seen",
        "seconds",
    ]
    return table(heads, rows)


def adaptive() -> str:
    found = result("adaptive")
    measured = {(row["name"], row["suite"]): row for row in found["rows"]}
    rows = []
    for ratio in found["ratios"]:
        cells = []
        for suite in ("easy", "harder"):
            row = measured[ratio["name"], suite]
            cells += [accuracy(row), count(row["tokens_per_answer"])]
        rows.append([ratio["name"], *cells, fixed(ratio["harder_over_easy"], 2)])
    heads = ["student", f"easy: {ACCURACY}", "tokens", f"harder: {ACCURACY}", "tokens", "tokens, harder over easy"]
    return table(heads, rows)


def effort() -> str:
    """How many times as many tokens the hardest problems take as the easiest, by student."""
    rows = []
    for name, row in gathered("gpu80")["effort"]["students"].items():
        least, most = (fixed(2 ** row[end], 2) for end in ("ci_low", "ci_high"))
        seeds = " / ".join(fixed(2**slope, 2) for slope in row["by_seed"])
        rows.append([name, f"{fixed(2 ** row['slope'], 2)} ({least} to {most})", seeds])
    return table(["student", "tokens, hardest over easiest (95% CI)", "by seed"], rows)


def sft() -> str:
    """The speed of fine-tuning; rows that were measured for their losses only are left out."""
    found = result("sft")
    wanted = [row["name"] for row in found["median"]]
    rows = ([row["name"], count(row["tokens_a_step"]), count(row["tokens_per_s"]), fixed(row["peak_gb"]),
             percent(row["mfu"], 1)] for row in found["rows"] if row["name"] in wanted)  # fmt: skip
    return table(["", "tokens a step", "tokens a second", "peak, GiB", "of the GPU's matrix rate"], rows)


def finetune() -> str:
    rows = []
    for run in finetuned():
        for name in run["students"]:
            examples, loss, speed = (
                run["figures"][f"{name}_{of}"] for of in ("examples", "valid_loss", "tokens_per_s")
            )
            rows.append([f"{run['name']}, {run['method']}", name, examples, fixed(loss, 2), count(speed)])
    return table(["student", "chains", "examples", "validation loss", "tokens a second"], rows)


def several_gpus() -> str:
    rows = []
    for row in result("several_gpus")["rows"]:
        apart = "" if row["way"] == "one" else percent(row["largest_difference"], 1)
        rows.append([f"{row['student']}, {row['method']}", WAYS[row["way"]], apart, count(row["tokens_per_s"]),
                     fixed(row["memory_gb"])])  # fmt: skip
    return table(["student", "GPUs", "losses apart, at most", "tokens a second", "GiB a GPU"], rows)


def profiles() -> str:
    rows = []
    for row in result("profiles")["rows"]:
        many, seen = row["gpus"] > 1, row["measured"]
        gpu = f"{row['gpus']} x {row['gpu_gib']:g} GiB (FSDP)" if many else f"{row['gpu_gib']:g} GiB"
        rows.append([
            row["profile"], f"{row['student'].partition('/')[2]}, {row['method']}", count(row["max_length"]), gpu,
            row["backend"], fixed(row["expected_gib"]["total"]) + (" each" if many else ""),
            *((fixed(seen["peak_gib"]), count(seen["tokens_per_s"])) if seen else "--"),
        ])  # fmt: skip
    heads = ["profile", "student, method", "max_length", "GPU", "backend", "GiB, estimated", "GiB, peak"]
    return table([*heads, "tokens a second"], rows)


def files() -> str:
    """Every file of a benchmark: the command that made it, the machine and the commit that it notes."""
    rows = []
    for file in sorted(RESULTS.glob("*.json")):
        about = read(file)
        about = about.get("cpu", about)  # costs.json: by profile
        inner = [row for row in about.get("rows", []) if isinstance(row, dict)]
        command = next(
            (row["command"] for row in (about, *inner) if "command" in row), f"python benchmarks/{file.stem}.py"
        )
        commits = dict.fromkeys(row["commit"] for row in (about, *inner) if row.get("commit"))
        machine = [about.get("gpu") or "no GPU noted"] + ([f"{about['cores']} cores"] if "cores" in about else [])
        link = f"[{file.name}](../benchmarks/results/{file.name})"
        rows.append([link, f"`{command}`", ", ".join(machine), ", ".join(commits) or "not noted"])
    return table(["file", "command", "machine", "commit"], rows)


TABLES = {form.__name__: form for form in (
    costs, fairly, effort, seeds, reinforce, reward, whitebox, adaptive, sft, finetune, several_gpus, profiles, files,
)}  # fmt: skip
