"""`tikmix plot`: a schedule or a run as a picture.

In: the parsed options. Out: a PNG, SVG or PDF file, as its suffix says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tikmix_hf import plots
from tikmix_hf.commands import schedules, screen
from tikmix_hf.commands.schedules import Found

SUFFIXES = (".png", ".svg", ".pdf")


def run(options: argparse.Namespace) -> None:
    """Draws.

    Raises:
        ValueError: another suffix, nothing to draw, a run of unknown length, and as
            `schedules.find`.
        ImportError: matplotlib is missing.
        OSError: as `schedules.find`.
    """
    path = Path(options.output)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"`--output` must end in {', '.join(SUFFIXES)}; got {options.output!r}, and the "
            "suffix says what to write."
        )
    found = schedules.find(options.schedule, revision=options.revision)
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.what == "mixture":
        _mixture(found, options.num_samples, path)
    elif options.what == "influence":
        _influence(found, path)
    else:
        _audit(found, path)
    if options.json:
        screen.document({"file": str(path)})
    else:
        screen.say(f"Written to {path}")


def _mixture(found: Found, num_samples: int | None, path: Path) -> None:
    length = found.num_samples() if num_samples is None else num_samples
    if length is None:
        raise ValueError(f"{found.origin} does not say how long its run is. Give --num_samples N.")
    segments = [s for s in found.schedule.segments if s.from_sample < length]
    plots.plot_mixture(
        [segment.from_sample for segment in segments],
        np.stack([segment.mixture for segment in segments]),
        found.schedule.domains,
        num_samples=length,
        path=path,
    )


def _influence(found: Found, path: Path) -> None:
    measured = [record for record in found.updates() if record["influence"]]
    if not measured:
        raise ValueError(_nothing(found, "measured"))
    plots.plot_influence(
        [
            {**record["influence"], "step": record["step"], "mixture": record["mixture"]}
            for record in measured
        ],
        path,
    )


def _audit(found: Found, path: Path) -> None:
    audited = [record for record in found.updates() if record["audit"]]
    if not audited:
        raise ValueError(_nothing(found, "audited"))
    plots.plot_audit(audited, path)


def _nothing(found: Found, done: str) -> str:
    return (
        f"{found.origin} has no update that {done} anything. Name the folder of a run, with its "
        f"{schedules.RECORDS}."
    )
