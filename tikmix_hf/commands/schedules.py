"""Schedules by name: a file, a run's folder, or a repository of the Hub.

In: the word of a command. Out: a `Found`: the schedule, where it came from, and what the run's
folder says of updates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tikmix_hf.files import read_records
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

    def updates(self) -> Sequence[dict[str, Any]]:
        """The records of the run's updates; none where nobody kept any.

        Raises:
            ValueError: the file is damaged.
        """
        path = None if self.folder is None else self.folder / RECORDS
        if path is None or not path.is_file():
            return ()
        try:
            return read_records(path)
        except json.JSONDecodeError as err:
            raise ValueError(f"{path} is damaged: {err}.") from err

    def num_samples(self) -> int | None:
        """Length of the run; None where nobody says."""
        known = self.schedule.run.num_samples
        if known is not None or self.folder is None or not (self.folder / METRICS).is_file():
            return known
        runs = json.loads((self.folder / METRICS).read_text("utf-8")).get("runs") or {}
        first = next(iter(runs.values()), {})
        return first.get("num_samples")


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
