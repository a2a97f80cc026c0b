"""`tikmix plot`: a schedule or a run as a picture.

In: the parsed options. Out: a PNG, SVG or PDF file, as its suffix says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tikmix_hf import plots
from tikmix_hf.commands import schedules, screen
from tikmix_hf.commands.schedules import Found
from tikmix_hf.files import make_folder
from tikmix_hf.report.records import Update
from tikmix_hf.schedule import Segment

SUFFIXES = (".png", ".svg", ".pdf")


def run(options: argparse.Namespace) -> None:
    """Draws.

    Raises:
        ValueError: another suffix, nothing to draw, a run of unknown length, and as
            `schedules.find`.
        ImportError: matplotlib is missing.
        OSError: as `schedules.find`.
    """
    path = Path(options.output or f"{options.what}.png")
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"`--output` must end in {', '.join(SUFFIXES)}; got {options.output!r}, and the "
            "suffix says what to write."
        )
    if options.num_samples is not None and options.num_samples < 1:
        raise ValueError(f"`--num_samples` must be at least 1; got {options.num_samples}.")
    found = schedules.find(options.schedule, revision=options.revision)
    draw = {"mixture": _mixture, "influence": _influence, "audit": _audit}[options.what]
    draw(found, options.num_samples, path)
    if options.json:
        screen.document({"file": str(path)})
    else:
        screen.say(f"Written to {path}")


def _mixture(found: Found, num_samples: int | None, path: Path) -> None:
    length = found.num_samples() if num_samples is None else num_samples
    if length is None:
        raise ValueError(f"{found.origin} does not say how long its run is. Give --num_samples N.")
    segments = [s for s in found.schedule.segments if s.from_sample < length]
    make_folder(path.parent)
    plots.plot_mixture(
        [segment.from_sample for segment in segments],
        np.stack([segment.mixture for segment in segments]),
        found.schedule.domains,
        num_samples=length,
        path=path,
    )


def _influence(found: Found, _: int | None, path: Path) -> None:
    measured = _of_updates(found.updates()) or _of_segments(found)
    if not measured:
        raise ValueError(
            f"{found.origin} has no update that measured influence, neither in its schedule nor "
            f"in a run's {schedules.RECORDS}."
        )
    make_folder(path.parent)
    plots.plot_influence(measured, path)


def _of_updates(updates: Sequence[Update]) -> list[dict[str, Any]]:
    """What a run's updates measured, as `plots.plot_influence` takes it."""
    return [
        {
            "step": update.step,
            "mixture": update.mixture,
            "targets": update.influence.targets,
            "domains": update.influence.domains,
            "values": update.influence.values,
        }
        for update in updates
        if update.influence is not None
    ]


def _of_segments(found: Found) -> list[dict[str, Any]]:
    """The same of a schedule's own records, of updates that changed the mixture alone."""
    drawn, before_K = [], None
    for segment in found.schedule.segments:
        if segment.update.get("influence") is not None:
            drawn.append(_of_segment(found, segment, before_K))
        before_K = segment.mixture
    # A colour means the same in every panel, and nobody knows what was before the first segment.
    if any(record["mixture"] is None for record in drawn):
        drawn = [{**record, "mixture": None} for record in drawn]
    return drawn


def _of_segment(found: Found, segment: Segment, before_K: Any) -> dict[str, Any]:
    """The measurement that chose a segment, relative to the mixture before it, (K,)."""
    influence = segment.update["influence"]
    shares = {} if before_K is None else dict(zip(found.schedule.domains, before_K, strict=True))
    # Operations on schedules rename domains, and leave records as they were.
    is_known = set(influence["domains"]) <= set(shares)
    return {
        "step": segment.update.get("step", 0),
        "mixture": shares if is_known else None,
        **{key: influence[key] for key in ("targets", "domains", "values")},
    }


def _audit(found: Found, _: int | None, path: Path) -> None:
    updates = found.updates()
    audits = [update.audit for update in updates if update.audit is not None]
    if not audits:
        mend = (
            "An audit compares a measurement with the one before it, so it takes two."
            if updates
            else f"Name the folder of a run, with its {schedules.RECORDS}."
        )
        raise ValueError(f"{found.origin} has no update that was audited. {mend}")
    make_folder(path.parent)
    plots.plot_audit(
        [{"audit": {"predicted": one.predicted, "realised": one.realised}} for one in audits], path
    )
