"""What goes into a checkpoint and what may come out of it.

In: the callback's state, a folder of checkpoints. Out: a sealed record whose damage shows, and the
last checkpoint that was written to its end. The Trainer writes `trainer_state.json` last but does
not check it; a process killed while saving leaves a folder that looks like a checkpoint. After each
save the callback adds a list of the files and their sizes: a folder without it, or that does not
match it, is partial.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tikmix_hf.files import write_json

logger = logging.getLogger(__name__)

MANIFEST = "tikmix_manifest.json"


def seal(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON-able record as it will come back from JSON, with a checksum."""
    return {**json.loads(json.dumps(record)), "checksum": _checksum(record)}


def unseal(record: Any, *, origin: str) -> dict[str, Any]:
    """Returns a sealed record without its checksum.

    Raises:
        ValueError: the record is no sealed record, or not what was sealed; names `origin`.
    """
    if not isinstance(record, Mapping) or "checksum" not in record:
        raise ValueError(
            f"The state of TikMixCallback in {origin} is truncated: it has no checksum. Resume "
            "from an earlier checkpoint."
        )
    content = {name: value for name, value in record.items() if name != "checksum"}
    if _checksum(content) != record["checksum"]:
        raise ValueError(
            f"The state of TikMixCallback in {origin} is corrupt: its checksum does not match. "
            "Resume from an earlier checkpoint."
        )
    return content


def _checksum(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def check_same(what: str, theirs: Any, mine: Mapping[str, Any], *, origin: str) -> None:
    """Compares what a checkpoint was made with to what this run has, entry by entry.

    Raises:
        ValueError: an entry differs; names it, both values and the mend.
    """
    for name, value in mine.items():
        other = theirs.get(name) if isinstance(theirs, Mapping) else None
        if other != value:
            raise ValueError(
                f"`{name}` must be what {origin} was made with; the checkpoint has {other!r}, this "
                f"run {value!r} ({what}). Exact resume needs the same; to train on from these "
                "weights in another way, start a new run from the model."
            )


def mark_complete(folder: str | os.PathLike[str]) -> None:
    """Lists the files of a checkpoint and their sizes, once all of them are written."""
    folder = Path(folder)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    write_json(folder / MANIFEST, {"files": sizes})


def what_is_missing(folder: str | os.PathLike[str]) -> str | None:
    """Returns in words what makes a checkpoint partial, or None if it is complete."""
    folder = Path(folder)
    if not (folder / "trainer_state.json").is_file():
        return "it has no trainer_state.json: the run ended while saving it"
    if not (folder / MANIFEST).is_file():
        return f"it has no {MANIFEST}: the run ended while saving it, or ran without TikMixCallback"
    try:
        sizes = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return f"its {MANIFEST} is damaged"
    for name, size in sizes.items():
        path = folder / name
        if not path.is_file():
            return f"it has lost {name}"
        if path.stat().st_size != size:
            return f"its {name} has {path.stat().st_size:,} bytes of {size:,}"
    return None


def warn_of_partial_checkpoint(output_dir: str | os.PathLike[str]) -> None:
    """Names the newest checkpoint if it is one that the Trainer could not resume from."""
    folders = _checkpoints(Path(output_dir))
    if folders and not (folders[0] / "trainer_state.json").is_file():
        logger.warning(
            "%s is a partial checkpoint: %s. To resume, pass last_complete_checkpoint(%r) to "
            "train(resume_from_checkpoint=...).",
            folders[0],
            what_is_missing(folders[0]),
            str(output_dir),
        )


def last_complete_checkpoint(output_dir: str | os.PathLike[str]) -> str | None:
    """Returns the newest checkpoint that was written to its end, or None.

    Partial ones that are newer are named in a warning. Pass the result to
    `trainer.train(resume_from_checkpoint=...)`.
    """
    for folder in _checkpoints(Path(output_dir)):
        missing = what_is_missing(folder)
        if missing is None:
            return str(folder)
        logger.warning("%s is a partial checkpoint and is passed over: %s.", folder, missing)
    return None


def _checkpoints(output_dir: Path) -> list[Path]:
    """Folders of checkpoints, the newest first."""
    if not output_dir.is_dir():
        return []
    folders = [
        (int(match[1]), path)
        for path in output_dir.iterdir()
        if path.is_dir() and (match := re.fullmatch(r"checkpoint-(\d+)", path.name))
    ]
    return [path for _, path in sorted(folders, reverse=True)]
