"""Replay: the mixtures of a schedule, whatever training tells.

In go segments as plain data, (first sample, shares by domain name), ascending; out comes the share
of the segment in force at the sample that the answer will govern. It is how the mixtures that
another run found are trained on within the updates of this one, shuffled for instance.

A schedule is replayed to the sample as the `mixture` of an `InterleavedDomainDataset`; this mixer
is asked at the start and at updates alone, so a segment that begins between two of them begins with
the later one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._settings import number, whole_number
from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import as_mixture

Segments = tuple[tuple[int, Mapping[str, float]], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule(Mixer[State]):
    """The segment in force; a sample out of order or shares that are no mixture: a ValueError."""

    about: ClassVar[About] = About(
        paper="", cost="nothing", deviations="segments begin at updates alone"
    )
    at_start: ClassVar[bool] = True

    segments: Segments = ()
    """(First sample, {domain: share}), strictly ascending in samples. Before the first of them, and
    if there is none, the mixture in force is kept."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        segments = tuple(
            (
                whole_number("segments", start),
                {name: number("segments", share) for name, share in shares.items()},
            )
            for start, shares in self.segments
        )
        object.__setattr__(self, "segments", segments)
        starts = [start for start, _ in segments]
        if any(start < 0 for start in starts) or starts != sorted(set(starts)):
            raise ValueError(
                f"`segments` must have first samples of 0 or more that ascend strictly; got "
                f"{starts[:8]}. Sort them."
            )
        for start, shares in segments:
            as_mixture(shares, tuple(shares), argument=f"segments[from sample {start}]")

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Schedule:
        """The mixer that replays a `MixtureSchedule`, given its `to_dict()` or its JSON.

        Raises:
            ValueError: The segments are none.

        Example:
            >>> segment = {"from_sample": 0, "mixture": {"web": 1.0}, "update": {}}
            >>> Schedule.from_record({"segments": [segment]}).segments
            ((0, {'web': 1.0}),)
        """
        pairs = tuple((entry["from_sample"], entry["mixture"]) for entry in record["segments"])
        return cls(segments=pairs)

    def init(self, prior: NDArray[np.float64]) -> State:
        """The empty state: the sample alone decides."""
        return State()

    def propose(self, state: State, signals: Signals) -> tuple[NDArray[np.float64], State]:
        """The mixture of the segment in force at `signals.sample` and the same state.

        Raises:
            MixerError: The segment names a domain that the run does not have.
        """
        index = bisect_right([start for start, _ in self.segments], signals.sample) - 1
        if index < 0:
            return signals.mixture, state
        start, shares = self.segments[index]
        try:
            argument = f"segments[from sample {start}]"
            return as_mixture(shares, signals.domains, argument=argument), state
        except ValueError as err:
            raise MixerError(str(err)) from err
