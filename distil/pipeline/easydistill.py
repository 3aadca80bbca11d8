"""EasyDistill's JSON configurations as a `distil run` command, with a list of what could not be carried over."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

import yaml

from distil.llm.prompts import messages
from distil.workspace.errors import StageError
from distil.workspace.files import read_table, read_user_text
from distil.workspace.parameters import ParameterError, effective

EASYDISTILL = yaml.safe_load((resources.files("distil.pipeline") / "easydistill.yaml").read_text(encoding="utf-8"))
JOBS, OTHER_JOBS = EASYDISTILL["jobs"], EASYDISTILL["other_jobs"]
WANTED = {
    "teacher": "--set teacher=MODEL (its name at the endpoint)",
    "endpoint": "--set endpoint=URL (ending in /v1; or vllm, to serve the model here)",
}
REWRITES = ("cot_long2short", "cot_short2long")  # jobs that rewrite chains
TEST_ROWS = 150  # at most, of a file of chains
SECRET = re.compile(r"api_?key|^key$|token$|secret|password", re.IGNORECASE)


def read_config(path: Path) -> dict:
    """An EasyDistill configuration. Raises ParameterError if it is none that can be turned into a run."""
    if not path.is_file():
        raise ParameterError(f"{path}: no such file")
    try:
        config = json.loads(read_user_text(path))
    except json.JSONDecodeError as error:
        raise ParameterError(f"{path}: not JSON: {error}; the YAML files of EasyDistill 2 are not read") from None
    if not isinstance(config, dict) or "job_type" not in config:
        raise ParameterError(f"{path}: no field `job_type`; known job types: {', '.join(JOBS)}")
    job = str(config["job_type"])
    if job in OTHER_JOBS:
        raise ParameterError(f"{path}: job type {job!r}: {OTHER_JOBS[job]}")
    if job not in JOBS:
        raise ParameterError(f"{path}: unknown job type {job!r}; there are: {', '.join((*JOBS, *OTHER_JOBS))}")
    for section, values in config.items():
        if section != "job_type" and not isinstance(values, dict):
            raise ParameterError(f"{path}: `{section}` must be an object, not {type(values).__name__}")
    return config


def convert_config(config: dict, path: Path) -> tuple[list[str], list[str]]:
    """(arguments of `distil`, notes on what was not carried over) for a configuration that `read_config` accepted.

    `path` is the file's; both stages of a recipe get the same run name, so that the second goes on from the first.
    Raises ParameterError if a value is of the wrong type.
    """
    first, last = JOBS[config["job_type"]]
    if first == "01" and "inference" not in config:  # a file with labelled data only: nothing is asked of a teacher
        first = last = "04"
    sets: dict[str, object] = {}
    notes: list[str] = []
    for section, values in config.items():
        if section == "job_type":
            continue
        for field, value in values.items():
            carry(f"{section}.{field}", value, sets, notes)
    carry_data(config, first, path, sets, notes)
    if first == "01":
        carry_budget(config, sets)
        missing = [what for name, what in WANTED.items() if name not in sets]
        if missing:
            notes.append(f"the file does not say which model is asked, or where: add {' and '.join(missing)}")
    else:
        sets.pop("teacher", None), sets.pop("endpoint", None)
    if last == "04":
        sets["04_finetune.method"] = "full"  # its trainers adapt all weights
        carry_rows_a_step(config.get("training", {}), sets)
        notes.append("profile: add --profile gpu24 or the like; the profile cpu trains short rows, and few of them")
    run = re.sub(r"_stage\d+$", "", re.sub(r"(\.json)+$", "", path.name))
    run = re.sub(r"[^\w.-]+", "-", run, flags=re.ASCII).strip("-.") or "imported"
    texts = [f"{key}={value}" for key, value in sets.items()]
    effective("cpu", run, texts)  # refuses a value of the wrong type
    arguments = ["run", "--run", run, "--from", first, "--to", last]
    for text in texts:
        arguments += ["--set", text]
    return arguments, notes


def carry_data(config: dict, first: str, path: Path, sets: dict[str, object], notes: list[str]) -> None:
    """Put the file of training rows or of chains to be shortened into `sets`. Raises ParameterError for a bad one."""
    data = config.get("dataset", {})
    if first == "04" and "labeled_path" in data:
        sets["04_finetune.train"] = data_file("labeled_path", data, path, notes)
    elif "labeled_path" in data:
        notes.append("dataset.labeled_path: 04 trains on the sets that 03 of the same run wrote")
    if "input_path" not in data or first == "04":
        return
    if not config["job_type"].startswith("cot_long2short"):
        notes.append(f"dataset.input_path: {EASYDISTILL['without_parameter']['dataset.instruction_path']}")
        return
    file = data_file("input_path", data, path, notes)
    sets |= {"01_collect.chains": f"{file}?answer=boxed", "01_collect.fast_teacher": "none"}
    notes.append("dataset.input_path: what a chain boxes counts as the right answer, which its short form must keep")
    if Path(file).is_file():
        try:
            rows = len(read_table(Path(file)))
        except StageError as error:
            raise ParameterError(str(error)) from None
        n_test = min(TEST_ROWS, max(1, rows // 10))
        sets |= {"01_collect.n_train": rows - n_test, "01_collect.n_test": n_test}


def data_file(field: str, data: dict, config: Path, notes: list[str]) -> str:
    """The path of a data file, beside the configuration or here; of one in neither place as written, with a note."""
    text = str(data[field])
    for folder in (config.parent, Path.cwd()):
        if (folder / text).is_file():
            return str((folder / text).resolve())
    notes.append(f"dataset.{field}: {text} is neither beside the configuration nor here: put your file's path there")
    return text


def carry_budget(config: dict, sets: dict[str, object]) -> None:
    """Put the longest answer, in tokens, into `sets`."""
    tokens = config["inference"].get("max_new_tokens")
    if tokens is not None and config["job_type"].startswith(REWRITES):
        sets["rewrite_tokens"] = tokens
    elif tokens is not None:
        sets |= {"fast_tokens": tokens, "slow_tokens": tokens}


def carry_rows_a_step(training: dict, sets: dict[str, object]) -> None:
    """Put the rows of a step into `sets`: of a device, times the batches added up. Raises ParameterError."""
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    if not any(name in training for name in names):
        return
    counts = [training.get(name, 1) for name in names]
    if not all(isinstance(count, int) for count in counts):
        raise ParameterError(f"training: {' and '.join(names)} must be whole numbers, not {counts[0]!r}, {counts[1]!r}")
    sets["04_finetune.batch_size"] = counts[0] * counts[1]


def carry(field: str, value: object, sets: dict[str, object], notes: list[str]) -> None:
    """Put one field into `sets`, or a note on why not into `notes`. Secrets are named, never repeated."""
    name = field.rpartition(".")[2]
    if SECRET.search(name):
        notes.append(
            f"{field}: keys are not taken from files; set the provider's environment variable, such as "
            "DASHSCOPE_API_KEY, or DISTIL_API_KEY"
        )
    elif field == "inference.base_url":
        address = urlparse(str(value))
        if address.scheme not in ("http", "https") or not address.hostname:
            notes.append(f"{field}: not a URL; add --set endpoint=URL")
        elif address.username or address.password or address.query:
            notes.append(f"{field}: the URL holds more than an address, perhaps a key; add --set endpoint=URL")
        else:
            sets["endpoint"] = value
    elif field == "models.teacher":
        sets["teacher"] = model_name(str(value))
    elif field == "models.student":
        sets["04_finetune.student"] = model_name(str(value))
        if model_name(str(value)) != str(value):
            notes.append(f"{field}: read as a name on the Hub; name your folder if you have the weights")
    elif field == "dataset.seed":
        sets["seed"] = value
    elif field in EASYDISTILL["parameters"]:
        sets[f"04_finetune.{EASYDISTILL['parameters'][field]}"] = value
    elif field in EASYDISTILL["by_job"]:
        pass  # `convert_config` sees to it
    elif field == "training.lr_scheduler_type" and value == "cosine":
        pass  # 04's schedule as well
    elif field in ("inference.prompt", "inference.system_prompt"):
        if str(value).strip() != messages("long2short", question="", answer="", chain="")[0]["content"]:
            notes.append(f"{field}: prompts are files; put your own into a folder and name it in DISTIL_PROMPTS")
    elif field in EASYDISTILL["without_parameter"]:
        notes.append(f"{field}: {EASYDISTILL['without_parameter'][field]}")
    elif name in EASYDISTILL["server"]:
        notes.append(f"{field}: belongs to the server of the teacher")
    else:
        notes.append(f"{field}: has no counterpart here")


def model_name(text: str) -> str:
    """A Hub id from a path that ends in one, as the sample files write it; a folder that is there stays a folder."""
    parts = [part for part in text.split("/") if part]
    if Path(text).is_dir() or text.startswith(("/", ".", "~")) or len(parts) < 2:
        return text
    return "/".join(parts[-2:])


def import_config(file: str) -> int:
    """The command `distil import-config`: prints the command and, as comments, what it leaves out. Returns 0.

    Raises ParameterError for a file that cannot be turned into a run.
    """
    path = Path(file)
    arguments, notes = convert_config(read_config(path), path)
    print(shlex.join(["distil", *arguments]))
    if notes:
        print("# not carried over:")
    for note in notes:
        print(f"#   {note}")
    return 0
