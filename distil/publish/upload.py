"""Publish, privately and only if asked: what goes where is planned, looked through and shown before it is sent.

`push` names what is published, separated by commas: a student of the run; `merged`, its adapter merged into whole
weights; `reward`, the reward model; `data`, the training sets. `repository` is OWNER/NAME, the student's place, with
`modelscope:` before it for ModelScope; the others go to OWNER/NAME-merged, -reward and -data.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from distil.models import modelscope
from distil.models.published import own, token
from distil.publish import hub_api
from distil.publish.cards import benchmark_file, model_card
from distil.publish.data_cards import data_card, reward_card
from distil.publish.facts import CHECKPOINTS, RESULTS, SETS, TABLES, is_folder, read, unchanged
from distil.publish.layout import Upload, lay_out, merge
from distil.workspace.errors import StageError
from distil.workspace.files import read_csv, write_text
from distil.workspace.stage import read_meta, run_folder
from distil.workspace.students import home, recipe_of

EXTRAS = ("merged", "reward", "data")
EXAMPLE = "OWNER/NAME"  # stands for a repository where nothing is to be pushed


def target(repository: str) -> tuple[str, str]:
    """(`hub` or `modelscope`, OWNER/NAME). Raises StageError for a name that neither would take."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    scheme, colon, name = repository.rpartition(":")
    where = scheme if colon else "hub"
    try:
        if where not in ("hub", "modelscope") or name.count("/") != 1:
            raise HFValidationError("write OWNER/NAME, or modelscope:OWNER/NAME")
        for suffix in ("", *EXTRAS):
            validate_repo_id(f"{name}-{suffix}" if suffix else name)
    except HFValidationError as error:
        raise StageError(f"repository {repository!r}: {error}") from None
    return where, name


def wanted(push: str, students: str) -> tuple[str | None, list[str]]:
    """(student, extras) of the parameter `push`. Raises StageError for a word that is neither."""
    words = [word.strip() for word in push.split(",") if word.strip()]
    student = [word for word in words if word not in EXTRAS]
    extras = [word for word in words if word in EXTRAS]
    if len(student) > 1 or not set(student) <= set(own(students)) or ("merged" in extras and not student):
        raise StageError(
            f"push={push!r}: name one of the students that 07 measures ({', '.join(own(students)) or 'none'}), and any "
            f"of {', '.join(EXTRAS)}, separated by commas"
        )
    return (student[0] if student else None), extras


def places(push: str, students: str, repository: str) -> dict[str, tuple[str, str]]:
    """What goes where: word of `push` (the student's is `student`) to (repository, kind). Raises StageError."""
    student, extras = wanted(push, students)
    name = target(repository)[1]
    found = {"student": (name, "model")} if student else {}
    return found | {word: (f"{name}-{word}", "dataset" if word == "data" else "model") for word in extras}


