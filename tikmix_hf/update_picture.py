"""The picture of one update: what was measured, beside what became of the mixture.

In: one line of `influence.jsonl` (`UpdateRecord.to_dict`). Out: a figure of one row per domain. On
the left the influence of the domain on each target, with standard errors; on the right the domain's
share before the update and after it.

Absolute influences are not comparable between targets, and most are positive whatever a domain
does. So with w the mixture before the update, S[j, k] - S[j] . w is drawn, divided by the target's
largest magnitude; the standard error is that of S[j, k], divided by the same.
"""

# Shape letters: J targets, K domains, R rounds.

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.figures import PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

# What a screen has room for: of more domains those whose shares moved most are drawn, of more
# targets the first, and numbers in the cells of the largest influences.
MAX_DOMAINS, MAX_TARGETS, MAX_NUMBERS = 40, 16, 150
MAX_LETTERS = 30
# Inches of a cell, of the bars, of the names at the left, and of title and axis.
CELL_WIDTH, CELL_HEIGHT = 0.85, 0.3
BARS_WIDTH, NAMES_WIDTH, MARGIN = 3.2, 2.4, 1.6
BEFORE, AFTER = "#B0B0B0", PALETTE[0]
# Influence is the loss that a step on the domain takes off the target's.
COLOURS = "blue: helps more than the mixture; red: less"


def plot_update(line: Mapping[str, Any]) -> Figure:
    """Draw one update.

    Args:
        line: one of `influence.jsonl`, with "step", "from_sample", "mixture", "proposed", "change"
            and "influence"; without a measurement the shares are drawn alone.

    Raises:
        ImportError: If matplotlib is missing.
    """
    names = list(line["mixture"])
    before_K, after_K = (_column(line[key], names) for key in ("mixture", "proposed"))
    shown = _most_moved(before_K, after_K)
    influence = line["influence"]
    targets = [] if influence is None else influence["targets"][:MAX_TARGETS]
    heat_width = max(2.2, CELL_WIDTH * len(targets)) if targets else 0.0
    figure = new_figure(
        width=NAMES_WIDTH + heat_width + BARS_WIDTH, height=MARGIN + CELL_HEIGHT * len(shown)
    )
    widths = [width for width in (heat_width, BARS_WIDTH) if width]
    panels = figure.subplots(1, len(widths), squeeze=False, width_ratios=widths)[0]
    if influence is not None:
        values_JK, errors_JK = scaled_influence(influence, before_K)
        _heat_map(panels[0], values_JK[: len(targets), shown], errors_JK[: len(targets), shown])
        _name(panels[0], "x", targets)
        title = "influence less the mixture's ± error\n(each target's largest is 1"
        panels[0].set_title(f"{title}{_of(influence)})\n{COLOURS}", fontsize=8)
    _bars(panels[-1], before_K[shown], after_K[shown], taken=line["from_sample"] is not None)
    _name(panels[0], "y", [names[k] for k in shown])
    if len(panels) > 1:
        panels[-1].set_yticks([])
    omitted = f" ({len(shown)} of {len(names)} domains)" if len(shown) < len(names) else ""
    figure.suptitle(_headline(line) + omitted, fontsize=10)
    return figure


def scaled_influence(influence: Mapping[str, Any], mixture_K: ArrayLike) -> tuple[Array, Array]:
    """Influence beyond that of the mixture, and standard errors, (J, K) each, 1 the largest.

    With S = [[1, 3]] and the mixture [0.5, 0.5]: [[-1, 1]]. An error is NaN where it is unknown.

    Args:
        influence: the fields of an `InfluenceMatrix`.
        mixture_K: (K,) shares in the order of its domains.
    """
    values_JK = np.asarray(influence["values"], np.float64)
    centred_JK = values_JK - (values_JK @ np.asarray(mixture_K, np.float64))[:, None]
    # None, an unknown error, becomes NaN on its way into a float array.
    sides = (np.array(influence[side], np.float64) for side in ("domain_stderr", "target_stderr"))
    errors_JK = np.hypot(*sides)
    rounds = influence.get("rounds")
    if rounds is not None and len(rounds) > 1:
        spread_JK = np.std(rounds, axis=0, ddof=1) / np.sqrt(len(rounds))
        errors_JK = np.where(np.isnan(errors_JK), spread_JK, errors_JK)
    largest_J1 = np.abs(centred_JK).max(axis=1, keepdims=True)
    scale_J1 = np.where(largest_J1 > 0, largest_J1, 1.0)
    return centred_JK / scale_J1, errors_JK / scale_J1


def _most_moved(before_K: Array, after_K: Array) -> NDArray[np.intp]:
    """Indices, ascending, of the domains to draw: the largest moves, then the largest shares."""
    order = np.lexsort((-after_K, -np.abs(after_K - before_K)))
    return np.sort(order[:MAX_DOMAINS])


def _heat_map(axes: Axes, values_JK: Array, errors_JK: Array) -> None:
    axes.imshow(values_JK.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    # A number takes a millisecond or two, and training waits.
    least = np.sort(np.abs(values_JK), axis=None)[-MAX_NUMBERS:][0]
    for (j, k), value in np.ndenumerate(values_JK):
        if abs(value) < least:
            continue
        error = errors_JK[j, k]
        text = f"{value:+.2f}".replace("-0.00", "+0.00")
        text += "" if np.isnan(error) else f" ±{error:.2f}"
        ink = "white" if abs(value) > 0.6 else "black"
        # The layout need not measure what lies inside the cells.
        inside = {"ha": "center", "va": "center", "parse_math": False, "in_layout": False}
        axes.text(j, k, text, color=ink, fontsize=6, **inside)


def _bars(axes: Axes, before_K: Array, after_K: Array, *, taken: bool) -> None:
    rows = np.arange(len(before_K))
    is_alone = not taken and np.array_equal(before_K, after_K)
    axes.barh(rows - (0 if is_alone else 0.2), before_K, height=0.38, color=BEFORE, label="before")
    if taken:
        axes.barh(rows + 0.2, after_K, height=0.38, color=AFTER, label="after")
    elif not is_alone:
        axes.barh(
            rows + 0.2,
            after_K,
            height=0.38,
            fill=False,
            edgecolor=AFTER,
            label="proposed, not in force",
        )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("share of tokens", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.3g}%")
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=2,
        fontsize=8,
        frameon=False,
    )


def _name(axes: Axes, side: str, names: list[str]) -> None:
    """Label one tick a name; a dollar in a name is no formula."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    brief = [name if len(name) <= MAX_LETTERS else name[: MAX_LETTERS - 1] + "…" for name in names]
    axis.set_ticks(range(len(names)), brief, fontsize=8)
    axis.set_tick_params(length=0)
    for label in axis.get_ticklabels():
        label.set_parse_math(False)
        if side == "x" and len(names) > 2:
            label.set(rotation=30, ha="right", rotation_mode="anchor")


def _of(influence: Mapping[str, Any]) -> str:
    num_targets = len(influence["targets"])
    return f"; {MAX_TARGETS} of {num_targets} targets" if num_targets > MAX_TARGETS else ""


def _headline(line: Mapping[str, Any]) -> str:
    when = f"step {line['step']:,}"
    if line["from_sample"] is None:
        return f"{when}: mixture kept"
    return f"{when}: from sample {line['from_sample']:,} on, {line['change']:.1%} of tokens moved"


def _column(shares: Mapping[str, float], names: list[str]) -> Array:
    return np.array([shares[name] for name in names], np.float64)
