"""What the stages will take on this machine, minutes and memory, before they do; and afterwards beside what they took.

`work.json` holds what the stages of a run took, by kind of work, and how fast the machine was that it ran on
(`benchmarks/costs.py` writes it). Each kind is taken to be as many times slower here as a probe of it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

from distil.pipeline.probe import speeds
from distil.pipeline.progress import report_folder
from distil.workspace.files import write_text
from distil.workspace.parameters import declared
from distil.workspace.stage import read_meta

RECORD = "work.json"
TOLD = "expected.json"  # of a run: what was expected of its stages
GIB = 2**30
LONG = 30  # minutes that are worth a warning
NOT_COUNTED = (  # parameters that no work depends on
    "run", "seed", "learning_rate", "weight_decay", "warmup_ratio", "lora_alpha", "min_share", "push", "repository",
    "base_name", "weights", "lora_rank",
)  # fmt: skip
BOUNDS = ("student_tokens", "max_new_tokens")  # most answers end before: a lower one saves next to nothing
OF_PROBLEMS = ("problems", "chains", "samples", "turns")  # parameters of 01 that all stages depend on
GROWS = {  # parameters that training and writing are in proportion to; of names, their number counts
    "01_collect": ("n_train", "n_test"),
    "04_finetune": ("train_tokens", "students"),
    "05_prefer": ("max_pairs",),
    "06_reinforce": ("steps", "group"),
    "07_eval": ("n_test",),
}


def record() -> dict:
    """{config, speeds, stages: {stage: {params, seconds: {train, write, read, rest}, gib}}} of the recorded run."""
    return json.loads((resources.files("distil.pipeline") / RECORD).read_text(encoding="utf-8"))


def counted(stage: str, values: dict[str, dict]) -> dict[str, object]:
    """The parameters, of all stages' `values`, that the work of a stage depends on."""
    of_first = OF_PROBLEMS + (("n_test",) if stage == "07_eval" else ())
    found = {name: values["01_collect"][name] for name in of_first}
    if stage > "04_finetune":
        found |= {name: values["04_finetune"][name] for name in ("student", "method")}
    found |= values[stage]
    return {name: value for name, value in found.items() if name not in NOT_COUNTED}


def amount(value: object) -> float:
    """A number, or how many names there are."""
    return len(value.split(",")) if isinstance(value, str) else float(value)


def growth(stage: str, values: dict[str, dict], stages: dict[str, dict]) -> float | str:
    """How many times as much is trained and written as was recorded; or the parameter that makes it another work.

    A parameter that is not in the record is newer than the run, which had its default.
    """
    before = {name: declared(name)().model_dump() | row["params"] for name, row in stages.items()}
    then, now, times = counted(stage, before), counted(stage, values), 1.0
    for name, value in now.items():
        if value == then[name] or name in BOUNDS and value < then[name]:
            continue
        if name not in GROWS.get(stage, ()) or not amount(then[name]):
            return name
        times *= amount(value) / amount(then[name])
    return times


def seconds(spent: dict[str, float], then: dict[str, float], now: dict[str, float], times: float) -> float:
    """Seconds of a stage: `spent` by kind where the probe had the speeds `then`, here where it has `now`."""
    found = spent["rest"]
    for kind in ("train", "write", "read"):
        grown = times if kind != "read" else 1.0  # what is read is bounded otherwise
        found += spent[kind] * grown * then[kind] / now[kind]
    return found


def expected(stages: Sequence[str], values: dict[str, dict]) -> tuple[dict[str, dict], dict[str, float]]:
    """({stage: {minutes, gib} or {unknown: why}}, the speeds of this machine, empty if they were not needed)."""
    known = record()
    told = {stage: growth(stage, values, known["stages"]) for stage in stages}
    heavy = any(stage > "03" and not isinstance(times, str) for stage, times in told.items())
    here = speeds(known["config"]) if heavy else {}
    found: dict[str, dict] = {}
    for stage, times in told.items():
        row = known["stages"][stage]
        if isinstance(times, str):
            found[stage] = {"unknown": f"no run with this {times} is on record"}
        elif stage > "03" and not here:
            found[stage] = {"unknown": "what is on record ran on a CPU, and this machine has a GPU or was not measured"}
        else:
            took = seconds(row["seconds"], known["speeds"], here or known["speeds"], times)
            found[stage] = {"minutes": round(took / 60, 1), "gib": row["gib"]}
    return found, here


def tell(run: str, stages: Sequence[str], values: dict[str, dict]) -> str:
    """The `table` of what is expected of a run's stages, which is kept for `told`."""
    found, here = expected(stages, values)
    before = told(run)
    kept = {"speeds": here or before["speeds"], "stages": before["stages"] | found}
    write_text(report_folder(run) / TOLD, json.dumps(kept, indent=1) + "\n")
    return table(stages, found)


def told(run: str) -> dict[str, dict]:
    """{speeds, stages} as `expected` last found them of a run."""
    file = report_folder(run) / TOLD
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"speeds": {}, "stages": {}}


def table(stages: Sequence[str], found: dict[str, dict]) -> str:
    """What the stages are expected to take, a line each, and what to look out for; empty for no stages."""
    import psutil

    known = {stage: found[stage] for stage in stages if "minutes" in found[stage]}
    if not known:
        return "\n".join(f"{stage}: minutes are not known, {found[stage]['unknown']}" for stage in stages[:1])
    lines = [f"{'on this machine, about':24} minutes     GiB"]
    for stage in stages:
        row = found[stage]
        figures = f"{row['minutes']:7.1f} {row['gib']:7.1f}" if stage in known else f"not known: {row['unknown']}"
        lines.append(f"  {stage:22} {figures}")
    total, most = sum(row["minutes"] for row in known.values()), max(row["gib"] for row in known.values())
    if len(known) == len(stages):
        lines.append(f"  {'together':22} {total:7.1f} {most:7.1f}")
    if total > LONG:
        lines.append(f"This takes {total / 60:.1f} hours. It may be stopped: the same command goes on from there.")
    free = psutil.virtual_memory().available / GIB
    if most > free:
        lines.append(f"Memory is short: {free:.1f} GiB are free, and {most:.1f} were taken where this was recorded.")
    return "\n".join(lines)


def compared(run: str, stages: Sequence[str]) -> str:
    """What stages were expected to take beside what they took; empty if nothing was expected of them."""
    lines = []
    for stage in stages:
        row, meta = told(run)["stages"].get(stage, {}), read_meta(run, stage)
        if "minutes" in row and meta:
            pairs = (row["minutes"], meta["seconds"] / 60, row["gib"], meta["peak_ram_gb"])
            lines.append(f"{stage:13}" + "".join(f"{number:9.1f}" for number in pairs))
    head = f"{'':13}  minutes:     took     GiB:     took"
    return "\n".join([head, *lines]) if lines else ""
