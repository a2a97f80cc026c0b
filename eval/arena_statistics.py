"""The arithmetic of the arena's tables: runs of a regime in, differences paired by seed out.

In: records of runs (`arena_run.py`). Out: a `Row` for each entry, compared with the control on the
seeds that both have, and the `Verdict` on each goal of the project.
"""

# S seeds, N points of a curve.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONTROL = "uniform"
OFFLINE = ("best_single", "regmix", "final", "shuffled")
"""First mixtures that no run can know before it is over, or before others are."""
SMOOTHED_POINTS = 3
"""Points of a curve that are averaged, because a single one goes up and down with the last
batches."""
TOKENS_GOAL, OFF_TARGET_GOAL, COST_GOAL, REGMIX_GOAL = 0.7, 0.02, 0.02, 0.2

Record = Mapping[str, Any]
Runs = dict[str, dict[int, Record]]
"""Entry to seed to record."""


class Interval(NamedTuple):
    """A mean, and half of its 95 % interval (Student t over seeds)."""

    mean: float
    half: float

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half

    def __str__(self) -> str:
        if math.isnan(self.half):
            return f"{self.mean:+.4f} (one seed)"
        return f"{self.mean:+.4f} ({self.low:+.4f} ... {self.high:+.4f})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a table says of an entry; shares and costs are means over seeds."""

    entry: str
    """Name."""
    seeds: tuple[int, ...]
    """That both the entry and the control have."""
    loss: float
    """Mean over targets and seeds, bits per byte."""
    gap: Interval
    """To the control, paired by seed; negative: lower."""
    gaps: tuple[float, ...]
    """By seed."""
    target_gaps: dict[str, float]
    """By target, mean over seeds."""
    reach: tuple[float, ...]
    """Share of the run's tokens after which the control's final loss was reached, by seed;
    infinite where it was not."""
    off_target: float
    """Share of all tokens on the off-target domain."""
    final_off_target: float
    """The same of the last mixture."""
    seconds_share: float
    """Seconds spent on choosing, for each of training."""
    flops_share: float
    """Likewise floating-point operations, those of other runs among them."""
    benchmarks: dict[str, dict[str, float]]
    """Scores, mean over seeds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Whether a goal is held."""

    goal: str
    """In words."""
    entry: str
    """Whose."""
    held: str
    """"held", "missed", or "open": on the right side, but an interval covers zero."""
    numbers: str
    """What was found."""


def group(records: Sequence[Record], regime: str) -> Runs:
    """Runs of a regime by entry and seed."""
    runs: Runs = {}
    for record in records:
        if record["regime"] == regime:
            runs.setdefault(record["entry"], {})[record["seed"]] = record
    return runs


def interval(values_S: Sequence[float] | NDArray[np.float64]) -> Interval:
    """Mean and half of the 95 % interval; the half is NaN for a single value."""
    values = np.asarray(values_S, dtype=np.float64)
    if len(values) < 2:
        return Interval(float(values.mean()), math.nan)
    error = values.std(ddof=1) / math.sqrt(len(values))
    return Interval(float(values.mean()), float(stats.t.ppf(0.975, len(values) - 1) * error))


def paired(runs: Runs, entry: str, other: str) -> tuple[tuple[int, ...], list[float]]:
    """Seeds that both have, and the entry's mean loss less the other's for each."""
    seeds = tuple(sorted(set(runs[entry]) & set(runs[other])))
    gaps = [
        runs[entry][s]["mean_bits_per_byte"] - runs[other][s]["mean_bits_per_byte"] for s in seeds
    ]
    return seeds, gaps


def smoothed(losses_N: Sequence[float]) -> NDArray[np.float64]:
    """Each point's mean with those just before it, `SMOOTHED_POINTS` at the most."""
    losses = np.asarray(losses_N, dtype=np.float64)
    starts = [max(0, n + 1 - SMOOTHED_POINTS) for n in range(len(losses))]
    return np.array([losses[start : n + 1].mean() for n, start in enumerate(starts)])


def tokens_to_reach(curve: Mapping[str, Sequence[float]], level: float) -> float:
    """Tokens after which a smoothed curve is first at or below a level, interpolated linearly.

    Args:
        curve: `tokens` of its points, ascending, and `mean_bits_per_byte`.
        level: of the smoothed loss.

    Returns:
        The tokens; infinity where the curve never gets there.
    """
    tokens, losses = curve["tokens"], smoothed(curve["mean_bits_per_byte"])
    below = np.flatnonzero(losses <= level)
    if not len(below):
        return math.inf
    n = int(below[0])
    if n == 0:
        return float(tokens[0])
    part = (losses[n - 1] - level) / (losses[n - 1] - losses[n])
    return float(tokens[n - 1] + part * (tokens[n] - tokens[n - 1]))


