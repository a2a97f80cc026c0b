"""Rescaling: where the segments of a run start on a run of another length.

In: a schedule, the new run's samples, or the tokens that each of them brings. Out: a schedule of
the same mixtures for the new run. A start is the sample nearest to the same fraction of the run, or
to the same number of tokens, in exact arithmetic; halves round up.

Where rows differ in length, what a sample brings depends on the mixture. So each segment keeps its
own tokens per sample, and a new run's `tokens_per_sample` scales them all alike: the new run's mean
over the old one's. The segments' parts of all tokens, and with them the average, then stay.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from tikmix_hf.schedule.faults import ScheduleError, fault
from tikmix_hf.schedule.operations import known_length, lengths, noted
from tikmix_hf.schedule.parts import MAX_INTEGER, Run, Segment, count, finite_number

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule


class _Rates(NamedTuple):
    """Tokens that a sample brings."""

    by_segment: list[Fraction | None]
    """(S,) under each mixture; None where that is not known."""
    mean: Fraction | None
    """Over the run; None where it is not known, or 0."""


def rescale(
    schedule: MixtureSchedule,
    *,
    num_samples: int | None,
    by: str,
    tokens_per_sample: float | None,
) -> MixtureSchedule:
    """The same mixtures on another run; see `MixtureSchedule.rescale`."""
    if num_samples is not None:
        num_samples = count("num_samples", num_samples, least=1)
    per_sample = None
    if tokens_per_sample is not None:
        if not (finite_number(tokens_per_sample) and float(tokens_per_sample) > 0):
            raise fault("tokens_per_sample", "positive and finite", tokens_per_sample, "Mend it.")
        per_sample = Fraction(float(tokens_per_sample))  # numpy's numbers too
    earlier = _rates(schedule)
    if by == "fraction":
        exact, num_samples = _by_fraction(schedule, num_samples)
    elif by == "tokens":
        exact, num_samples = _by_tokens(schedule, earlier.mean, per_sample, num_samples)
    else:
        raise fault("by", '"fraction" or "tokens"', by, "Choose one.")
    starts = [_nearest(start) for start in exact]
    rates = _scaled(earlier, per_sample)
    segments, left_out = _kept(schedule.segments, starts, rates, num_samples)
    tokens = [segment.num_tokens for segment in segments]
    total = None if None in tokens else sum(filter(None, tokens))
    note = {
        "by": by,
        "run": {key: value for key, value in asdict(schedule.run).items() if value is not None},
        "left_out_from_samples": left_out,
    }
    run = Run(num_samples=num_samples, num_tokens=total)
    return noted(schedule, segments, {"rescale": note}, run=run)


def _rates(schedule: MixtureSchedule) -> _Rates:
    """Of each segment its own; those without tokens share what the others leave of the run's."""
    segments, run = schedule.segments, schedule.run
    if run.num_samples is None:
        return _Rates([None] * len(segments), None)
    parts = [
        (samples, segment.num_tokens)
        for samples, segment in zip(lengths(schedule, "rescale"), segments, strict=True)
    ]
    known = sum(tokens for samples, tokens in parts if samples and tokens is not None)
    open_samples = sum(samples for samples, tokens in parts if tokens is None)
    rest = None
    if open_samples and run.num_tokens is not None:
        rest = Fraction(max(run.num_tokens - known, 0), open_samples)
    mean = None
    if not open_samples or rest is not None:
        mean = (known + (rest or 0) * open_samples) / Fraction(run.num_samples)
    own = [
        (rest if tokens is None else Fraction(tokens, samples)) if samples else mean
        for samples, tokens in parts
    ]
    return _Rates(own, mean or None)


def _scaled(earlier: _Rates, per_sample: Fraction | None) -> list[Fraction | None]:
    """(S,) tokens that a sample of the new run brings under each mixture."""
    if per_sample is None:
        return earlier.by_segment
    if earlier.mean is None:
        return [per_sample] * len(earlier.by_segment)
    factor = per_sample / earlier.mean
    return [None if rate is None else rate * factor for rate in earlier.by_segment]


def _by_fraction(schedule: MixtureSchedule, num_samples: int | None) -> tuple[list[Fraction], int]:
    """Starts on the new run, and its length."""
    if num_samples is None:
        raise ScheduleError(
            '`num_samples` must be given with by="fraction"; got None. Pass the new run\'s length.'
        )
    factor = Fraction(num_samples, known_length(schedule, 'rescale(by="fraction")'))
    return [segment.from_sample * factor for segment in schedule.segments], num_samples


def _by_tokens(
    schedule: MixtureSchedule,
    mean: Fraction | None,
    per_sample: Fraction | None,
    num_samples: int | None,
) -> tuple[list[Fraction], int]:
    """Starts on the new run, and its length: if it is not given, that of as many tokens."""
    tokens = [segment.num_tokens for segment in schedule.segments]
    known = [number for number in tokens if number is not None]
    if mean is not None:
        # Every sample brings `factor` samples' tokens, whatever the mixture.
        factor = mean / (per_sample or mean)
        starts = [segment.from_sample * factor for segment in schedule.segments]
        length = known_length(schedule, "rescale") * factor
    elif per_sample is not None and len(known) == len(tokens):
        starts = [number / per_sample for number in [0, *accumulate(known)][:-1]]
        length = sum(known) / per_sample
    else:
        raise ScheduleError(
            '`rescale(by="tokens")` needs the tokens of segments, or `run.num_samples` and '
            "`run.num_tokens`, which the schedule has not got, and `tokens_per_sample` of the new "
            "run. Rescale by fraction, or give them."
        )
    if num_samples is None:
        num_samples = max(_nearest(length), 1)
        if num_samples > MAX_INTEGER:
            rule = f"so large that the run has at most {MAX_INTEGER} samples"
            raise fault("tokens_per_sample", rule, float(per_sample or 0), "Mend it.")
    return starts, num_samples


def _kept(
    segments: tuple[Segment, ...], starts: list[int], rates: list[Fraction | None], end: int
) -> tuple[tuple[Segment, ...], list[int]]:
    """Segments that have samples of their own, and where the others started before.

    Tokens are rounded where a segment ends, so that their sum is the nearest to the exact one.
    """
    kept: list[Segment] = []
    left_out: list[int] = []
    before = Fraction(0)
    stops = [min(stop, end) for stop in (*starts[1:], end)]
    for segment, start, stop, rate in zip(segments, starts, stops, rates, strict=True):
        if start >= stop:
            left_out.append(segment.from_sample)
            continue
        tokens = None
        if rate is not None:
            until = before + (stop - start) * rate
            tokens = _nearest(until) - _nearest(before)
            before = until
        is_count = tokens is not None and before <= MAX_INTEGER
        kept.append(replace(segment, from_sample=start, num_tokens=tokens if is_count else None))
    return tuple(kept), left_out


def _nearest(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))
