"""Tables and a picture of how well influence predicts what training does.

In: one row of scores per checkpoint, predictor, kind of runs and horizon. Out: rows of tables that
average over checkpoints and seeds, and a PNG.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fidelity_scores import SCORES, mean_and_error

from tikmix_hf.plots import MARKERS, PALETTE

AGAIN = "real training again"
"""The predictor that is a repetition of the real runs: a test-retest correlation."""
BASELINE = "sign"
DEFAULT = "kfac"
KINDS = ("domains", "mixtures")

Row = Mapping[str, Any]


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line per predictor, kind of runs and horizon: means over checkpoints and seeds."""
    lines = []
    for predictor, kind, horizon in _keys(rows, "predictor", "runs", "steps"):
        own = _matching(rows, predictor=predictor, runs=kind, steps=horizon)
        line: dict[str, Any] = {"predictor": predictor, "runs": kind, "steps": horizon}
        line["checkpoints"] = len(own)
        line["pearson"] = _with_error([row["pearson"] for row in own])
        line[f"less {BASELINE}"] = _with_error(_leads(rows, own))
        repeats = [row["repeats"] for row in own if row["repeats"] is not None]
        line["repeats"] = f"{np.mean(repeats):.2f}" if repeats else None
        for score in SCORES[1:]:
            line[score] = f"{np.mean([row[score] for row in own]):.2f}"
        lines.append(line)
    return lines


def by_checkpoint(rows: Sequence[Row], steps: int) -> list[dict[str, Any]]:
    """One line per predictor and checkpoint: Pearson within targets, mean over seeds."""
    lines = []
    for checkpoint, predictor in _keys(rows, "checkpoint", "predictor"):
        own = _matching(rows, checkpoint=checkpoint, predictor=predictor, steps=steps)
        line: dict[str, Any] = {"checkpoint": checkpoint, "predictor": predictor}
        for kind in KINDS:
            scores = [row["pearson"] for row in _matching(own, runs=kind)]
            line[kind] = _with_error(scores)
            line[f"{kind} by seed"] = " ".join(f"{score:.2f}" for score in scores)
        lines.append(line)
    return lines


def of_variants(rows: Sequence[Row], usual: str) -> list[dict[str, Any]]:
    """One line per way to measure: Pearson within targets, and its lead over the usual way."""
    lines = []
    for (variant,) in _keys(rows, "predictor"):
        own = _matching(rows, predictor=variant)
        line: dict[str, Any] = {
            "measured": variant,
            "rows": own[0]["rows"],
            "checkpoints": len({(row["checkpoint"], row["seed"]) for row in own}),
            "agrees with default": f"{np.mean([row['agreement'] for row in own]):.2f}",
        }
        for kind in KINDS:
            for (horizon,) in _keys(own, "steps"):
                cell = _matching(own, runs=kind, steps=horizon)
                mean = np.mean([row["pearson"] for row in cell])
                lead, error = mean_and_error(np.array(_leads(rows, cell, usual)))
                line[f"{kind} {horizon}"] = f"{mean:.2f} ({lead:+.2f} ± {error:.2f})"
        lines.append(line)
    return lines


def draw(rows: Sequence[Row], path: Path) -> None:
    """Pearson within targets over the horizon, one line per predictor, one panel per kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, kind in zip(panels, KINDS, strict=True):
        horizons = [horizon for (horizon,) in _keys(rows, "steps")]
        for number, (predictor,) in enumerate(_keys(rows, "predictor")):
            cells = [
                [r["pearson"] for r in _matching(rows, predictor=predictor, runs=kind, steps=h)]
                for h in horizons
            ]
            means, errors = zip(*(mean_and_error(np.array(cell)) for cell in cells), strict=True)
            style: dict[str, Any] = {
                "color": PALETTE[number % len(PALETTE)],
                "marker": MARKERS[number % len(MARKERS)],
            }
            if predictor == AGAIN:
                style = {"color": "black", "linestyle": "--"}
                roots = np.sqrt(np.maximum(means, 0))
                axes.plot(horizons, roots, color="black", linestyle=":", label="its root: no error")
            # Side by side, so that error bars can be told apart.
            shifted = np.array(horizons) * 1.03 ** (number - 3)
            axes.errorbar(shifted, means, yerr=errors, label=predictor, capsize=2, **style)
        axes.set(xscale="log", xlabel="optimizer steps after the measurement")
        axes.set_xticks(horizons, [str(horizon) for horizon in horizons], minor=False)
        axes.minorticks_off()
        axes.set_title(
            "trained on one domain" if kind == "domains" else "trained on random mixtures",
            loc="left",
        )
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Pearson r of predicted and real decrease,\nwithin targets")
    panels[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, dpi=150)


def _keys(rows: Iterable[Row], *columns: str) -> list[tuple[Any, ...]]:
    """The distinct values of some columns, in the order of their first appearance."""
    return list(dict.fromkeys(tuple(row[column] for column in columns) for row in rows))


def _matching(rows: Iterable[Row], **values: Any) -> list[Row]:
    return [row for row in rows if all(row[column] == values[column] for column in values)]


def _leads(rows: Sequence[Row], own: Sequence[Row], over: str = BASELINE) -> list[float]:
    """How much more each row has than another predictor on the same runs of its checkpoint."""
    leads = []
    for row in own:
        same = {column: row[column] for column in ("checkpoint", "seed", "runs", "steps")}
        leads += [
            row["pearson"] - baseline["pearson"]
            for baseline in _matching(rows, predictor=over, **same)
        ]
    return leads


def _with_error(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean, error = mean_and_error(np.array(values))
    return f"{mean:.2f} ± {error:.2f}"
