"""What a card may say: the measured files of a run, read once, and the check that every number of a card is in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distil.evaluate import metrics, settings
from distil.evaluate.seen import SETS
from distil.llm.roles import ROLES
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import local, read_csv, read_jsonl, sha256
from distil.workspace.parameters import ParameterError, effective
from distil.workspace.stage import STAGES, notebook_path, run_folder

ASKED = f"07_eval/{settings.FILE}"
LEVEL = "95%"  # of every interval; the one number of a card that is no measurement
RESULTS = "07_eval/results.csv"
CHECKPOINTS = f"07_eval/{metrics.CHECKPOINTS}"  # where a recipe has several: a card is of one of them
TABLES = (RESULTS, "07_eval/differences.jsonl")
SHARES = ("accuracy", "ci_low", "ci_high", "cut_off", "no_answer")  # that a table shows in percent
RESTS_ON = {  # the sections of cards and the files that their sentences tell of
    "Results": (ASKED, "result"),
    "Limits": (ASKED, "result"),
    "How it was made": tuple(f"{stage}/" for stage in STAGES[:-1]),
}
NUMBER = re.compile(r"[-+]?\d(?:[\d,]*\d)?(?:\.\d+)?(?:e-?\d+)?%?")
SEPARATORS = re.compile(r"[\s=]+")


def read(run: str, base_name: str = "") -> dict[str, Any]:
    """The measured files of a run, `<stage>/<file>` to its content; of training sets only the number of rows.

    `base` is the base as strangers know it: `base_name`, if one is given; of a folder of one's own only its last part.
    Raises StageError if one that every card needs is missing, or if a file is not the one its stage wrote.
    """
    folder = run_folder(run)
    found: dict[str, Any] = {}
    for name in (*(f"{stage}/meta.json" for stage in STAGES), ASKED):
        if (folder / name).exists():
            found[name] = json.loads((folder / name).read_text(encoding="utf-8"))
    if "params" not in found.get(ASKED, {}) and "07_eval/meta.json" in found:  # an earlier version asked
        found[ASKED] = found["07_eval/meta.json"]
    for stage in ("01_collect", "03_judge", "04_finetune", "07_eval"):
        if "params" not in found.get(ASKED if stage == "07_eval" else f"{stage}/meta.json", {}):
            raise StageError(f"{folder / stage / 'meta.json'} is missing: run {stage} before a card is written")
    tables = (*TABLES, CHECKPOINTS) if (folder / CHECKPOINTS).exists() else TABLES
    for name in tables:
        if not (folder / name).exists():
            raise StageError(f"{folder / name} is missing: a card has no number without a file; run 07_eval")
        unchanged(run, name, found)
    found |= {name: read_csv(folder / name) for name in tables if name.endswith(".csv")}
    found["07_eval/differences.jsonl"] = read_jsonl(folder / "07_eval/differences.jsonl")
    for name in (f"03_judge/{part}/{kind}.jsonl" for kind in SETS for part in ("train", "valid")):
        if (folder / name).exists():
            found[name] = {"rows": len(read_jsonl(folder / name))}
    for config in folder.glob("0[4-6]_*/*/adapter_config.json"):
        found[config.relative_to(folder).as_posix()] = {"r": json.loads(config.read_text(encoding="utf-8"))["r"]}
    base: str = found["04_finetune/meta.json"]["params"]["student"]
    found["base"] = base_name or (Path(base).name if is_folder(base) else base)
    state = root() / "papermill_runs" / run / "run.json"
    found["run.json"] = {"profile": json.loads(state.read_bytes()).get("profile", "cpu") if state.exists() else "cpu"}
    return found


def checkpoints(facts: dict) -> list[dict]:
    """What was measured of each checkpoint, rows like those of results.csv."""
    return facts.get(CHECKPOINTS, facts[RESULTS])


def is_folder(model: str) -> bool:
    """Is a model a folder of this machine, or was it one? Then its name says nothing to strangers."""
    return bool(local(model)) or model.startswith(("/", ".", "~"))


def unchanged(run: str, name: str, facts: dict) -> None:
    """Raises StageError if a stage's file or folder is not the one whose SHA-256 its meta.json holds."""
    stage, _, file = name.partition("/")
    wrote = facts.get(f"{stage}/meta.json", {}).get("outputs", {}).get(file)
    if wrote and sha256(run_folder(run) / name) != wrote:
        raise StageError(f"{name} of run {run!r} was changed after {stage} wrote it: run {stage} again")


def leaves(content: object) -> Iterator[object]:
    if isinstance(content, dict):
        yield from content  # names can hold numbers, too
        content = list(content.values())
    if isinstance(content, list):
        for item in content:
            yield from leaves(item)
    else:
        yield content


