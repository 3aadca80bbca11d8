"""Files: JSON Lines, CSV and text, written whole or not at all, and digests of what they hold."""

from __future__ import annotations

import codecs
import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

from filelock import FileLock

from distil.workspace.environment import root
from distil.workspace.errors import StageError
from distil.workspace.rows import Row, as_plain

T = TypeVar("T")
R = TypeVar("R", bound=Row)
APPEND_POLL_SECONDS = 0.005  # between two tries to get the lock of a file
REPLACE_TRIES, REPLACE_POLL_SECONDS = 20, 0.05  # to put a file into the place of one that is being read
LARGE = 2**24  # bytes; a larger file is read once in a process: the weights of a 7B have 15 GB


def digest(*parts: object) -> str:
    """A short digest of what a result depends on: anything that JSON can say."""
    return hashlib.sha256(json.dumps(parts, default=as_plain).encode()).hexdigest()[:16]


def local(name: str) -> Path | None:
    """The file or folder here that a parameter names, below the project or the working folder if it is relative."""
    path = Path(name).expanduser()
    return next((found for found in (root() / path, path.absolute()) if name and found.exists()), None)


def sha256(path: Path) -> str:
    """Hex digest of a file, or of every file of a folder (names and contents).

    Checkpoints, hidden files and locks below the folder are left out.
    """
    digest = hashlib.sha256()
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    for file in sorted(files, key=lambda file: file.relative_to(path).parts):  # in the same order on every system
        inside = file.relative_to(path)
        if any(part.startswith((".", "checkpoint-")) or part == "checkpoints" for part in inside.parts):
            continue
        if inside.name.endswith(".lock"):
            continue
        if path.is_dir():
            digest.update(inside.as_posix().encode())
        about = file.stat()
        read = content_digest if about.st_size > LARGE else content_digest.__wrapped__
        digest.update(read(file, about.st_ino, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def content_digest(file: Path, inode: int, size: int, changed: int) -> bytes:
    """SHA-256 of what a file holds. It is another question once the file has another inode, size or time of change."""
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").digest()


def read_jsonl(path: Path, row_type: type[T] = dict) -> list[T]:
    """Rows of a JSON Lines file, dictionaries or objects of `row_type`.

    A torn last line (a killed writer's) is dropped. Any other bad line raises StageError, and so does one that lacks a
    field of `row_type`.
    """
    rows = []
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline after it: the write was cut off
                break
            raise StageError(f"{path}, line {number}: not JSON ({error.msg}); repair or delete the line") from None
        rows.append(typed(row, row_type, f"{path}, line {number}") if issubclass(row_type, Row) else row)
    return rows


def read_user_text(path: Path) -> str:
    """The text of a user's file, in UTF-8 or, where its byte order mark says so, in UTF-16. Lines end with \\n.

    Raises StageError, naming the line, for another encoding.
    """
    raw = path.read_bytes()
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise StageError(
            f"{path}, line {line}: not {'UTF-16' if wide else 'UTF-8'} (byte {raw[error.start]:#04x}). Save it as "
            "UTF-8, for instance with `iconv -f GB18030 -t UTF-8`, and give the command again"
        ) from None


def read_table(path: Path) -> list[tuple[int, dict]]:
    """(line or place, row) of a user's file: objects one a line (JSON Lines), or one JSON list of objects.

    U+2028 and U+0085 end no line. Raises StageError, naming the line, for a file that is not there, is not text
    (`read_user_text`), is neither of the two, or holds no row.
    """
    if not path.is_file():
        raise StageError(f"{path}: " + ("a folder, and a file is wanted" if path.is_dir() else "no such file"))
    text = read_user_text(path)
    if text.lstrip().startswith("["):
        rows = list(enumerate(parsed(text, str(path)), 1))
    else:
        lines = enumerate(text.split("\n"), 1)
        rows = [(number, parsed(line, f"{path}, line {number}")) for number, line in lines if line.strip()]
    for number, row in rows:
        if not isinstance(row, dict):
            raise StageError(f"{path}, row {number}: a row is a JSON object, not {type(row).__name__}")
    if not rows:
        raise StageError(f"{path}: holds no row")
    return rows


def parsed(text: str, where: str) -> object:
    """A JSON value. Raises StageError, saying `where`."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise StageError(f"{where}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise StageError(f"{where}: {error}; write such a number as a text") from None


def typed(row: object, row_type: type[R], where: str) -> R:
    """A line of a file as a row. Raises StageError, saying `where` and what is missing, if it cannot be one."""
    try:
        return row_type.from_dict(row)
    except (TypeError, AttributeError, KeyError) as error:
        raise StageError(
            f"{where}: no {row_type.__name__} ({error}). Was it written by another version or changed by hand? Run the "
            "stage that writes it again, or repair the line"
        ) from None


def write_jsonl(path: Path, rows: Iterable[dict | Row]) -> None:
    """Write rows whole or not at all."""
    write_text(path, "".join(json.dumps(as_plain(row), ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: UTF-8, lines ended as `text` has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", newline="") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    for _ in range(REPLACE_TRIES):
        try:
            return os.replace(temporary, path)
        except PermissionError:  # on Windows while somebody else has the file open
            time.sleep(REPLACE_POLL_SECONDS)
    os.replace(temporary, path)


def read_csv(path: Path) -> list[dict]:
    """Rows of a CSV file, numbers as numbers; an empty field is None. Raises StageError if it is damaged."""
    import pandas

    try:
        frame = pandas.read_csv(path, keep_default_na=False, na_values=["", "nan"], dtype_backend="numpy_nullable")
    except ValueError as error:
        raise StageError(f"{path} is damaged ({error}): make or fetch it anew") from None
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def csv_text(rows: Iterable[dict | Sequence[object]], columns: Sequence[str]) -> str:
    """A CSV file of these columns; None and NaN are empty fields. Lines end as RFC 4180 has it."""
    import pandas

    return pandas.DataFrame(list(rows), columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\r\n")


def write_csv(path: Path, rows: Iterable[dict | Sequence[object]], columns: Sequence[str]) -> None:
    """Write a CSV file whole or not at all."""
    write_text(path, csv_text(rows, columns))


@lru_cache(maxsize=64)
def lock_of(path: Path) -> FileLock:
    """The lock of a file that is appended to. It is kept: to make one takes as long as to write an answer."""
    return FileLock(f"{path}.lock", poll_interval=APPEND_POLL_SECONDS)


@contextmanager
def appending(path: Path) -> Iterator[BinaryIO]:
    """Open a file of lines for appending, by one process at a time.

    A torn last line, which a killed writer left, is cut off first. If a write fails, as on a full disk, the file is
    left as it was found.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path), open(path, "ab+", buffering=0) as handle:
        end = handle.seek(0, os.SEEK_END)
        if end:
            handle.seek(end - 1)
            if handle.read(1) != b"\n":
                handle.seek(0)
                end = handle.read().rfind(b"\n") + 1
                handle.truncate(end)
        try:
            yield handle
        except OSError:
            handle.truncate(end)
            raise


def write_all(handle: BinaryIO, data: bytes) -> None:
    """Write all of `data` to an unbuffered file, which may take it in pieces."""
    written = 0
    while written < len(data):
        written += os.write(handle.fileno(), data[written:])


def append_jsonl(path: Path, rows: Iterable[dict | Row]) -> None:
    """Append rows to a JSON Lines file, after mending a torn last line."""
    text = "".join(json.dumps(as_plain(row), ensure_ascii=False) + "\n" for row in rows)
    with appending(path) as handle:
        write_all(handle, text.encode())
