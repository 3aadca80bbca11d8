"""Does the kept run hold together? Every file is the one that was kept, and says what the kept answers give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.reference_run import claim
from distil.evaluate import recheck
from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.files import csv_text, sha256
from distil.workspace.stage import KEPT

FILES = "files.json"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a kept run but the list of them itself."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILES)
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def changed(folder: Path) -> list[str]:
    """Files that are missing, were changed, or came to it, a line each. Raises StageError without the list of them."""
    listed, found = recheck.content(folder / FILES), digests(folder)
    wrong = [f"{folder / name}: is missing" for name in listed if name not in found]
    wrong += [f"{folder / name}: was changed" for name in listed if found.get(name, listed[name]) != listed[name]]
    return wrong + [f"{folder / name}: nobody kept this" for name in found if name not in listed]


def worked_out(folder: Path) -> list[str]:
    """What of tables, differences, figures, costs and claim does not follow from the kept answers, a line each."""
    wrong = []

    def attempt(work: Callable[[], list[str]]) -> None:
        try:
            wrong.extend(work())
        except StageError as error:
            wrong.append(str(error))
        except (LookupError, TypeError, ValueError) as error:  # a file was changed so that nothing can be made of it
            wrong.append(f"{folder}: a file does not hold what it should ({type(error).__name__}: {error})")

    def same(name: str, text: Callable[[], str]) -> list[str]:
        file = folder / name
        follows = file.exists() and file.read_text(encoding="utf-8").splitlines() == text().splitlines()
        return [] if follows else [f"{file}: is not what the kept files give"]

    for place in claim.measurements(folder):
        attempt(lambda place=place: recheck.recheck(place, claim.students(place)))
    attempt(lambda: same("costs.csv", lambda: csv_text(claim.costs(folder), claim.COSTS)))
    attempt(lambda: same("claim.json", lambda: claim.claim_text(claim.claim(folder))))
    return wrong


def verify(where: str | None) -> int:
    """The command `distil verify-reference`: say what does not hold, or the claim. Returns 0 if all holds, else 1.

    Raises StageError if there is no kept run in `where`.
    """
    folder = Path(where) if where else root() / "artifacts" / KEPT
    if not (folder / FILES).exists():
        raise StageError(
            f"{folder} holds no kept run: it is part of the repository, not of the installed package. Clone the "
            f"repository and give the command there, or name its folder: distil verify-reference PATH/artifacts/{KEPT}"
        )
    recheck.headless()
    wrong = [*changed(folder), *worked_out(folder)]
    if wrong:
        print("\n".join(wrong))
        print("what to do: fetch the folder anew (in a clone: git restore); if that mends nothing, report these lines")
        return 1
    print(f"{folder}: every table, figure and claim follows from the answers kept")
    print("\n".join(claim.sentences(recheck.content(folder / "claim.json"))))
    return 0