def check_base(words: Collection[str], base: str, base_name: str) -> None:
    """Raise StageError if a model of `words` is pushed whose base is a folder and has no name that strangers know."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if base_name:
        try:
            validate_repo_id(base_name)
        except HFValidationError as error:
            raise StageError(f"base_name {base_name!r}: {error}") from None
    elif is_folder(base) and set(words) - {"data"}:
        raise StageError(
            f"a student of {base} cannot be published: nobody else has that folder. Give base_name=OWNER/NAME, what "
            "its weights are called on the Hub, or push=data, or push nothing"
        )


def check(push: str, repository: str, students: str, run: str, base_name: str = "", base: str | None = None) -> None:
    """All that can be known to fail is found before anything is trained. Raises StageError; nothing to push: no check.

    `base` is what students are made of, by default what 04 has recorded, and `base_name` what strangers call it. Asks
    the Hub or ModelScope whose token it is, whether it may write there, and whether a name is taken.
    """
    if not push:
        return
    tuned = read_meta(run, "04_finetune")
    if tuned and tuned["params"].get("train"):
        raise StageError(
            f"push={push}: no card is written for a student of your own file (04_finetune.train), as nothing here "
            "knows where its rows come from: give push=''"
        )
    found = places(push, students, repository)
    base = base or (tuned["params"]["student"] if tuned else "")
    check_base(found, base, base_name)
    names = list(found.values())
    if target(repository)[0] == "modelscope":
        return modelscope.check(names, begun(run))
    hub_api.check(names, token())


def begun(run: str) -> list[str]:
    """Repositories that this run has created."""
    file = run_folder(run) / "07_eval" / "publish" / "begun.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []


def usual(students: str) -> str:
    """What is shown where nothing is to be pushed: the fast student, or the last one of this run."""
    found = own(students)
    fast = [name for name in found if recipe_of(name) == "fast"]
    return fast[0] if fast else found[-1] if found else "data"


def plan(
    run: str, push: str, repository: str, students: str, base_name: str = "", *, look: bool = False
) -> list[Upload]:
    """Everything that would be sent, laid out in `07_eval/publish`. Nothing is sent.

    With `look` it is to be looked at and never sent: what must not be published is listed, and is no error. `base_name`
    is what strangers call the base, where that is a folder here. Raises StageError if a measured file is missing or was
    changed, if a card says a number that no file holds, or if a file would give away a token, a key, a path of this
    machine, a cache or a trainer's state, listing them all.
    """
    student, _ = wanted(push, students)
    where = places(push, students, repository)
    facts = read(run, base_name)
    base = facts["04_finetune/meta.json"]["params"]["student"]
    if not look:
        check_base(where, base, base_name)
    data_set = where["data"][0] if "data" in where else None
    uploads = []
    for word, (place, kind) in where.items():
        sources, extra, source = [], {}, None
        if word == "data":
            card = data_card(facts, place)
            for name in facts:
                stage, _, rest = name.partition("/")
                part, _, file = rest.partition("/")
                if stage == "03_judge" and Path(file).stem in SETS and facts[name]["rows"]:
                    unchanged(run, name, facts)
                    sources.append((f"{Path(file).stem}/{part}.jsonl", run_folder(run) / name))
        else:
            origin = "06_reinforce/reward_model" if word == "reward" else home(student)
            source = run_folder(run) / origin
            if not source.is_dir():
                raise StageError(f"{source} is missing: run {origin.partition('/')[0]} first")
            unchanged(run, origin, facts)
            if word == "reward":
                card = reward_card(facts, place)
            else:
                card = model_card(facts, student, place, data_set, merged=word == "merged")
                tables = [name for name in (*TABLES, CHECKPOINTS) if name in facts]
                sources += [(f"results/{Path(name).name}", run_folder(run) / name) for name in tables]
                result = benchmark_file(facts, student)
                extra = dict([result]) if result else {}
            source = merge(run, source, place) if word == "merged" else source
            if (config := source / "adapter_config.json").exists() and is_folder(base) and not look:
                told = json.loads(config.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_name}
                extra[config.name] = json.dumps(told, indent=1)
        texts = {"README.md": card, **extra}
        uploads.append(lay_out(run, place, kind, source=source, more=sources, texts=texts, look=look))
    return uploads


def send(run: str, upload: Upload, repository: str) -> str:
    """Send what was planned to a private repository, made if there is none; returns its address.

    `repository` is the parameter, which says whether to the Hub or to ModelScope. Raises StageError if it is cut off
    or refused; sent again, it goes on where it was.
    """
    if upload.repository not in begun(run):
        made = [*begun(run), upload.repository]
        write_text(run_folder(run) / "07_eval" / "publish" / "begun.json", json.dumps(made))
    if target(repository)[0] == "modelscope":
        return modelscope.send(upload.repository, upload.kind, upload.folder)
    return hub_api.send(upload.repository, upload.kind, upload.folder, token())


def push(run: str, what: str, repository: str, dry_run: bool, base_name: str = "") -> int:
    """The command `distil push`: plan, show every file and card, and send unless `dry_run`. Returns the exit code 0.

    Raises what `check`, `plan` and `send` raise.
    """
    results = run_folder(run) / RESULTS
    if not results.exists():
        raise StageError(f"{results} is missing: run 07_eval for run {run!r} before its students are published")
    each = run_folder(run) / CHECKPOINTS
    students = ",".join(row["student"] for row in read_csv(each if each.exists() else results))
    if not dry_run:
        check(what, repository, students, run, base_name)
    uploads = plan(run, what, repository, students, base_name)
    for upload in uploads:
        total = sum(size for _, size in upload.files)
        print(f"{upload.repository} ({upload.kind}, private): {len(upload.files)} files, {total:,} bytes")
        print("".join(f"  {size:>14,}  {name}\n" for name, size in upload.files), end="")
        print("".join(f"        left out  {name}\n" for name in upload.left_out))
        if dry_run:
            print(upload.card)
        else:
            print(send(run, upload, repository))
    return 0
