"""Make a recording: run 01-03 against a live teacher, and pack its answers so that others can replay them."""

from __future__ import annotations

import argparse
import json
import lzma
import time
from importlib import resources
from pathlib import Path

from distil.llm.cache import Store
from distil.pipeline import driver
from distil.publish.facts import public
from distil.workspace.errors import StageError
from distil.workspace.files import write_text
from distil.workspace.stage import RESPONSES, read_meta, run_folder

LIMIT_MB = 8


def record(args: argparse.Namespace) -> int:
    """Run stages 01-03 with the endpoint given, through the same client as always; pack the answers; write the card.

    Returns the run's exit code. Raises what `driver.run` raises, and StageError if the packed file exceeds 8 MB.
    """
    run = args.run or f"record-{args.name}"
    sets = [*args.sets, f"endpoint={args.endpoint}", f"teacher={args.teacher}"]
    code = driver.run(args.profile, run, sets=sets, last="03")
    if code:
        return code
    rows = list(Store(run_folder(run) / RESPONSES).rows())
    folder = Path(str(resources.files("distil"))) / "recorded" / args.name
    folder.mkdir(parents=True, exist_ok=True)
    packed = pack(rows)
    if len(packed) > LIMIT_MB * 1e6:
        raise StageError(f"the recording packs to {len(packed) / 1e6:.1f} MB, over {LIMIT_MB}: record fewer problems")
    (folder / "responses.jsonl.xz").write_bytes(packed)
    write_text(folder / "README.md", card(args, run, rows, len(packed)))
    print(f"{len(rows)} answers, {len(packed) / 1e6:.2f} MB: {folder}")
    return 0


def pack(rows: list[dict]) -> bytes:
    """Rows as xz-compressed JSON Lines, in the order of their keys, so that the same answers give the same bytes."""
    text = "".join(
        json.dumps({"request": row["request"], "reply": row["reply"]}, ensure_ascii=False) + "\n"
        for row in sorted(
            rows, key=lambda row: (json.dumps(row["request"]["messages"]), row["key"])
        )  # like beside like
    )
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def card(args: argparse.Namespace, run: str, rows: list[dict], size: int) -> str:
    """The recording's README: everything measured from the answers or taken from the command."""
    sampling = sorted(
        {
            json.dumps({k: v for k, v in row["request"].items() if k not in ("messages", "seed", "model")})
            for row in rows
        }
    )
    tokens = sum(row["reply"]["completion_tokens"] for row in rows)
    asked = read_meta(run, "01_collect")["params"]
    lines = [
        f"# Recording `{args.name}`",
        "",
        "Answers of a real model, kept so that the notebooks run without a key, a network or a GPU.",
        "",
        f"- Model: {args.teacher} ({args.revision}), licence {args.licence}",
        f"- Date: {time.strftime('%F')}; packed: {size / 1e6:.2f} MB",
        f"- Answers: {len(rows):,}; completion tokens: {tokens:,}",
        f"- Problems: suite `{asked['problems']}`, {asked['n_train']} for training, seed {asked['seed']}",
        "- Prompts: the files in `distil/prompts/` of the same commit; each request is stored whole",
        "- Sampling (one line a kind of request; seeds differ): ",
        "",
        *[f"  - `{line}`" for line in sampling],
        "",
        "Command:",
        "",
        f"    distil record --profile {args.profile} --name {args.name} "
        f"--endpoint {public('endpoint', args.endpoint)} --teacher {args.teacher} \\",
        f"        --revision '{args.revision}' --licence {args.licence}"
        + "".join(f" --set {text}" for text in args.sets),
        "",
        "The answers are the model's own, mistakes included; the notebooks verify them.",
        "",
    ]
    return "\n".join(lines)
