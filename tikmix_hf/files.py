"""Files that are written whole or not at all, and the JSON lines that a run leaves behind.

A run's lines have a `step`, by which a resumed run takes back those that it will make anew.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Replaces a file's content at once: a crash leaves the old file or the new, never a piece."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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
    """Reads a file's lines, but for one that a kill cut short."""
    lines = Path(path).read_text("utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
