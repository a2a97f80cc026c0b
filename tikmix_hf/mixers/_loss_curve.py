"""A loss curve of bounded length: points (tokens, loss), neighbours merged where they get too many.

In go points one by one; out comes a curve of at most 500 points that all stand for equally many of
those, the last perhaps for fewer. Merging halves the curve, and new points are then merged as they
come, so that a run of any length is seen at one resolution. A merged point has the mean loss and
the geometric mean of the tokens, at which a power law of a small exponent has that mean: in
E + B n^-alpha ~ E + B - B alpha ln n it is the logarithms that are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

MOST_POINTS = 500
assert MOST_POINTS % 2 == 0  # a full curve is merged in pairs


class LossCurve(NamedTuple):
    """Points, ascending in tokens."""

    tokens: tuple[float, ...] = ()
    """Tokens that training had read, > 0."""
    losses: tuple[float, ...] = ()
    """Nats per token."""
    counts: tuple[int, ...] = ()
    """How many points each stands for."""


class _Point(NamedTuple):
    """One point of a curve."""

    tokens: float
    loss: float
    num_points: int


def extended(curve: LossCurve, points: Iterable[tuple[float, float]]) -> LossCurve:
    """The curve with more points (tokens, loss) at its end.

    Example:
        >>> extended(LossCurve(), [(100.0, 4.0), (200.0, 3.0)]).losses
        (4.0, 3.0)
    """
    held = [_Point(*entries) for entries in zip(*curve, strict=True)]
    for num_tokens, loss in points:
        new = _Point(num_tokens, loss, 1)
        if held and held[-1].num_points < held[0].num_points:
            held[-1] = _merged(held[-1], new)
            continue
        if len(held) == MOST_POINTS:
            held = [_merged(*pair) for pair in zip(held[::2], held[1::2], strict=True)]
        held.append(new)
    return LossCurve(*zip(*held, strict=True)) if held else curve


def _merged(first: _Point, second: _Point) -> _Point:
    """One point for two."""
    num_points = first.num_points + second.num_points
    part = second.num_points / num_points
    logs = (1 - part) * math.log(first.tokens) + part * math.log(second.tokens)
    return _Point(math.exp(logs), (1 - part) * first.loss + part * second.loss, num_points)
