"""Schedules by name: a file, a run's folder, or a repository of the Hub.

In: the word of a command. Out: a `Found`: the schedule, where it came from, and what the run's
folder says of updates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tikmix_hf.commands.words import read_json
from tikmix_hf.files import read_records, read_text
from tikmix_hf.report import records
from tikmix_hf.report.records import Update
from tikmix_hf.schedule import MixtureSchedule

# As runs and as repositories of the Hub name it.
FILES = ("schedule.json", "mixture_schedule.json")
RECORDS, METRICS = "influence.jsonl", "metrics.json"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Found(NamedTuple):
    """A schedule, and whose it is."""

    schedule: MixtureSchedule
    origin: str
    """The word that found it."""
    folder: Path | None
    """Of the run; None where there is only the schedule."""

    def updates(self) -> Sequence[Update]:
        """The run's updates; none where nobody kept any.

        Raises:
            ValueError: the file is damaged; names it and the line.
        """
        path = None if self.folder is None else self.folder / RECORDS
        if path is None or not path.is_file():
            return ()
        return [_update(path, i, record) for i, record in enumerate(read_records(path), 1)]

    def num_samples(self) -> int | None:
        """Length of the run; None where nobody says.

        Raises:
            ValueError: the run's metrics are damaged; names the file.
        """
        known = self.schedule.run.num_samples
        if known is not None or self.folder is None or not (self.folder / METRICS).is_file():
            return known
        return _length(self.folder / METRICS)


def _update(path: Path, number: int, record: Any) -> Update:
    try:
        return records.update(record)
    except (ValueError, TypeError) as err:
        raise ValueError(f"{path} is damaged: line {number}: {err}.") from err


def _length(path: Path) -> int | None:
    """Samples of the first run in a file of metrics."""
    content = read_json(METRICS, read_text(path), origin=f"{path}: ")
    runs = content.get("runs") or {}
    first = next(iter(runs.values()), {}) if isinstance(runs, dict) else None
    if not isinstance(first, dict):
        raise ValueError(f"{path}: `runs` must hold results by name; got {str(runs)[:40]!r}.")
    length = first.get("num_samples")
    if length is not None and (type(length) is not int or length < 1):
        raise ValueError(
            f"{path}: `num_samples` must be a whole number, at least 1; got {str(length)[:40]!r}."
        )
    return length


def find(word: str, *, revision: str | None = None) -> Found:
    """Reads a schedule.

    Args:
        word: a schedule's file, a run's folder, or user/name of the Hub.
        revision: of the Hub alone.

    Raises:
        ValueError: it is none of these, or the file is no schedule.
        OSError: the Hub has no such repository, or cannot be reached.
    """
    path = Path(word)
    if not path.exists() and _REPO.fullmatch(word) and path.suffix != ".json":
        return Found(_from_hub(word, revision), word, None)
    if revision is not None:
        raise ValueError(f"`--revision` is of the Hub; {word} is a file or folder here.")
    return local(word)


def local(word: str) -> Found:
    """Reads a schedule of this machine.

    Raises:
        ValueError: the folder has none, or the file is none.
        FileNotFoundError: there is no such file.
    """
    path = Path(word)
    if not path.is_dir():
        return Found(MixtureSchedule.load(path), word, None)
    for name in FILES:
        if (path / name).is_file():
            return Found(MixtureSchedule.load(path / name), word, path)
    near = sorted(str(one) for one in path.glob("schedule*.json"))
    mend = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"the folder {word} has no {' or '.join(FILES)}.{mend}")


def _from_hub(repo: str, revision: str | None) -> MixtureSchedule:
    try:
        return MixtureSchedule.from_pretrained(repo, revision=revision)
    except OSError as err:
        raise OSError(f"there is no file or folder {repo} here, and on the Hub: {err}") from err


@contextmanager
def on_hub() -> Iterator[None]:
    """Tells what the Hub has not got, which is a failure, from a file that is not here.

    Raises:
        OSError: instead of FileNotFoundError, which is one too.
    """
    try:
        yield
    except FileNotFoundError as err:
        raise OSError(str(err)) from err
