"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import os
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
