"""Do tables and figures follow from the answers that are kept? All of it is worked out anew and compared."""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from distil.evaluate import metrics, recipes, settings
from distil.evaluate.answers import Verdicts, judged, key_of
from distil.evaluate.suites import measured
from distil.workspace import plots
from distil.workspace.bars import bar
from distil.workspace.errors import StageError
from distil.workspace.files import T, read_csv, read_jsonl, typed, write_jsonl
from distil.workspace.rows import Completion, Problem, Row
from distil.workspace.stage import run_folder


def recheck(folder: Path, students: Sequence[str]) -> list[str]:
    """What does not follow from the answers kept in a folder of 07, a line each; an empty list is good.

    Every answer is checked against its problem once more; tables, differences and the numbers behind the figures are
    made anew from them. Seconds are those that were stored. Raises StageError if a file is missing or damaged, or if
    the answers are programs and none can be run here.
    """
    asked = content(folder / settings.FILE)
    problems, seed, samples = rows(folder / "problems.jsonl", Problem), asked["seed"], asked["samples"]
    wrong, answers, known = [], {}, {}
    for name in bar(students, desc=f"answers in {folder.name}", unit="student"):
        file = folder / "completions" / f"{name}.jsonl"
        answers[name] = stored(file, problems, samples)
        wrong += [f"{file}: {text}" for text in judge_again(answers[name], problems, samples, known)]
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(folder / settings.FILE, Path(scratch, settings.FILE))  # results.md says what it says
        work_out(answers, problems, Path(scratch), seed=seed, samples=samples)
        for again in sorted(path for path in Path(scratch).iterdir() if path.suffix not in (".png", ".svg")):
            file = folder / again.name
            if not file.exists():
                wrong.append(f"{file}: is missing")
            elif numbers(again) != numbers(file):
                wrong.append(f"{file}: is not what the answers give")
    return wrong


def judge_again(
    answers: Sequence[Completion], problems: Sequence[Problem], samples: int, known: Verdicts | None = None
) -> list[str]:
    """Put into each kept answer what the verifiers find now; returns those that counted otherwise, a line each.

    `known` holds verdicts about these problems, which need not be found again, and is added to. Raises StageError if
    programs cannot be run here.
    """
    from distil.sandbox.confine import SandboxError

    try:
        verdicts = judged([row.text for row in answers], [p for p in problems for _ in range(samples)], known)
    except SandboxError as error:
        raise StageError(f"some answers are programs, which cannot be checked here: {error}") from None
    found = []
    for row, verdict in zip(answers, verdicts, strict=True):
        kept = row.answer, row.correct
        if kept != verdict:
            found.append(f"the answer to {row.id} was stored as {kept}, and is {verdict}")
        row.answer, row.correct = verdict
    return found


def remedy(run: str) -> str:
    """What to do where answers of a run count otherwise now: 07 judges again where problems or verifiers changed."""
    return f"`distil run --run {run} --from 07 --force`; what is named still was changed by hand: delete it, and again"


def numbers(file: Path) -> list:
    """What a file of 07 says, without the last digits of its numbers, which another machine may compute otherwise."""
    if file.suffix not in (".csv", ".jsonl"):
        return file.read_text(encoding="utf-8").splitlines()
    found = read_csv(file) if file.suffix == ".csv" else rows(file)
    return [{key: rounded(value) for key, value in row.items()} for row in found]


def rounded(value: object) -> object:
    try:
        return round(float(value), 9)
    except (TypeError, ValueError):
        return value


def there(file: Path) -> Path:
    """A file of rows, or the same compressed. Raises StageError if neither is there."""
    packed = file.with_name(file.name + ".gz")
    if not file.exists() and not packed.exists():
        raise StageError(f"{file} is missing: it was not kept, or 07 has not run; nothing can be worked out without it")
    return file if file.exists() else packed


def rows(file: Path, row_type: type[T] = dict) -> list[T]:
    """Rows of a JSON Lines file, which may be compressed (`.jsonl.gz`), dictionaries or objects of `row_type`.

    Raises StageError if it is not there whole.
    """
    found = there(file)
    if found == file:
        return read_jsonl(file, row_type)
    try:
        lines = [json.loads(line) for line in gzip.decompress(found.read_bytes()).decode().split("\n") if line]
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise StageError(f"{found} is damaged ({error}): fetch it anew") from None
    return [typed(line, row_type, str(found)) for line in lines] if issubclass(row_type, Row) else lines


def content(file: Path) -> dict:
    """A JSON file. Raises StageError if it is missing or damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StageError(f"{file} is missing: run its stage again, or fetch the file anew") from None
    except ValueError as error:
        raise StageError(f"{file} is damaged ({error}): fetch it anew") from None


def stored(file: Path, problems: Sequence[Problem], samples: int) -> list[Completion]:
    """The rows of a file of completions in the order in which 07 reads them. Raises StageError if one is missing."""
    found = {key_of(row): row for row in rows(file, Completion)}
    wanted = [(problem.id, sample) for problem in problems for sample in range(samples)]
    if missing := [key for key in wanted if key not in found]:
        raise StageError(
            f"{file}: {len(missing)} answers are missing, the first to {missing[0][0]}: run 07_eval again, or fetch "
            "the file anew"
        )
    return [found[key] for key in wanted]


def work_out(
    answers: dict[str, list[Completion]], problems: list[Problem], out: Path, *, seed: int, samples: int
) -> None:
    """The tables and figures that 07 makes of answers, which are given by checkpoint."""
    results, each = metrics.results(answers, seed), metrics.by_checkpoint(answers, seed)
    together = recipes.pooled(answers)
    metrics.write_results(results, each, out)
    write_jsonl(out / "differences.jsonl", metrics.differences(answers, seed))
    plots.accuracy_tokens(results, each, out / "accuracy_tokens")
    plots.answer_tokens(together, out / "tokens")
    plots.difficulty(metrics.by_difficulty(together, problems), out / "difficulty")
    if samples > 1:
        plots.pass_at_k(metrics.curves(answers, seed), out / "pass_at_k")


def headless() -> None:
    """Figures are made to be compared, and shown nowhere."""
    import warnings

    import matplotlib

    matplotlib.use("Agg")
    warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")


def verify(run: str) -> int:
    """The command `distil verify`: say what does not follow. Returns 0 if everything does, else 1."""
    meta = run_folder(run) / "07_eval" / "meta.json"
    if not meta.exists():
        raise StageError(f"{meta} is missing: run 07_eval for run {run!r} first")
    headless()
    wrong = recheck(measured(run), content(meta)["params"]["students"].split(","))
    if wrong:
        wrong.append(f"what to do: {remedy(run)}")
    print("\n".join(wrong) or f"run {run!r}: every table and figure of 07 follows from the answers kept")
    return int(bool(wrong))
