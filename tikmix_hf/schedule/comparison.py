"""What differs from one schedule to another.

In: two schedules. Out: a `ScheduleDiff`: domains that one of them lacks, and for each interval in
which neither changes its mixture, both mixtures and their distance. The distance is the total
variation, (1/2) sum_k |w_k - v_k|: the share of tokens that changed domain.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from tikmix_hf.schedule.faults import fault
from tikmix_hf.schedule.operations import known_length

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A part of the run in which neither schedule changes its mixture."""

    start: float
    """First sample, or fraction of the run."""
    stop: float | None
    """Where it ends; None where nobody knows the run's length."""
    before: dict[str, float]
    """The one schedule's mixture, by name."""
    after: dict[str, float]
    """The other's."""
    distance: float
    """Their total variation, between 0 and 1; a domain that one has not got has share 0 there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleDiff:
    """What differs from one schedule to another."""

    by: str
    """Unit of the intervals: "sample", or "fraction" of the run."""
    domains_added: tuple[str, ...]
    """Domains that only the other has."""
    domains_removed: tuple[str, ...]
    """Domains that only the one has."""
    text_changed: tuple[str, ...]
    """Domains of one name whose fingerprints are known and differ."""
    intervals: tuple[Interval, ...]
    """All of the run, in order, also where nothing differs."""
    mean_distance: float | None
    """Mean of the distances by length; None where the end of the last interval is not known."""

    @property
    def changed(self) -> tuple[Interval, ...]:
        """The intervals in which the mixtures differ."""
        return tuple(interval for interval in self.intervals if interval.distance > 0)

    @property
    def is_same(self) -> bool:
        """Whether the same names have the same shares and, as far as is known, the same text."""
        names = self.domains_added or self.domains_removed or self.text_changed
        return not names and not self.changed

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {**asdict(self), "is_same": self.is_same}


def diff(one: MixtureSchedule, other: MixtureSchedule, *, by: str) -> ScheduleDiff:
    """Compares two schedules; see `MixtureSchedule.diff`."""
    bounds = [_bounds(schedule, by) for schedule in (one, other)]
    starts = sorted({start for own, _ in bounds for start in own})
    # Of runs of different lengths the shorter one's last mixture is taken to go on.
    ends = [end for _, end in bounds if end is not None]
    end = max(ends) if len(ends) == 2 else None
    if end is not None:
        starts = [start for start in starts if start < end]
    intervals = tuple(
        _interval(start, stop, _segments_at((one, other), bounds, start))
        for start, stop in pairwise([*starts, end])
        if start is not None
    )
    fingerprints = {
        name: {s.cards[name].fingerprint for s in (one, other) if name in s.cards} - {None}
        for name in one.domains
        if name in other.domains
    }
    mean = None
    if end is not None:
        parts = [(i.distance, i.stop - i.start) for i in intervals if i.stop is not None]
        mean = sum(distance * length for distance, length in parts) / float(end)
    return ScheduleDiff(
        by=by,
        domains_added=tuple(name for name in other.domains if name not in one.domains),
        domains_removed=tuple(name for name in one.domains if name not in other.domains),
        text_changed=tuple(name for name, prints in fingerprints.items() if len(prints) > 1),
        intervals=intervals,
        mean_distance=mean,
    )


def _bounds(schedule: MixtureSchedule, by: str) -> tuple[list[Fraction], Fraction | None]:
    """(S,) exact starts of the segments in the unit, and the end of the run if that is known."""
    starts = [Fraction(segment.from_sample) for segment in schedule.segments]
    length = schedule.run.num_samples
    if by == "sample":
        return starts, None if length is None else Fraction(length)
    if by != "fraction":
        raise fault("by", '"sample" or "fraction"', by, "Choose one.")
    length = known_length(schedule, 'diff(by="fraction")')
    return [start / length for start in starts], Fraction(1)


def _segments_at(
    schedules: tuple[MixtureSchedule, MixtureSchedule],
    bounds: list[tuple[list[Fraction], Fraction | None]],
    start: Fraction,
) -> list[dict[str, float]]:
    """Both mixtures in force, by name."""
    mixtures = []
    for schedule, (starts, _) in zip(schedules, bounds, strict=True):
        segment = schedule.segments[bisect_right(starts, start) - 1]
        mixtures.append(dict(zip(schedule.domains, segment.mixture.tolist(), strict=True)))
    return mixtures


def _interval(start: Fraction, stop: Fraction | None, mixtures: list[dict[str, float]]) -> Interval:
    before, after = mixtures
    distance = 0.5 * sum(
        abs(before.get(name, 0.0) - after.get(name, 0.0)) for name in {**before, **after}
    )
    return Interval(
        start=_plain(start),
        stop=None if stop is None else _plain(stop),
        before=before,
        after=after,
        distance=distance,
    )


def _plain(bound: Fraction) -> float:
    """Whole samples as int, fractions as float."""
    return bound.numerator if bound.denominator == 1 else float(bound)
