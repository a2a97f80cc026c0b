"""Pictures: a run's figures as files for papers, drawn by matplotlib from the report's data.

In: a run. Out: `mixture`, `influence`, `audit` and `losses` as .png or .svg, those that the run has
data for.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tikmix_hf import plots
from tikmix_hf.report.run import Run

FORMATS = ("png", "svg")


def write_pictures(run: Run, folder: str | os.PathLike[str], *, kind: str) -> list[Path]:
    """Writes a run's pictures into a folder.

    Args:
        run: of `read_run`.
        folder: is made if it is not there.
        kind: "png" or "svg".

    Returns:
        The files.

    Raises:
        ValueError: another kind.
        ImportError: matplotlib is missing.
    """
    if kind not in FORMATS:
        raise ValueError(f"`kind` must be 'png' or 'svg'; got {kind!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return [*_mixture(run, folder / f"mixture.{kind}"),
               *_influence(run, folder / f"influence.{kind}"),
               *_audit(run, folder / f"audit.{kind}"),
               *_losses(run, folder / f"losses.{kind}")]  # fmt: skip


def _mixture(run: Run, path: Path) -> list[Path]:
    if run.schedule is None:
        return []
    segments = run.schedule.segments
    last = segments[-1].from_sample
    known = run.num_samples or 0
    plots.plot_mixture(
        [segment.from_sample for segment in segments],
        np.stack([segment.mixture for segment in segments]),
        run.schedule.domains,
        num_samples=known if known > last else max(round(last * 1.15), last + 1),
        path=path,
    )
    return [path]


def _influence(run: Run, path: Path) -> list[Path]:
    measured = [
        {
            "step": update.step,
            "targets": update.influence.targets,
            "domains": update.influence.domains,
            "values": update.influence.values,
            "mixture": update.mixture,
        }
        for update in run.updates
        if update.influence is not None
    ]
    if not measured:
        return []
    plots.plot_influence(measured, path)
    return [path]


def _audit(run: Run, path: Path) -> list[Path]:
    audits = [
        {"audit": {"predicted": update.audit.predicted, "realised": update.audit.realised}}
        for update in run.updates
        if update.audit is not None
        and len(update.audit.predicted) > 2
        and all(np.ptp(list(side.values())) > 0
                for side in (update.audit.predicted, update.audit.realised))
    ]  # fmt: skip
    if not audits:
        return []
    plots.plot_audit(audits, path)
    return [path]


def _losses(run: Run, path: Path) -> list[Path]:
    # The control comes first: the picture shows how far the others are from it.
    losses = {own.label: own.losses for own in reversed(run.results) if own.losses}
    if not losses or len({tuple(sorted(own)) for own in losses.values()}) > 1:
        return []
    plots.plot_target_losses(losses, path)
    return [path]
