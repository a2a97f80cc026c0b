"""What came of a claim: intervals, and the words "holds here", "does not hold here", "open".

In: correlations, or differences by seed. Out: an `Interval` and a `Verdict` line. A claim is put as
"this number is above (or below) a bar" before it is measured: it holds where all of the 95 %
interval is on the right side, it does not where all of it is on the wrong side, and is open
otherwise. Without an interval, that is with a single seed, nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

HOLDS, FAILS, OPEN = "holds here", "does not hold here", "open"
POINT_975 = float(stats.norm.ppf(0.975))
"""Of the normal distribution."""


class Interval(NamedTuple):
    """An estimate with its 95 % interval; NaN ends where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({self.low:.3f} ... {self.high:.3f})"

    @property
    def signed(self) -> str:
        """With signs and four digits, for differences."""
        if math.isnan(self.low):
            return f"{self.value:+.4f} (no interval)"
        return f"{self.value:+.4f} ({self.low:+.4f} ... {self.high:+.4f})"


class Verdict(NamedTuple):
    """A reproduction's last line."""

    claim: str
    """What the paper says, as a number above or below a bar."""
    paper: str
    """Its figure."""
    ours: str
    """The figure here, with its interval."""
    held: str
    """HOLDS, FAILS or OPEN."""

    @property
    def line(self) -> str:
        """All of it."""
        return f"{self.claim} Paper: {self.paper}. Here: {self.ours}. Verdict: {self.held}."


def held(found: Interval, bar: float, *, above: bool = True) -> str:
    """Whether a number is on the right side of a bar, interval and all.

    Args:
        found: the number.
        bar: what the claim says it exceeds; being equal is no decision.
        above: whether the right side is above it.

    Example:
        >>> held(Interval(0.5, 0.2, 0.7), 0.0), held(Interval(0.5, 0.2, 0.7), 0.6)
        ('holds here', 'open')
    """
    if found.low > bar:
        return HOLDS if above else FAILS
    if found.high < bar:
        return FAILS if above else HOLDS
    return OPEN


def together(parts: Sequence[str]) -> str:
    """Of a claim with several parts: each of them must hold, and none may fail."""
    if FAILS in parts:
        return FAILS
    return OPEN if OPEN in parts else HOLDS


def of_correlation(r: Sequence[float] | float, num: int) -> Interval:
    """95 % interval of Pearson's r, by Fisher's z (1921).

    Args:
        r: correlations over the same `num` things, such as those of several seeds, which are
            averaged as z. They share the things, so that the interval is as wide as that of one.
        num: what each is over.
    """
    z = float(np.arctanh(np.atleast_1d(r)).mean())
    if num < 4:
        return Interval(math.tanh(z), math.nan, math.nan)
    half = POINT_975 / math.sqrt(num - 3)
    return Interval(math.tanh(z), math.tanh(z - half), math.tanh(z + half))


def of_mean(values_S: Sequence[float] | np.ndarray) -> Interval:
    """Mean of independent values, such as those of seeds, with Student's t interval."""
    values = np.asarray(values_S, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, math.nan, math.nan)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Interval(mean, mean - float(half), mean + float(half))
