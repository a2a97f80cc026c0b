"""Rescaling: where the segments of a run start on a run of another length.

In: a schedule, the new run's samples, or the tokens that each of them brings. Out: a schedule of
the same mixtures for the new run. A start is the sample nearest to the same fraction of the run, or
to the same number of tokens, in exact arithmetic; halves round up.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING

from tikmix_hf.schedule.faults import ScheduleError, fault
from tikmix_hf.schedule.operations import known_length, noted
from tikmix_hf.schedule.parts import MAX_INTEGER, Run, Segment, count, finite_number

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule


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
    if tokens_per_sample is None:
        tokens_per_sample = schedule.run.tokens_per_sample
    elif not (finite_number(tokens_per_sample) and tokens_per_sample > 0):
        raise fault("tokens_per_sample", "positive and finite", tokens_per_sample, "Mend it.")
    if by == "fraction":
        exact = _by_fraction(schedule, num_samples)
    elif by == "tokens":
        exact, num_samples = _by_tokens(schedule, tokens_per_sample, num_samples)
    else:
        raise fault("by", '"fraction" or "tokens"', by, "Choose one.")
    starts = [_nearest(start) for start in exact]
    end = num_samples if num_samples is not None else max(starts) + 1
    kept, left_out = _kept(schedule.segments, starts, end)
    run = Run(
        num_samples=num_samples,
        num_tokens=_tokens(num_samples, tokens_per_sample),
    )
    note = {
        "by": by,
        "run": {key: value for key, value in asdict(schedule.run).items() if value is not None},
        "left_out_from_samples": left_out,
    }
    segments = _with_tokens(kept, run, tokens_per_sample)
    return noted(schedule, segments, {"rescale": note}, run=run)


def _by_fraction(schedule: MixtureSchedule, num_samples: int | None) -> list[Fraction]:
    if num_samples is None:
        raise ScheduleError(
            '`num_samples` must be given with by="fraction"; got None. Pass the new run\'s length.'
        )
    factor = Fraction(num_samples, known_length(schedule, 'rescale(by="fraction")'))
    return [segment.from_sample * factor for segment in schedule.segments]


def _by_tokens(
    schedule: MixtureSchedule, tokens_per_sample: float | None, num_samples: int | None
) -> tuple[list[Fraction], int | None]:
    """Starts on the new run, and its length: if it is not given, that of as many tokens."""
    tokens = [segment.num_tokens for segment in schedule.segments]
    known = [number for number in tokens if number is not None]
    earlier, total = schedule.run.tokens_per_sample, schedule.run.num_tokens
    if tokens_per_sample is None or (len(known) < len(tokens) and earlier is None):
        raise ScheduleError(
            '`rescale(by="tokens")` needs the tokens of segments, or `run.num_samples` and '
            "`run.num_tokens`, which the schedule has not got, and `tokens_per_sample` of the new "
            "run. Rescale by fraction, or give them."
        )
    if len(known) == len(tokens):
        before, total = [0, *accumulate(known)][:-1], sum(known)
    else:
        assert earlier is not None
        before = [segment.from_sample * Fraction(earlier) for segment in schedule.segments]
    per_sample = Fraction(tokens_per_sample)
    if num_samples is None and total is not None:
        num_samples = max(_nearest(total / per_sample), 1)
    return [number / per_sample for number in before], num_samples


def _kept(
    segments: tuple[Segment, ...], starts: list[int], end: int
) -> tuple[list[Segment], list[int]]:
    """Segments that have samples of their own, and where the others started before."""
    kept: list[Segment] = []
    left_out: list[int] = []
    for segment, start, stop in zip(segments, starts, [*starts[1:], end], strict=True):
        if start < min(stop, end):
            kept.append(replace(segment, from_sample=start))
        else:
            left_out.append(segment.from_sample)
    return kept, left_out


def _with_tokens(
    segments: list[Segment], run: Run, tokens_per_sample: float | None
) -> tuple[Segment, ...]:
    """Segments with the new run's tokens; their sum is the run's."""
    stops = [*(segment.from_sample for segment in segments[1:]), run.num_samples]
    with_tokens = []
    for segment, stop in zip(segments, stops, strict=True):
        until, before = (_tokens(s, tokens_per_sample) for s in (stop, segment.from_sample))
        tokens = None if until is None or before is None else until - before
        with_tokens.append(replace(segment, num_tokens=tokens))
    return tuple(with_tokens)


def _tokens(num_samples: int | None, tokens_per_sample: float | None) -> int | None:
    """Tokens of the first samples of the new run."""
    if num_samples is None or tokens_per_sample is None:
        return None
    tokens = _nearest(num_samples * Fraction(tokens_per_sample))
    return tokens if tokens <= MAX_INTEGER else None


def _nearest(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))