def row(runs: Runs, entry: str, off_target: str | None) -> Row:
    """Compares an entry with the control."""
    seeds, gaps = paired(runs, entry, CONTROL)
    own, control = ([runs[name][seed] for seed in seeds] for name in (entry, CONTROL))
    domains = own[0]["domains"]
    off = domains.index(off_target) if off_target in domains else None
    return Row(
        entry=entry,
        seeds=seeds,
        loss=float(np.mean([record["mean_bits_per_byte"] for record in own])),
        gap=interval(gaps),
        gaps=tuple(gaps),
        target_gaps={
            target: float(
                np.mean(
                    [
                        a["bits_per_byte"][target] - b["bits_per_byte"][target]
                        for a, b in zip(own, control, strict=True)
                    ]
                )
            )
            for target in own[0]["bits_per_byte"]
        },
        reach=tuple(_reach(a, b) for a, b in zip(own, control, strict=True)),
        off_target=_mean([0.0 if off is None else r["shares"][off] for r in own]),
        final_off_target=_mean(
            [0.0 if off is None else r["mixtures"][-1]["mixture"][off] for r in own]
        ),
        seconds_share=_mean([r["choosing"]["seconds"] / r["training"]["seconds"] for r in own]),
        flops_share=_mean([r["choosing"]["flops"] / r["training"]["flops"] for r in own]),
        benchmarks={
            name: {key: _mean([r["benchmarks"][name][key] for r in own]) for key in scores}
            for name, scores in own[0]["benchmarks"].items()
        },
    )


def _reach(record: Record, control: Record) -> float:
    level = float(smoothed(control["curve"]["mean_bits_per_byte"])[-1])
    return tokens_to_reach(record["curve"], level) / record["curve"]["tokens"][-1]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def is_ours(record: Record) -> bool:
    """Whether a TiKMiX mixer chose."""
    return record["entry_settings"]["mixer"].startswith("tikmix")


def is_rival(record: Record) -> bool:
    """Whether it chose as ours must: before or while it trained, without other runs' mixtures."""
    return not is_ours(record) and record["entry_settings"]["mixture"] not in OFFLINE


def verdicts(runs: Runs, off_target: str | None) -> list[Verdict]:
    """The project's goals, for every entry of ours that has runs in common with the control."""
    any_record = {entry: next(iter(by_seed.values())) for entry, by_seed in runs.items()}
    ours = [entry for entry, record in any_record.items() if is_ours(record)]
    rivals = [entry for entry, record in any_record.items() if is_rival(record)]
    found: list[Verdict] = []
    for entry in ours:
        found += [_lower(runs, entry, rival, "lower mean target loss than") for rival in rivals]
        found += _limits(row(runs, entry, off_target))
        for other, record in any_record.items():
            settings = record["entry_settings"]
            if settings["mixture"] == "shuffled" and settings["of"] == entry:
                found.append(_lower(runs, entry, other, "lower than its own mixtures shuffled,"))
            if settings["mixture"] == "regmix":
                found.append(_lower(runs, entry, other, "lower than"))
                found.append(_cheaper(runs, entry, other))
    return found


def _lower(runs: Runs, entry: str, other: str, words: str) -> Verdict:
    gap = interval(paired(runs, entry, other)[1])
    held = "missed" if gap.mean >= 0 else "held" if gap.high < 0 else "open"
    return Verdict(goal=f"{words} {other}", entry=entry, held=held, numbers=str(gap))


def _cheaper(runs: Runs, entry: str, other: str) -> Verdict:
    seeds, _ = paired(runs, entry, other)
    own, others = (
        _mean([runs[name][s]["choosing"]["flops"] for s in seeds]) for name in (entry, other)
    )
    return Verdict(
        goal=f"at most {REGMIX_GOAL:.0%} of the FLOPs of choosing of {other}",
        entry=entry,
        held="held" if own <= REGMIX_GOAL * others else "missed",
        numbers=f"{own:.2e} to {others:.2e}, {own / others:.1%}",
    )


def _limits(own: Row) -> list[Verdict]:
    """Goals that are a limit on a number of the entry alone."""
    reach = _mean(own.reach)
    limits = (
        ("uniform's final loss with at most 70 % of the tokens", reach, TOKENS_GOAL, True),
        (
            "less than 2 % of all tokens on the off-target domain",
            own.off_target,
            OFF_TARGET_GOAL,
            False,
        ),
        ("choosing takes at most 2 % of training's seconds", own.seconds_share, COST_GOAL, True),
        ("choosing takes at most 2 % of training's FLOPs", own.flops_share, COST_GOAL, True),
    )
    return [
        Verdict(
            goal=goal,
            entry=own.entry,
            held="held" if value < limit or (value == limit and may_equal) else "missed",
            numbers="not reached with every seed" if math.isinf(value) else f"{value:.1%}",
        )
        for goal, value, limit, may_equal in limits
    ]
