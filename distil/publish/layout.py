"""One repository laid out as a folder: exactly the files that are to be sent, and nothing that must not be."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distil.models.student import base_of, identity
from distil.models.weights import resolve
from distil.publish import leaks
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.stage import run_folder

WEIGHTS = (
    *("*.safetensors", "*.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template*"),
)


@dataclass(frozen=True)
class Upload:
    """One repository to be: (path in it, bytes) of every file, the card among them, and what was left out."""

    repository: str
    kind: str  # model or dataset
    folder: Path
    files: list[tuple[str, int]]
    left_out: list[str]
    card: str
    source: Path | None  # of the weights: the student's folder of this run, or the merged one
    faults: list[str]  # what must not be published of it; empty where it was meant to be sent


def lay_out(
    run: str,
    place: str,
    kind: str,
    *,
    source: Path | None,
    more: Sequence[tuple[str, Path]],
    texts: dict[str, str],
    look: bool = False,
) -> Upload:
    """A folder with exactly what is to be sent: the weights in `source`, `more` files, and `texts`, by name in it.

    Files are linked where the disk can. Raises StageError, and leaves no folder, if something must not be published;
    with `look`, where nothing is sent, that is only listed.
    """
    inside = sorted(p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()) if source else []
    bad = [f"{name}: {leaks.by_name(name)}" for name in inside if leaks.by_name(name)]
    taken = [name for name in inside if any(fnmatch.fnmatch(name, pattern) for pattern in WEIGHTS)]
    files = [*((name, source / name) for name in taken), *more]
    folder = run_folder(run) / "07_eval" / "publish" / place.replace("/", "--")
    shutil.rmtree(folder, ignore_errors=True)
    for name, path in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, folder / name)
        except OSError:  # another disk, or one that knows no links
            shutil.copy2(path, folder / name)
    for name, text in texts.items():
        write_text(folder / name, text)
    sent = sorted((p.relative_to(folder).as_posix(), p) for p in folder.rglob("*") if p.is_file())
    bad += leaks.problems(sent)
    if bad and not look:
        shutil.rmtree(folder)
        raise StageError(f"{place} is not published: " + "; ".join(bad) + ". Take these out, then try again")
    left_out = [name for name in inside if name not in taken and name not in texts]
    files = [(name, p.stat().st_size) for name, p in sent]
    return Upload(place, kind, folder, files, left_out, texts["README.md"], source, bad)


def merge(run: str, source: Path, place: str) -> Path:
    """The folder of a student's whole weights: its adapter merged into its base. Kept, and made once.

    Raises StageError for a student without an adapter, or where the memory for the whole model is not to be had.
    """
    if base_of(str(source)) is None:
        raise StageError(f"{source.name} is whole already, it has no adapter: leave `merged` out of push")
    folder = run_folder(run) / "07_eval" / "publish" / "merged" / place.replace("/", "--")
    of = folder / "of.json"
    digest = identity(str(source))
    if of.exists() and json.loads(of.read_text(encoding="utf-8"))["of"] == digest:
        return folder
    import psutil
    from transformers import AutoTokenizer

    from distil.models.student import load

    weights = sum(p.stat().st_size for p in Path(resolve(base_of(str(source)))).glob("*.safetensors"))
    free = psutil.virtual_memory().available
    if free < 2 * weights:  # as they are loaded, and again in another number format
        raise StageError(
            f"merging {source.name} takes about {2 * weights / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are "
            "free: publish the adapter (leave `merged` out of push), or merge on a larger machine"
        )
    shutil.rmtree(folder, ignore_errors=True)
    tokenizer, model = AutoTokenizer.from_pretrained(source), load(str(source))
    for config in (model.config, model.generation_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_text(of, json.dumps({"of": digest}))
    return folder
