"""What differs from one schedule to another.

In: two schedules. Out: a `ScheduleDiff`: domains that one of them lacks, and for each interval in
which neither changes its mixture, both mixtures and their distance. The distance is the total
variation, (1/2) sum_k |w_k - v_k|: the share of tokens that changed domain.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.schedule.faults import fault
from tikmix_hf.schedule.operations import known_length

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

# Shape letters: K domains of a schedule, U of both.


class Shares(NamedTuple):
    """A mixture of a schedule, which it shares with that."""

    names: tuple[str, ...]
    """Of the domains."""
    mixture: NDArray[np.float64]
    """(K,) shares."""

    def by_name(self) -> dict[str, float]:
        """The shares by name of domain."""
        return dict(zip(self.names, self.mixture.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Interval:
    """A part of the run in which neither schedule changes its mixture."""

    start: float
    """First sample, or fraction of the run."""
    stop: float | None
    """Where it ends; None where nobody knows the run's length."""
    distance: float
    """Total variation of the mixtures, between 0 and 1; a domain that one has not got has share 0
    there."""
    one: Shares = field(repr=False)
    """The one schedule's mixture; `before` has it by name."""
    other: Shares = field(repr=False)
    """The other's; `after` has it by name."""

    @property
    def before(self) -> dict[str, float]:
        """The one schedule's mixture, by name; a dict of many domains is made for who asks."""
        return self.one.by_name()

    @property
    def after(self) -> dict[str, float]:
        """The other's."""
        return self.other.by_name()

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "start": self.start,
            "stop": self.stop,
            "before": self.before,
            "after": self.after,
            "distance": self.distance,
        }

    def __eq__(self, other: object) -> bool:
        """Whether all is the same, the shares to their last bit."""
        return isinstance(other, Interval) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]


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
        record: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        record["intervals"] = tuple(interval.to_dict() for interval in self.intervals)
        return {**record, "is_same": self.is_same}


def diff(one: MixtureSchedule, other: MixtureSchedule, *, by: str) -> ScheduleDiff:
    """Compares two schedules; see `MixtureSchedule.diff`."""
    bounds = [_bounds(schedule, by) for schedule in (one, other)]
    starts = sorted({start for own, _ in bounds for start in own})
    # Of runs of different lengths the shorter one's last mixture is taken to go on.
    ends = [end for _, end in bounds if end is not None]
    end = max(ends) if len(ends) == 2 else None
    if end is not None:
        starts = [start for start in starts if start < end]
    intervals = _intervals((one, other), bounds, [*starts, end])
    own, its = set(one.domains), set(other.domains)
    fingerprints = {
        name: {s.cards[name].fingerprint for s in (one, other) if name in s.cards} - {None}
        for name in one.domains
        if name in its
    }
    mean = None
    if end is not None:
        parts = [(i.distance, i.stop - i.start) for i in intervals if i.stop is not None]
        mean = sum(distance * length for distance, length in parts) / float(end)
    return ScheduleDiff(
        by=by,
        domains_added=tuple(name for name in other.domains if name not in own),
        domains_removed=tuple(name for name in one.domains if name not in its),
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


def _intervals(
    schedules: tuple[MixtureSchedule, MixtureSchedule],
    bounds: list[tuple[list[Fraction], Fraction | None]],
    edges: list[Fraction | None],
) -> tuple[Interval, ...]:
    """What both have between each edge and the next; only the last edge may be unknown."""
    names = {name: None for schedule in schedules for name in schedule.domains}
    places = {name: place for place, name in enumerate(names)}  # in the union U of domains
    places_K = [np.array([places[name] for name in own.domains]) for own in schedules]
    intervals = []
    for start, stop in pairwise(edges):
        assert start is not None
        shares, difference_U = [], np.zeros(len(names))
        for sign, schedule, (starts, _), at_K in zip(
            (1, -1), schedules, bounds, places_K, strict=True
        ):
            segment = schedule.segments[bisect_right(starts, start) - 1]
            difference_U[at_K] += sign * segment.mixture
            shares.append(Shares(schedule.domains, segment.mixture))
        intervals.append(
            Interval(
                start=_plain(start),
                stop=None if stop is None else _plain(stop),
                distance=float(0.5 * np.abs(difference_U).sum()),
                one=shares[0],
                other=shares[1],
            )
        )
    return tuple(intervals)


def _plain(bound: Fraction) -> float:
    """Whole samples as int, fractions as float."""
    return bound.numerator if bound.denominator == 1 else float(bound)
