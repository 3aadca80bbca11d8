"""Students that others published, by name; and where any student that 07 is to measure lies."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from distil.models import formats
from distil.models.student import identity
from distil.models.vllm_server import VLLM
from distil.models.weights import from_modelscope, resolve
from distil.workspace.environment import quiet
from distil.workspace.errors import StageError
from distil.workspace.files import local, read_csv
from distil.workspace.stage import Stage
from distil.workspace.students import TEACHER, home, recipe_of
from distil.workspace.students import check as check_names


@cache
def published() -> dict[str, dict]:
    """{hub, modelscope}, OWNER/NAME there, of each published student, by name."""
    return {row["name"]: row for row in read_csv(Path(__file__).with_name("published_students.csv"))}


def token() -> str | None:
    """The Hub's token: HF_TOKEN, then what `hf auth login` stored; asked for in no other way where nobody looks on."""
    from huggingface_hub import constants, get_token

    stored = Path(constants.HF_TOKEN_PATH)
    if os.environ.get("HF_TOKEN"):
        return os.environ["HF_TOKEN"].strip()
    if quiet():
        return stored.read_text(encoding="utf-8").strip() or None if stored.exists() else None
    return get_token()


def own(students: str) -> list[str]:
    """Of the names in 07's parameter `students` those of this run."""
    others = ("base", TEACHER, *published())
    return [name for name in students.split(",") if name not in others and "/" not in name]


def check(students: str, engine: str) -> None:
    """Raises StageError for students that nobody names, or a teacher to be measured without a server to ask it at."""
    names = students.split(",")
    if not all(names) or len({*names}) < len(names):
        raise StageError(f"students={students!r}: name each row of the table once, separated by commas, without blanks")
    check_names(names)
    for name in names:
        if name != recipe_of(name) in published():
            raise StageError(
                f"student {name!r}: {recipe_of(name)} was published, and has no seed to choose: leave it out"
            )
    if TEACHER in students.split(",") and engine != VLLM and "://" not in engine:
        raise StageError(
            f"students={students}: the {TEACHER} answers through a server only: give engine=vllm, or serve its model "
            f"under the name {TEACHER!r} and give engine=http://HOST:8000/v1, or leave it out"
        )


def repository(name: str) -> str:
    """OWNER/NAME of a published student, on the Hub or on ModelScope; any other OWNER/NAME is left as it is."""
    if name in published():
        return published()[name]["modelscope" if from_modelscope() else "hub"]
    if name.count("/") != 1:
        raise StageError(f"no published student {name!r}; there are: {', '.join(published())}, or any OWNER/NAME")
    return name


def pull(name: str) -> Path:
    """Download a model, or find it where it was downloaded before; returns its folder.

    From ModelScope where that is asked for (DISTIL_SOURCE or UNSLOTH_USE_MODELSCOPE), else from the Hub, or from the
    mirror that HF_ENDPOINT names; with HF_HUB_OFFLINE only what is there already. Raises StageError with what to do.
    """
    wanted = repository(name)
    if from_modelscope():
        from distil.models.modelscope import download

        return download(wanted)
    import httpx
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(wanted, token=token() or False, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))
    except GatedRepoError:
        raise StageError(f"{wanted} asks for consent: give it on its page, and set HF_TOKEN") from None
    except RepositoryNotFoundError:
        raise StageError(f"{wanted} is not on {constants.ENDPOINT}, or HF_TOKEN may not read it") from None
    except (LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set and it was never pulled" if constants.is_offline_mode() else type(error).__name__
        raise StageError(
            f"{wanted} could not be had from {constants.ENDPOINT} ({why}): pull it where there is a network, name a "
            "mirror in HF_ENDPOINT, or set DISTIL_SOURCE=modelscope"
        ) from None


def place(name: str, base: str, stage: Stage, student_format: str = "plain") -> tuple[str, str]:
    """(folder, identity) of a row of 07: `base`, a student of this run, a folder, a published name or OWNER/NAME.

    The identity is a digest or a revision: it says which weights were measured. A student of this run becomes an input
    of the stage. `teacher` has no folder, and the name that 01 knew it by. Raises StageError if it is not there, or
    was taught another format than `student_format`. The base was taught none, and of strangers only some say one.
    """
    if name == TEACHER:
        return "", teacher_of(json.loads(stage.input("01_collect/meta.json").read_text(encoding="utf-8")))
    if name == "base":
        return resolve(base), identity(base)
    if name not in published() and "/" not in name:
        formats.require(name, stage.input(home(name)), student_format)
        return str(stage.input(home(name))), identity(str(stage.input(home(name))))
    here = local(name)
    folder = here or pull(name)
    if formats.format_in(folder) != "plain":
        formats.require(name, folder, student_format)
    pulled = not here and folder.parent.name == "snapshots"  # in the Hub's cache a folder is called by its commit
    return str(folder), f"{name}@{folder.name}" if pulled else identity(str(folder))


def teacher_of(meta: dict) -> str:
    """The first model that 01 asked, by its meta.json; of a run without roles, or that asked none, its `teacher`."""
    usage = meta["figures"].get("usage", {})
    return next((role["model"] for role in usage.values() if isinstance(role, dict)), meta["params"]["teacher"])


def show(name: str) -> int:
    """The command `distil pull`: download, and say how to use it. Returns the exit code 0. Raises StageError."""
    print(f"{pull(name)}\nas a row of 07: distil run --from 07 --set students=base,fast,{name}")
    return 0
