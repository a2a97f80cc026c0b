"""Report: a run's folder as one HTML file, and as pictures for papers.

In: folders that runs left. Out: `write_report` writes the page, `write_pictures` PNG or SVG. Only
files are read: neither a model nor torch is needed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tikmix_hf.files import write_text
from tikmix_hf.report.page import page
from tikmix_hf.report.pictures import write_pictures
from tikmix_hf.report.run import Run, read_run

__all__ = ["Run", "read_run", "read_runs", "write_pictures", "write_report"]


def read_runs(folders: Sequence[str | os.PathLike[str]]) -> list[Run]:
    """Reads several runs, and gives those whose folders share a name longer ones.

    Raises:
        ValueError: a folder that is none, that holds nothing of a run, or that is given twice.
    """
    paths = [Path(folder) for folder in folders]
    whole = [path.resolve() for path in paths]
    twice = [path for path, place in zip(paths, whole, strict=True) if whole.count(place) > 1]
    if twice:
        raise ValueError(f"`RUN` must be different folders; {twice[0]} is given twice.")
    names = [place.name for place in whole]
    runs = []
    for place, (path, name) in enumerate(zip(paths, names, strict=True)):
        label = name if names.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        if label in [run.label for run in runs]:
            label = f"{label} ({place + 1})"
        runs.append(read_run(path, label))
    return runs


def write_report(runs: Sequence[Run], path: str | os.PathLike[str]) -> Path:
    """Writes the page, whole or not at all.

    Args:
        runs: of `read_runs`; several are compared.
        path: of the HTML file.

    Raises:
        ValueError: no runs.

    Example:
        write_report(read_runs(["runs/quickstart"]), "report.html")
    """
    return write_text(path, page(runs))
