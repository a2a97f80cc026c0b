"""Files that are written whole or not at all, and the JSON lines that a run leaves behind.

A run's lines have a `step`, by which a resumed run takes back those that it will make anew.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Replaces a file's content at once: a crash leaves the old file or the new, never a piece.

    Raises:
        OSError: it cannot be written; names the file.
    """
    with _replacing(Path(path)) as temporary:
        temporary.write_text(text, "utf-8")
    return Path(path)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Does what `write_text` does, with bytes.

    Raises:
        OSError: as `write_text`.
    """
    with _replacing(Path(path)) as temporary:
        temporary.write_bytes(content)
    return Path(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Lends a file beside the path, which takes its place in the end; it is nobody's to hear of."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as err:
        if err.errno is None:
            raise
        raise OSError(err.errno, err.strerror, str(path)) from err


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder and those above it, where they are not there.

    Raises:
        NotADirectoryError: one of them is a file; names it.
        OSError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except FileExistsError as err:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), err.filename) from err
    return Path(path)


def read_text(path: str | os.PathLike[str], *, encoding: str = "utf-8") -> str:
    """Reads a file of text.

    Raises:
        ValueError: it is no text; names the file.
        OSError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding)
    except UnicodeDecodeError as err:
        raise ValueError(
            f"{os.fspath(path)} must be text in UTF-8; byte {err.start} is none."
        ) from err


def write_json(path: str | os.PathLike[str], record: Any) -> Path:
    """Writes plain JSON types at once or not at all; NaN and infinity are refused (ValueError)."""
    return write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def finite(record: Any) -> Any:
    """Plain JSON types with None for what is not finite, as of a model that diverged."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def drop_records_after(path: Path, step: int) -> None:
    """Takes back the lines of a file that are of later steps, which a resumed run makes anew.

    A run that starts at step 0 takes back none: another run's file is set aside.
    """
    if not path.is_file():
        return
    if step == 0:
        path.replace(path.with_name(f"previous-{path.name}"))
        return
    kept: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        try:
            is_kept = json.loads(line)["step"] <= step
        except json.JSONDecodeError:  # the last line of a killed run
            is_kept = False
        if is_kept:
            kept.append(line + "\n")
    write_text(path, "".join(kept))


def read_records(path: str | Path) -> Sequence[dict[str, Any]]:
    """Reads a file's lines, but for a last one that a kill cut short.

    Raises:
        ValueError: a line is no object of JSON; names file and line.
    """
    *lines, rest = read_text(path).split("\n")
    records = [_record(path, number, line) for number, line in enumerate(lines, 1)]
    try:  # a line that lacks nothing but its end counts
        return [*records, _record(path, len(lines) + 1, rest)]
    except ValueError:
        return records


def _record(path: str | Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as err:
        raise ValueError(f"{path} is damaged: line {number} is not JSON ({err}).") from err
    if not isinstance(record, dict):
        raise ValueError(f"{path} is damaged: line {number} must be an object; got {line[:40]!r}.")
    return record
