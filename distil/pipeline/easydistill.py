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
from distil.workspace.parameters import ParameterError, effective

EASYDISTILL = yaml.safe_load((resources.files("distil.pipeline") / "easydistill.yaml").read_text(encoding="utf-8"))
JOBS, OTHER_JOBS = EASYDISTILL["jobs"], EASYDISTILL["other_jobs"]
SECRET = re.compile(r"api_?key|^key$|token$|secret|password", re.IGNORECASE)


def read_config(path: Path) -> dict:
    """An EasyDistill configuration. Raises ParameterError if it is none that can be turned into a run."""
    if not path.is_file():
        raise ParameterError(f"{path}: no such file")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: not JSON: {error}; the YAML files of EasyDistill 2 are not read") from None
    if not isinstance(config, dict) or "job_type" not in config:
        raise ParameterError(f"{path}: no field `job_type`; known job types: {', '.join(JOBS)}")
    job = config["job_type"]
    if job in OTHER_JOBS:
        raise ParameterError(f"{path}: job type {job!r}: {OTHER_JOBS[job]}")
    if job not in JOBS:
        raise ParameterError(f"{path}: unknown job type {job!r}; there are: {', '.join((*JOBS, *OTHER_JOBS))}")
    for section, values in config.items():
        if section != "job_type" and not isinstance(values, dict):
            raise ParameterError(f"{path}: `{section}` must be an object, not {type(values).__name__}")
    return config


def convert_config(config: dict, name: str) -> tuple[list[str], list[str]]:
    """(arguments of `distil`, notes on what was not carried over) for a configuration that `read_config` accepted.

    `name` is the file's; both stages of a recipe get the same run name, so that the second goes on from the first.
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
    if first == "01":
        for wanted, what in (("teacher", "the model's name at the endpoint"), ("endpoint", "a URL ending in /v1")):
            if wanted not in sets:
                notes.append(
                    f"{wanted}: not in the file; without --set {wanted}=... ({what}) the recording is replayed"
                )
    else:
        sets.pop("teacher", None), sets.pop("endpoint", None)
    if last == "04":
        sets["04_finetune.method"] = "full"  # its trainers adapt all weights
        notes.append("profile: add --profile gpu24 or the like; the profile cpu trains on very few tokens")
    run = re.sub(r"_stage\d+$", "", re.sub(r"(\.json)+$", "", name))
    run = re.sub(r"[^\w.-]+", "-", run, flags=re.ASCII).strip("-.") or "imported"
    texts = [f"{key}={value}" for key, value in sets.items()]
    effective("cpu", run, texts)  # refuses a value of the wrong type
    arguments = ["run", "--run", run, "--from", first, "--to", last]
    for text in texts:
        arguments += ["--set", text]
    return arguments, notes


def carry(field: str, value: object, sets: dict[str, object], notes: list[str]) -> None:
    """Put one field into `sets`, or a note on why not into `notes`. Secrets are named, never repeated."""
    name = field.rpartition(".")[2]
    if SECRET.search(name):
        notes.append(f"{field}: keys are not taken from files; set the environment variable DISTIL_API_KEY instead")
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
        notes.append(
            f"{field}: add --set endpoint=vllm to serve it here, or the URL of a server that has it under this name"
        )
    elif field == "models.student":
        sets["04_finetune.student"] = model_name(str(value))
        if model_name(str(value)) != str(value):
            notes.append(f"{field}: read as a name on the Hub; name your folder if you have the weights")
    elif field == "dataset.seed":
        sets["seed"] = value
    elif field in ("training.learning_rate", "training.max_length"):
        sets[f"04_finetune.{name}"] = value
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
    arguments, notes = convert_config(read_config(path), path.name)
    print(shlex.join(["distil", *arguments]))
    if notes:
        print("# not carried over:")
    for note in notes:
        print(f"#   {note}")
    return 0
