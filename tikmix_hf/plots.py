"""Pictures of a run: its mixtures over time, its influence matrices, its target losses.

In: plain numbers and names, as reports and schedules hold them. Out: an image file, its kind taken
from the suffix of `path`, and the figure that was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.figures import PALETTE, StrPath, colour, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# J targets, K domains, S segments of a schedule, R runs.

MARKERS = "osD^vPX*"
SIDES = ("predicted", "realised")
MAX_HEAT_MAPS = 8
# More cells than these leave no room for a legible number in each.
MAX_NUMBERED_CELLS = 80
# Height of a line of labels; what title and axis take of a figure's height.
LABEL_INCHES, MARGIN_INCHES = 0.17, 0.9


def plot_mixture(
    from_samples: Sequence[int],
    mixtures_SK: ArrayLike,
    names: Sequence[str],
    *,
    num_samples: int,
    path: StrPath,
) -> Figure:
    """Draw the shares of all domains, stacked, over the samples of a run.

    Args:
        from_samples: First sample of each of the S segments, increasing from 0.
        mixtures_SK: (S, K) shares, one mixture per segment.
        names: K domain names.
        num_samples: Samples of the run, where the last segment ends.
        path: Image file to write.

    Raises:
        ValueError: If the shapes disagree, or segments do not increase up to `num_samples`.
        ImportError: If matplotlib is missing.
    """
    mixtures_SK = np.asarray(mixtures_SK, np.float64)
    if mixtures_SK.shape != (len(from_samples), len(names)):
        raise ValueError(
            f"`mixtures_SK` must be one row per segment ({len(from_samples)}) of one share per "
            f"domain ({len(names)}); got shape {mixtures_SK.shape}."
        )
    edges = [*from_samples, num_samples]
    if not from_samples or (np.diff(edges) <= 0).any():
        raise ValueError(
            f"`from_samples` must increase and end before `num_samples` {num_samples}; "
            f"got {list(from_samples)}."
        )
    height = max(4.0, 1.0 + 0.24 * len(names))
    figure = new_figure(width=9.0, height=height)
    axes = figure.add_subplot()
    # "post" steps hold a value up to the next edge, so the last edge repeats the last mixture.
    tops = np.cumsum(mixtures_SK[[*range(len(from_samples)), -1]], axis=1)
    for k, name in enumerate(names):
        low = tops[:, k - 1] if k else 0.0
        axes.fill_between(
            edges, low, tops[:, k], step="post", color=colour(k), label=name, linewidth=0
        )
        axes.step(edges, tops[:, k], where="post", color="white", linewidth=0.6)
    for sample in from_samples[1:]:
        axes.axvline(sample, color="black", linewidth=0.5, alpha=0.45)
    _label_shares(axes, mixtures_SK[-1], names, height - MARGIN_INCHES)
    axes.set(xlim=(0, num_samples), ylim=(0, 1), xlabel="samples", ylabel="share of tokens")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.0%}")
    axes.set_title(f"Updates of the mixture: {len(from_samples) - 1}", loc="left")
    save(figure, path)
    return figure


def plot_influence(records: Sequence[Mapping[str, Any]], path: StrPath) -> Figure:
    """Draw influence matrices as heat maps, at most eight of them, evenly chosen.

    Absolute values are not comparable between targets, and most are positive whatever a domain
    does. So each row is drawn relative to the mixture in force w, `S[j,k] - S[j,:] . w` (to the
    row's mean where a record has no mixture), and divided by its largest magnitude.

    Args:
        records: Measurements in the order of training, each with "step", "targets" (J names),
            "domains" (K names), "values" (J, K) and, if known, "mixture" (share in force by name).
        path: Image file to write.

    Raises:
        ValueError: If there are no records, or values are not one row per target.
        ImportError: If matplotlib is missing.
    """
    if not records:
        raise ValueError("`records` must hold at least one measurement; got none.")
    chosen = np.linspace(0, len(records) - 1, min(len(records), MAX_HEAT_MAPS)).round().astype(int)
    shown = [records[i] for i in chosen]
    scaled = [_centred_and_scaled(record) for record in shown]
    num_targets, num_domains = (max(sizes) for sizes in zip(*map(np.shape, scaled), strict=True))
    panel_width, panel_height = max(1.8, 0.3 * num_domains), max(1.2, 0.3 * num_targets)
    down = -(-len(shown) // max(1, int(14 / panel_width)))
    across = -(-len(shown) // down)
    height = 1.8 + down * panel_height
    figure = new_figure(width=3.2 + across * panel_width, height=height)
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for i, (record, values_JK) in enumerate(zip(shown, scaled, strict=True)):
        _heat_map(grid[i], record, values_JK)
        if i % across:
            grid[i].set_yticklabels([])
        if i + across < len(shown):
            grid[i].set_xticklabels([])
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    shrink = min(1.0, 4.0 / height)
    bar = figure.colorbar(grid[0].images[0], ax=grid, shrink=shrink, anchor=(0, 1), pad=0.02)
    reference = "that of the mixture" if all(r.get("mixture") for r in shown) else "the row's mean"
    bar.set_label(f"influence less {reference}\n(largest of each target = 1)")
    save(figure, path)
    return figure


def plot_target_losses(losses: Mapping[str, Mapping[str, float]], path: StrPath) -> Figure:
    """Draw the target losses of several runs as dots, and how far each is from the first run.

    Args:
        losses: Run to target to loss in nats per token; every run has the same targets.
        path: Image file to write.

    Raises:
        ValueError: If there is no run, or the runs' targets differ.
        ImportError: If matplotlib is missing.
    """
    if not losses or not next(iter(losses.values())):
        raise ValueError(f"`losses` must hold a run with targets; got {dict(losses)!r}.")
    first, *others = losses
    targets = list(losses[first])
    for run in others:
        if set(losses[run]) != set(targets):
            raise ValueError(
                f"`losses` must have the same targets in every run; got {', '.join(targets)} in "
                f"{first!r} and {', '.join(losses[run])} in {run!r}."
            )
    values_RJ = np.array([[losses[run][target] for target in targets] for run in losses])
    values_RJ = np.column_stack([values_RJ, values_RJ.mean(axis=1)])
    figure = new_figure(width=9.0 if others else 5.5, height=1.5 + 0.32 * values_RJ.shape[1])
    levels, *rest = figure.subplots(1, 2 if others else 1, sharey=True, squeeze=False).ravel()
    _dots(levels, values_RJ, list(losses), start=0)
    levels.set_yticks(range(len(targets) + 1), [*targets, "mean"])
    levels.invert_yaxis()
    levels.set_xlabel("loss, nats per token")
    for differences in rest:
        _dots(differences, values_RJ - values_RJ[0], list(losses), start=1)
        differences.axvline(0, color=PALETTE[0], linewidth=1)
        differences.set_xlabel(f"loss less that of {first} (left is better)")
    figure.legend(*levels.get_legend_handles_labels(), loc="outside upper left", ncols=4)
    save(figure, path)
    return figure


def plot_audit(records: Sequence[Mapping[str, Any]], path: StrPath) -> Figure:
    """Draw the fall of each target's loss that updates predicted against the one that came.

    Args:
        records: Lines of `influence.jsonl`; those with an "audit" of three or more targets are
            drawn, both sides standardised over targets within each, the later the darker. Two
            targets would lie on a diagonal whatever happened.
        path: Image file to write.

    Raises:
        ValueError: If no record can be drawn.
        ImportError: If matplotlib is missing.
    """
    audits = [record["audit"] for record in records if record.get("audit")]
    audits = [audit for audit in audits if len(audit["predicted"]) > 2]
    pairs_NJ = [[_standardised(audit[side].values()) for side in SIDES] for audit in audits]
    pairs_NJ = [pair for pair in pairs_NJ if all(side.any() for side in pair)]
    if not pairs_NJ:
        raise ValueError("`records` must hold an audit of three or more targets; got none.")
    figure = new_figure(width=4.5, height=4.5)
    axes = figure.add_subplot()
    axes.axline((0, 0), slope=1, color="0.8", zorder=0)
    for shade, (predicted_J, realised_J) in zip(
        np.linspace(0.3, 1.0, len(pairs_NJ)), pairs_NJ, strict=True
    ):
        axes.plot(predicted_J, realised_J, "o", color=PALETTE[0], alpha=shade, markeredgewidth=0)
    correlation = np.mean(
        [(predicted_J * realised_J).mean() for predicted_J, realised_J in pairs_NJ]
    )
    axes.set(xlabel="predicted fall of the loss, standardised", ylabel="realised, standardised")
    axes.set_title(
        f"Audit of targets: r = {correlation:.2f}, intervals: {len(pairs_NJ)}", loc="left"
    )
    save(figure, path)
    return figure


def _standardised(values: Iterable[float]) -> NDArray[np.float64]:
    """(J,) with mean 0 and population standard deviation 1; zeros where all agree."""
    centred_J = np.array(list(values), np.float64)
    spread = 0.0 if np.ptp(centred_J) == 0 else centred_J.std()
    return (centred_J - centred_J.mean()) / spread if spread else np.zeros_like(centred_J)


def _heat_map(axes: Axes, record: Mapping[str, Any], values_JK: NDArray[np.float64]) -> None:
    axes.imshow(values_JK, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axes.set_title(f"step {record['step']:,}", fontsize=9)
    axes.set_yticks(range(len(record["targets"])), list(record["targets"]))
    axes.set_xticks(range(len(record["domains"])), list(record["domains"]))
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(length=0)
    if values_JK.size > MAX_NUMBERED_CELLS:
        return
    for (j, k), value in np.ndenumerate(values_JK):
        ink = "white" if abs(value) > 0.6 else "black"
        axes.text(
            k,
            j,
            f"{value:+.1f}".replace("-0.0", "+0.0"),
            ha="center",
            va="center",
            color=ink,
            fontsize=6,
        )


def _centred_and_scaled(record: Mapping[str, Any]) -> NDArray[np.float64]:
    """Rows relative to the mixture in force, each divided by its largest magnitude, (J, K)."""
    targets, domains = record["targets"], record["domains"]
    values_JK = np.asarray(record["values"], np.float64)
    if values_JK.shape != (len(targets), len(domains)):
        raise ValueError(
            f"`values` must be one row per target ({len(targets)}) of one value per domain "
            f"({len(domains)}); got shape {values_JK.shape} at step {record['step']}."
        )
    uniform = dict.fromkeys(domains, 1 / len(domains))
    mixture = record.get("mixture") or uniform
    mixture_K = np.array([mixture[name] for name in domains])
    centred_JK = values_JK - (values_JK @ mixture_K)[:, None]
    largest_J1 = np.abs(centred_JK).max(axis=1, keepdims=True)
    return centred_JK / np.where(largest_J1 > 0, largest_J1, 1.0)


def _dots(axes: Axes, values_RJ: NDArray[np.float64], runs: list[str], *, start: int) -> None:
    """One marker per run and target, from run `start` on; the last column, the mean, set apart."""
    rows = np.arange(values_RJ.shape[1])
    axes.hlines(rows, values_RJ.min(axis=0), values_RJ.max(axis=0), color="0.8", linewidth=2)
    axes.axhline(rows[-1] - 0.5, color="0.6", linewidth=0.8)
    for r, run in enumerate(runs[start:], start):
        marker = MARKERS[r % len(MARKERS)]
        axes.plot(values_RJ[r], rows, marker, color=colour(r), label=run, markersize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", color="0.9")
    axes.locator_params(axis="x", nbins=5)
    axes.set_axisbelow(True)


def _label_shares(
    axes: Axes, mixture_K: NDArray[np.float64], names: Sequence[str], axes_inches: float
) -> None:
    """Name each band at the right edge, moving labels apart where bands are thin."""
    centres_K = np.cumsum(mixture_K) - mixture_K / 2
    gap = min(LABEL_INCHES / axes_inches, 1 / len(names))
    places_K = centres_K.copy()
    floor = gap / 2
    for k in range(len(names)):  # up from the bottom edge, so that no two overlap
        places_K[k] = max(places_K[k], floor)
        floor = places_K[k] + gap
    ceiling = 1 - gap / 2
    for k in reversed(range(len(names))):  # and down again from the top edge
        places_K[k] = min(places_K[k], ceiling)
        ceiling = places_K[k] - gap
    for k, name in enumerate(names):
        axes.annotate(
            f"{name}  {mixture_K[k]:.1%}",
            xy=(1, centres_K[k]),
            xytext=(1.03, places_K[k]),
            xycoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={
                "arrowstyle": "-",
                "color": colour(k),
                "linewidth": 1.5,
                "relpos": (0, 0.5),
            },
        )
