"""Gains: what a move of the mixture promises each target.

In: influence S, the mixture in force q, another mixture w. Out: S (w - q), each target in a unit of
its own: 1 is the most that moving everything to one domain would change.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Shape letters: J targets, K domains, R rounds.

Array = NDArray[np.float64]


class Gains(NamedTuple):
    """What a move promises each target."""

    values: Array
    """(J,) S (w - q), 1 being what the target's strongest domain would gain (or lose) alone."""
    stderr: Array
    """(J,) standard error of `values` over rounds, for a mixture chosen beforehand; NaN for one
    round. A mixture that was chosen by the same rounds makes `values` lean upwards."""


def scales(values_JK: Array, mixture_K: Array) -> Array:
    """(J,) largest |S_jk - S_j q| with q the mixture in force; 1 where nothing moves a target."""
    largest_J = np.abs(values_JK - (values_JK @ mixture_K)[:, None]).max(axis=1)
    return np.where(largest_J > 0, largest_J, 1.0)


def gains(values_JK: Array, rounds_RJK: Array | None, mixture_K: Array, proposed_K: Array) -> Gains:
    """Returns what a move from one mixture to another promises.

    Example:
        >>> S = np.array([[2.0, 0.0]])
        >>> gains(S, None, np.array([0.5, 0.5]), np.array([0.75, 0.25])).values.tolist()
        [0.5]
    """
    scale_J = scales(values_JK, mixture_K)
    move_K = proposed_K - mixture_K
    gains_J = values_JK @ move_K / scale_J
    if rounds_RJK is None or len(rounds_RJK) < 2:
        return Gains(gains_J, np.full(len(scale_J), np.nan))
    gains_RJ = rounds_RJK @ move_K / scale_J
    return Gains(gains_J, gains_RJ.std(axis=0, ddof=1) / len(gains_RJ) ** 0.5)
