"""Where a benchmark's rows come from: a folder of JSON lines, the Hub, or the Hub's cache.

In: a task and perhaps a data folder. Out: `datasets.Dataset`s by split, or None where lm-eval is to
ask the Hub (or its cache, offline) as it always does. A folder holds one folder for each benchmark,
with a file for each split and the Hub's field names:

    arc_easy/train.jsonl.gz  arc_easy/validation.jsonl.gz  arc_easy/test.jsonl.gz

`validation_1000.jsonl` counts as validation: the name may say which part of a split it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.exceptions import DatasetGenerationError

SPLITS = ("train", "validation", "test", "dev")
ENDINGS = (".jsonl", ".jsonl.gz")


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """A benchmark's rows, read from files."""

    splits: Mapping[str, datasets.Dataset]
    """By name."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Split to `name, rows, SHA-256 of the file`, which results carry."""

    def subset(self, column: str, value: str) -> Benchmark:
        """The rows whose `column` is `value`.

        Raises:
            ValueError: there is no such column, or no such row.
        """
        kept = {}
        for split, rows in self.splits.items():
            if column not in rows.column_names:
                raise ValueError(
                    f"{self.files[split]} must have the column {column!r}; it has "
                    f"{', '.join(rows.column_names)}. Add it, or set another `subset_column`."
                )
            mine = np.flatnonzero(np.asarray(rows[column][:]) == value)
            if not len(mine):
                raise ValueError(
                    f"{self.files[split]} must have rows with {column} {value!r}; it has none. Add "
                    "them, or leave the task out of the suite."
                )
            kept[split] = rows.select(mine)
        return Benchmark(splits=kept, files=self.files)


def read_folder(root: str | Path, folder: str) -> Benchmark:
    """Reads the splits that a benchmark's folder has.

    Args:
        root: the data folder.
        folder: the benchmark's, below it.

    Raises:
        FileNotFoundError: there is no such folder, or no split in it; says what to put where.
        ValueError: two files for one split, or one that is no JSON lines.
    """
    place = Path(root) / folder
    files = {split: found for split in SPLITS if (found := _file(place, split)) is not None}
    if not files:
        raise FileNotFoundError(
            f"{place} has no rows. Put {', '.join(f'{s}.jsonl' for s in SPLITS[:3])} (or .jsonl.gz)"
            " there, with the field names that the benchmark has on the Hub."
        )
    splits = {split: _read(path) for split, path in files.items()}
    return Benchmark(
        splits=splits,
        files={split: _describe(path, splits[split]) for split, path in files.items()},
    )


def _file(place: Path, split: str) -> Path | None:
    found = sorted(
        path
        for path in place.glob(f"{split}*")
        if path.name.endswith(ENDINGS) and _stem(path) in (split, *_parts(path, split))
    )
    if len(found) > 1:
        raise ValueError(
            f"{place} must have one file of the split {split}; got "
            f"{', '.join(path.name for path in found)}. Remove all but one."
        )
    return found[0] if found else None


def _stem(path: Path) -> str:
    return path.name.split(".")[0]


def _parts(path: Path, split: str) -> tuple[str, ...]:
    """`validation_1000` is a part of `validation`."""
    stem = _stem(path)
    return (stem,) if stem.startswith(f"{split}_") else ()


def _read(path: Path) -> datasets.Dataset:
    try:
        read = datasets.load_dataset("json", data_files=str(path), split="train")
    # `datasets` says StopIteration of an empty file, and EOFError of half a compressed one.
    except (DatasetGenerationError, EOFError, StopIteration) as err:
        reason = " ".join(str(err.__cause__ or err).split()) or "it is empty"
        raise ValueError(f"{path} must be JSON lines; {reason}.") from err
    assert isinstance(read, datasets.Dataset)
    return read


def _describe(path: Path, rows: datasets.Dataset) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{path.parent.name}/{path.name}, {len(rows):,} rows, sha256 {digest[:16]}"


def hub_error(err: Exception, config: Mapping[str, Any], folder: str) -> FileNotFoundError:
    """What to say where the Hub did not give a benchmark."""
    return FileNotFoundError(
        f"{config.get('dataset_path')} could not be had from the Hub or its cache "
        f"({type(err).__name__}: {str(err).splitlines()[0]}). Offline, put its rows into "
        f"DATA_DIR/{folder}/ as train.jsonl, validation.jsonl, test.jsonl and pass `data_dir`."
    )
