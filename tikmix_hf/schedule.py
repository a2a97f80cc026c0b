"""MixtureSchedule: which mixture is in force from which sample on.

A schedule is a list of segments in ascending order; the first starts at sample 0, each ends where
the next begins. It is what a run leaves behind for others: a JSON file that binds shares to domain
names, plots, and replays as the `mixture` of another `InterleavedDomainDataset`.
"""

from __future__ import annotations

import itertools
import json
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.files import write_json
from tikmix_hf.mixture import as_mixture

FORMAT = "tikmix_hf.mixture_schedule"
VERSION = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One mixture and where it starts."""

    from_sample: int
    """First sample (ordinal of the run) under this mixture."""
    mixture: NDArray[np.float64]
    """(K,) shares of tokens, in the schedule's order of domains."""
    update: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able record of the update that made it: step, mixer, reason, cost."""

    def __post_init__(self) -> None:
        mixture_K = np.array(self.mixture, dtype=np.float64)
        mixture_K.flags.writeable = False
        object.__setattr__(self, "mixture", mixture_K)


@dataclass(frozen=True, slots=True)
class MixtureSchedule:
    """The mixtures of a run. Immutable; arrays are in the order of `domains`.

    Args:
        domains: names of the K domains.
        segments: at least one, the first from sample 0, in strictly ascending order.

    Raises:
        ValueError: a segment out of order, or a mixture that is none.

    Example:
        >>> schedule = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
        >>> schedule.mixture_at(10_000)
        {'web': 0.75, 'code': 0.25}
    """

    domains: tuple[str, ...]
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        starts = [segment.from_sample for segment in self.segments]
        if not starts or starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
            raise ValueError(
                "`segments` must start at sample 0 and ascend strictly; got from_sample = "
                f"{starts[:8]}. Sort them and give the first one from_sample=0."
            )

    @classmethod
    def constant(cls, mixture: Mapping[str, float]) -> MixtureSchedule:
        """Returns the schedule of one mixture for the whole run."""
        shares_K = as_mixture(mixture, tuple(mixture))
        return cls(tuple(mixture), (Segment(from_sample=0, mixture=shares_K),))

    def mixture_at(self, sample: int) -> dict[str, float]:
        """Returns the mixture in force at a sample, by name."""
        if sample < 0:
            raise ValueError(f"`sample` must be 0 or more; got {sample}.")
        index = bisect_right(self.segments, sample, key=lambda segment: segment.from_sample) - 1
        return dict(zip(self.domains, self.segments[index].mixture.tolist(), strict=True))

    def mean_between(self, start: int, stop: int) -> NDArray[np.float64]:
        """Returns the mixture that samples `start ... stop - 1` ask for on average, (K,)."""
        ends = [segment.from_sample for segment in self.segments[1:]] + [stop]
        lengths_S = [
            max(0, min(end, stop) - max(segment.from_sample, start))
            for segment, end in zip(self.segments, ends, strict=True)
        ]
        mixtures_SK = np.stack([segment.mixture for segment in self.segments])
        return np.array(lengths_S) @ mixtures_SK / max(stop - start, 1)

    def for_domains(self, names: Sequence[str]) -> MixtureSchedule:
        """Returns the same schedule in another order of the same domains.

        Raises:
            ValueError: the names are not the schedule's.
        """
        if set(names) != set(self.domains) or len(names) != len(self.domains):
            raise ValueError(
                f"The schedule is for the domains {list(self.domains)}; got {list(names)}. Name "
                "the domains of the run as the schedule does."
            )
        order = [self.domains.index(name) for name in names]
        segments = tuple(
            Segment(from_sample=s.from_sample, mixture=s.mixture[order], update=s.update)
            for s in self.segments
        )
        return MixtureSchedule(tuple(names), segments)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; floats keep all their bits."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "domains": list(self.domains),
            "segments": [
                {
                    "from_sample": segment.from_sample,
                    "mixture": dict(zip(self.domains, segment.mixture.tolist(), strict=True)),
                    "update": dict(segment.update),
                }
                for segment in self.segments
            ],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], *, origin: str = "schedule") -> MixtureSchedule:
        """Builds a schedule from `to_dict`'s record.

        Raises:
            ValueError: not a schedule, a newer version, or damaged; names `origin`.
        """
        if not isinstance(record, Mapping) or record.get("format") != FORMAT:
            raise ValueError(f"{origin} is not a mixture schedule (no format {FORMAT!r} in it).")
        if record.get("version") != VERSION:
            raise ValueError(
                f"{origin} has schedule version {record.get('version')!r}; this release reads "
                f"{VERSION}. Update tikmix-hf."
            )
        try:
            domains = tuple(str(name) for name in record["domains"])
            segments = tuple(
                Segment(
                    from_sample=int(segment["from_sample"]),
                    mixture=_as_written(segment["mixture"], domains),
                    update=dict(segment["update"]),
                )
                for segment in record["segments"]
            )
        except (KeyError, TypeError, AttributeError) as err:
            raise ValueError(f"{origin} is damaged: {type(err).__name__} {err}.") from err
        return cls(domains, segments)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the schedule as JSON; a crash while writing leaves the old file whole."""
        return write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MixtureSchedule:
        """Reads a schedule written by `save`.

        Raises:
            ValueError: the file is not JSON or not a schedule.
        """
        try:
            record = json.loads(Path(path).read_text("utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as err:
            raise ValueError(f"{path} is not JSON: {err}.") from err
        return cls.from_dict(record, origin=str(path))


def _as_written(mixture: Mapping[str, float], domains: tuple[str, ...]) -> NDArray[np.float64]:
    """Checks a mixture; keeps the bits of one that needs no rounding repair, as resume asks for."""
    shares_K = as_mixture(mixture, domains)
    written_K = np.array([mixture.get(name, 0.0) for name in domains], dtype=np.float64)
    return written_K if abs(written_K.sum() - 1.0) < 1e-12 else shares_K