def unbacked(card: str, facts: dict[str, object]) -> list[str]:
    """Numbers of a card that are not in the file which their line rests on, as they stand there.

    A number is held if it is there at the precision printed: as it is, or as a share (12.5% of 0.125) or points if it
    is one; see `may_say`. Or if the whole word that it is part of occurs in a text of any file (names, versions,
    digests, licences).
    """
    words = set()
    for leaf in leaves(list(facts.values())):
        if isinstance(leaf, str):
            words |= {leaf, *(bare(word) for word in SEPARATORS.split(leaf))}
    for stage in STAGES:
        card = card.replace(stage, "")
    missing = []
    for section in card.split("\n## "):
        for line in section.split("\n"):
            plain, shares = may_say(line, section.partition("\n")[0], facts)
            for word in map(bare, SEPARATORS.split(line)):
                if word not in words and word != LEVEL:
                    missing += [text for text in NUMBER.findall(word) if not held(text, plain, shares)]
    return missing


def may_say(line: str, section: str, facts: dict) -> tuple[set[float], set[float]]:
    """(values as they are, values in percent or points) that a line in a section of a card may say.

    A row of a table rests on that student's row of `checkpoints`, or on the sizes of that training set; a difference on
    its row of differences.jsonl; any other line on the files of its section (`RESTS_ON`; all, where none are named),
    and of results on `result`, the row of the student that the card is of.
    """
    result = facts.get("result", {})
    if row := re.match(r"\| ([^|]+) \|", line):
        of = next((r for r in checkpoints(facts) if r["student"] == row[1]), {})
        sizes = [facts.get(f"03_judge/{part}/{row[1]}.jsonl") for part in ("train", "valid")]
        shares = {key: value for key, value in of.items() if key in SHARES}
        return numbers([sizes, [of.get("tokens_per_answer"), of.get("seconds_per_answer")]]), numbers(shares)
    if gap := re.match(r"- (\S+) minus (\S+):", line):
        rows = [r for r in facts["07_eval/differences.jsonl"] if (r["of"], r["to"]) == gap.groups()]
        return set(), numbers([row[key] for row in rows for key in ("difference", "ci_low", "ci_high")])
    others = {name: content for name, content in facts.items() if name not in (*TABLES, CHECKPOINTS)}
    rests_on = [content for name, content in others.items() if name.startswith(RESTS_ON.get(section, ""))]
    return numbers(rests_on), numbers([result.get("accuracy"), result.get("cut_off")])


def numbers(content: object) -> set[float]:
    found = (leaf for leaf in leaves(content) if isinstance(leaf, int | float) and not isinstance(leaf, bool))
    return {float(leaf) for leaf in found}


def bare(word: str) -> str:
    return word.strip("`*|()[]{}<>,.;:'\"\\")


def held(text: str, values: set[float], shares: set[float]) -> bool:
    plain = text.replace(",", "").rstrip("%").lstrip("+")
    digits = len(plain.partition("e")[0].partition(".")[2])
    if "e" in plain:
        return float(plain) in values
    scaled = {100 * value for value in shares}
    known = scaled if text.endswith("%") else values or scaled
    return any(f"{value:.{digits}f}" == plain for value in known)


def command(facts: dict) -> str:
    """The `distil run` command that makes this run again; addresses of one's own are left to be filled in."""
    profile = facts["run.json"]["profile"]
    metas = {name.partition("/")[0]: c for name, c in facts.items() if name == ASKED or name.endswith("meta.json")}
    run = next(iter(metas.values()))["run"]
    try:
        usual = effective(profile, run, []) if notebook_path(STAGES[0]).exists() else {}
    except ParameterError:
        usual = {}
    has = {stage: usual.get(stage) or meta["params"] for stage, meta in metas.items()}
    changed: dict[str, dict[str, object]] = {}
    for stage, meta in metas.items():
        for name, value in meta["params"].items():
            known = usual.get(stage, {name: None})  # what a stage found out itself is recorded, and cannot be set
            if name not in ("push", "repository", "base_name") and name in known and known[name] != value:
                changed.setdefault(name, {})[stage] = facts.get("base", value) if name == "student" else value
    words = [f"distil run --profile {profile} --run {run}"]
    for name, by_stage in changed.items():
        alike = len(set(map(str, by_stage.values()))) == 1
        if alike and list(by_stage) == [stage for stage, params in has.items() if name in params]:
            by_stage = {"": next(iter(by_stage.values()))}
        words += [f"--set {s + '.' if s else ''}{name}={public(name, value)}" for s, value in by_stage.items()]
    return " \\\n    ".join(words)


def roles_told(facts: dict) -> list[str]:
    """The roles of a run as its command tells them: a model's name may hold a number."""
    metas = [content for name, content in facts.items() if name.endswith("meta.json")]
    return [public(name, value) for meta in metas for name, value in meta["params"].items() if name in ROLES]


def public(name: str, value: object) -> str:
    """A parameter as strangers may read it, for a shell: no address of a server or file of one's own."""
    if name in ("endpoint", "engine") and "://" in str(value):
        return "URL"
    words = re.split(r"([,?&=@]|hub:)", str(value))
    text = "".join("FOLDER" if "/" in word and is_folder(word) and ".json" not in word else word for word in words)
    if name in ROLES:  # MODEL@URL
        return shlex.quote(re.sub(r"@https?://\S+", "@URL", text))
    return shlex.quote(re.sub(r"[^=?&]+(\.jsonl?)\b", r"FILE\1", text))
