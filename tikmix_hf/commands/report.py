"""`tikmix report`: one HTML file, and pictures if asked for.

In: the parsed options. Out: files, and a line on the screen for each.
"""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from tikmix_hf.commands import screen
from tikmix_hf.report import Run, read_runs, write_pictures, write_report

NAME = "report.html"


def run(options: argparse.Namespace) -> None:
    """Reads the runs, writes what was asked for.

    Raises:
        ValueError: a folder that is no run's, an output that is a folder.
        ImportError: matplotlib is missing, for pictures.
        OSError: a file cannot be read or written.
    """
    runs = read_runs(options.runs)
    path = Path(options.output) if options.output else Path(options.runs[0]) / NAME
    if path.is_dir():
        raise ValueError(f"`--output` must be a file, such as {path / NAME}; {path} is a folder.")
    write_report(runs, path)
    pictures = [
        picture
        for kind, folder in (("png", options.png), ("svg", options.svg))
        if folder is not None
        for picture in _draw(runs, Path(folder), kind)
    ]
    faults = [f"{own.label}: {fault}" for own in runs for fault in own.faults]
    if options.json:
        screen.document({"file": str(path), "pictures": pictures, "faults": faults})
    else:
        screen.say(f"{path} ({path.stat().st_size / 1e6:.1f} MB)", *pictures, *faults)
    if options.open:
        webbrowser.open(path.resolve().as_uri())


def _draw(runs: list[Run], folder: Path, kind: str) -> list[str]:
    """Each run's pictures; those of several in a folder each."""
    return [
        str(path)
        for place, own in enumerate(runs)
        for path in write_pictures(
            own,
            folder if len(runs) == 1 else folder / f"{place + 1}-{own.folder.resolve().name}",
            kind=kind,
        )
    ]
