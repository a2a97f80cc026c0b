"""The arena's picture: for each regime, every entry's difference to the control, and loss curves.

In: rows and runs of each regime. Out: a PNG file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from arena_statistics import CONTROL, Row, Runs, smoothed

from tikmix_hf import figures

SHOWN_CURVES = 8


def draw(rows: Mapping[str, list[Row]], runs: Mapping[str, Runs], path: Path) -> None:
    """Draws differences above and curves below, a column for each regime.

    Args:
        rows: regime to its entries, the lowest loss first.
        runs: regime to its runs.
        path: of the file.
    """
    most = max(map(len, rows.values()))
    figure = figures.new_figure(width=5.2 * len(rows), height=3.6 + 0.26 * most)
    axes = figure.subplots(2, len(rows), squeeze=False, height_ratios=[0.26 * most, 3.0])
    for column, (regime, own) in enumerate(rows.items()):
        above, below = axes[:, column]
        places = np.arange(len(own))
        halves = np.nan_to_num([row.gap.half for row in own])
        above.errorbar([row.gap.mean for row in own], places, xerr=halves, fmt="o", color="black")
        above.axvline(0, color="grey", linewidth=0.8)
        above.set_yticks(places, [row.entry for row in own])
        above.invert_yaxis()
        above.set_title(regime)
        above.set_xlabel(f"bits per byte, less {CONTROL}'s (95 % interval)")
        for k, entry in enumerate(_shown(own)):
            curves = [record["curve"] for record in runs[regime][entry].values()]
            losses = np.mean([smoothed(curve["mean_bits_per_byte"]) for curve in curves], axis=0)
            below.plot(curves[0]["tokens"], losses, label=entry, color=figures.colour(k))
        below.set_xlabel("tokens")
        below.set_ylabel("bits per byte, mean over targets")
        below.legend(fontsize="x-small")
    figures.save(figure, path)


def _shown(own: list[Row]) -> list[str]:
    """The control, and the best of the others."""
    others = [row.entry for row in own if row.entry != CONTROL]
    return [CONTROL, *others[: SHOWN_CURVES - 1]]
