"""Schedules for tests, in a line."""

from __future__ import annotations

from tikmix_hf.schedule import MixtureSchedule, Run, Segment


def make(
    *parts, names=("web", "code"), tokens=None, num_samples: int | None = 100, **run
) -> MixtureSchedule:
    """Parts are (from_sample, shares); `tokens` has those of each segment."""
    numbers = [None] * len(parts) if tokens is None else tokens
    segments = tuple(
        Segment(from_sample=start, mixture=shares, num_tokens=number)
        for (start, shares), number in zip(parts, numbers, strict=True)
    )
    return MixtureSchedule(names, segments, run=Run(num_samples=num_samples, **run))


HALVES = ((0, [1.0, 0.0]), (25, [0.5, 0.5]), (75, [0.0, 1.0]))
