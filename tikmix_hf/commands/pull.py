"""`tikmix pull`: a schedule of the Hub into a file.

In: the parsed options. Out: the file, and how to look at it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tikmix_hf.commands import schedules, screen
from tikmix_hf.schedule import MixtureSchedule


def run(options: argparse.Namespace) -> None:
    """Fetches.

    Raises:
        ValueError: the file is there already, the name is none, or what is fetched is no schedule.
        OSError: the Hub has no such repository, or cannot be reached.
    """
    path = Path(options.dest or f"{options.repo.rpartition('/')[2]}.json")
    if path.is_dir():
        raise ValueError(f"`FILE` must be a file; {path} is a folder.")
    if path.exists() and not options.force:
        raise ValueError(f"{path} is there already. Name another file, or overwrite it (--force).")
    with schedules.on_hub():
        schedule = MixtureSchedule.from_pretrained(options.repo, revision=options.revision)
    schedule.save(path)
    if options.json:
        screen.document({"repo": options.repo, "file": str(path)})
    else:
        screen.say(f"Written to {path}: tikmix show {path}")
