"""MixtureSchedule: which mixture is in force from which sample on.

A schedule is a list of segments in ascending order; the first starts at sample 0, each ends where
the next begins. It is what a run leaves behind for others: a JSON file that binds shares to domain
names, plots, and replays as the `mixture` of another `InterleavedDomainDataset`.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.files import write_text
from tikmix_hf.mixture import as_mixture
from tikmix_hf.schedule import comparison, format, operations, reading, rescaling
from tikmix_hf.schedule.faults import ScheduleError
from tikmix_hf.schedule.parts import DomainCard, Run, Segment, check_together
from tikmix_hf.schedule.publishing import Published
from tikmix_hf.schedule.rendering import render

# Shape letters: K domains, S segments.


@dataclass(frozen=True, slots=True)
class MixtureSchedule(Published):
    """The mixtures of a run. Immutable; arrays are in the order of `domains`.

    Args:
        domains: names of the K domains.
        segments: at least one, the first from sample 0, in strictly ascending order.
        run: the run that it is of.
        cards: what is known of domains, by name.
        provenance: JSON-able record of who wrote it, with what, and what was done to it since.

    Raises:
        ScheduleError: a `ValueError`: a name that is none, a segment out of order, or a mixture
            that is none.

    Example:
        >>> schedule = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
        >>> schedule.mixture_at(10_000)
        {'web': 0.75, 'code': 0.25}
    """

    domains: tuple[str, ...]
    segments: tuple[Segment, ...]
    run: Run = field(default=Run(), kw_only=True)
    cards: Mapping[str, DomainCard] = field(default_factory=dict, kw_only=True)
    provenance: Mapping[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", tuple(self.domains))
        object.__setattr__(self, "segments", tuple(self.segments))
        check_together(self.domains, self.segments, self.cards)

    @classmethod
    def constant(cls, mixture: Mapping[str, float]) -> MixtureSchedule:
        """Returns the schedule of one mixture for the whole run."""
        shares_K = as_mixture(mixture, tuple(mixture))
        return cls(tuple(mixture), (Segment(from_sample=0, mixture=shares_K),))

    # What it says

    def mixture_at(self, sample: int) -> dict[str, float]:
        """Returns the mixture in force at a sample, by name."""
        if not sample >= 0:  # NaN too
            raise ValueError(f"`sample` must be 0 or more; got {sample}.")
        index = bisect_right(self.segments, sample, key=lambda segment: segment.from_sample) - 1
        return dict(zip(self.domains, self.segments[index].mixture.tolist(), strict=True))

    def mixture_at_fraction(self, fraction: float) -> dict[str, float]:
        """Returns the mixture in force after a fraction of the run, by name; 1 is its last sample.

        Raises:
            ScheduleError: the fraction is not in [0, 1], or the run's length is not known.
        """
        return self.mixture_at(operations.sample_at(self, fraction))

    def mean_between(self, start: int, stop: int) -> NDArray[np.float64]:
        """Returns the mixture that samples `start ... stop - 1` ask for on average, (K,)."""
        ends = [segment.from_sample for segment in self.segments[1:]] + [stop]
        lengths_S = [
            max(0, min(end, stop) - max(segment.from_sample, start))
            for segment, end in zip(self.segments, ends, strict=True)
        ]
        mixtures_SK = np.stack([segment.mixture for segment in self.segments])
        return np.array(lengths_S) @ mixtures_SK / max(stop - start, 1)

    def diff(self, other: MixtureSchedule, *, by: str = "sample") -> comparison.ScheduleDiff:
        """Returns what differs from this schedule to another: domains, and mixtures by interval.

        Args:
            other: of the same domains or others; a domain that one has not got has share 0 there.
            by: "sample" or "fraction", which compares runs of different lengths.

        Raises:
            ScheduleError: `by` is neither, or "fraction" and a run's length is not known.
        """
        return comparison.diff(self, other, by=by)

    # Others like it

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
        segments = tuple(replace(s, mixture=s.mixture[order]) for s in self.segments)
        return replace(self, domains=tuple(names), segments=segments)

    def merge(self, other: MixtureSchedule, *, from_sample: int | None = None) -> MixtureSchedule:
        """Returns this schedule up to a sample, and the other one from there on.

        Domains that only one of them has get share 0 in the other's part. Of a domain that both
        have, what this one's card does not say is taken from the other's. `provenance` is this
        one's; the note in its "operations" has the other's, whose operations come before it.

        Args:
            other: follows; its sample 0 is this one's `from_sample`.
            from_sample: None takes the end of this schedule's run.

        Raises:
            ScheduleError: the run's length is needed and not known, or a domain of one name has
                different text (fingerprints) in both.
        """
        return operations.merge(self, other, from_sample=from_sample)

    def rename(self, names: Mapping[str, str]) -> MixtureSchedule:
        """Returns the same schedule with other names of domains.

        Several domains may get one name; their shares, tokens and rows then add up. Each of them
        must be in `names`, so that none is merged by mistake. A renamed domain loses its
        fingerprint, which is of its name too. Records of updates keep the names of their run.

        Args:
            names: new names by old ones; a domain that is left out keeps its name.

        Raises:
            ScheduleError: an old name is unknown, or a new one is taken.
        """
        return operations.rename(self, names)

    def rescale(
        self,
        *,
        num_samples: int | None = None,
        by: str = "fraction",
        tokens_per_sample: float | None = None,
    ) -> MixtureSchedule:
        """Returns the schedule for a run of another length or another size of sample.

        Mixtures keep their bits. A segment starts at the sample nearest to the same fraction of
        the run, or to the same number of tokens, halves rounding up. Where that leaves a segment
        without a sample, the later of two that start together stays; one that starts after the end
        is left out. `provenance["operations"]` names those.

        Args:
            num_samples: length of the new run; None, with `by="tokens"`, keeps the run's tokens.
            by: "fraction" or "tokens".
            tokens_per_sample: mean of the new run; None takes the old run's. Where rows differ in
                length, a sample brings more tokens under one mixture than under another; the
                segments' own tokens per sample are scaled alike, by the new mean over the old, so
                that each keeps its part of all tokens. Segments without tokens share what the
                others leave of the run's.

        Raises:
            ScheduleError: `by` is neither, or what is needed of the old run is not known.
        """
        return rescaling.rescale(
            self, num_samples=num_samples, by=by, tokens_per_sample=tokens_per_sample
        )

    def average(self) -> MixtureSchedule:
        """Returns the static schedule that asks for as many tokens of each domain in all.

        That is the mean of the mixtures, weighted by the segments' tokens, or, where some of them
        are not known, by their samples. A schedule of one segment is its own average.

        Raises:
            ScheduleError: there are several segments, and the run's length is not known.
        """
        return operations.average(self)

    # Its file

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types, as the file has them; floats keep all their bits."""
        return format.to_record(self.domains, self.segments, self.run, self.cards, self.provenance)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], *, origin: str = "schedule") -> MixtureSchedule:
        """Builds a schedule from `to_dict`'s record, of this or an earlier version.

        Raises:
            ScheduleError: not a schedule, a newer version, or damaged; names `origin`, the place,
                the value and the mend.
        """
        reading.check_values(record, origin=origin)
        return cls(**format.from_record(record, origin=origin))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the schedule as JSON; a crash while writing leaves the old file whole.

        Raises:
            ScheduleError: a record of an update, or `provenance`, has what JSON has not, such as
                NaN; the old file stays.
        """
        return write_text(path, self.to_json())

    def to_json(self) -> str:
        """Returns the text of the file.

        Raises:
            ScheduleError: as `save`.
        """
        record = self.to_dict()
        try:
            text = render(record) + "\n"
            content = text.encode()
        except (TypeError, ValueError, RecursionError) as err:
            raise ScheduleError(
                f"`update` and `provenance` must be JSON; {err}. Leave that out, or make it null."
            ) from err
        self.from_json(content)  # what is written can be read
        return text

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str] | IO[bytes],
        *,
        max_bytes: int = reading.MAX_BYTES,
    ) -> MixtureSchedule:
        """Reads a schedule's file, of this or an earlier version.

        Args:
            source: a path, or a stream of bytes.
            max_bytes: size beyond which it is not read.

        Raises:
            ScheduleError: a `ValueError`: too large, not JSON or not a schedule, a newer version,
                or damaged; names the place, the value and the mend.
            OSError: the file is not there, or may not be read.
        """
        if isinstance(source, (str, os.PathLike)):
            origin, content = os.fspath(source), reading.read_bytes(source, max_bytes=max_bytes)
        else:
            origin = "stream"
            content = reading.read_stream(source, origin=origin, max_bytes=max_bytes)
        return cls.from_json(content, origin=origin)

    @classmethod
    def from_json(cls, content: bytes, *, origin: str = "schedule") -> MixtureSchedule:
        """Builds a schedule from the content of a file.

        Raises:
            ScheduleError: as `load`.
        """
        return cls(**format.from_record(reading.parse(content, origin=origin), origin=origin))
