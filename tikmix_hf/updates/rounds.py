"""Rounds: an update measures in pieces, and stops when another piece would not matter.

In: a function that measures one round of fresh text, a function that says which mixture would
follow. Out: the mean of the rounds that were measured. After each round the mixer is asked what it
would propose from the mean of all rounds so far; once two proposals in a row differ by at most
`tolerance` in total variation (share of tokens that would change domain), the other rounds are
saved. The rounds also serve the noise guard.
"""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import total_variation
from tikmix_hf.signals.matrix import InfluenceMatrix


class Rounds(NamedTuple):
    """What an update has measured."""

    matrix: InfluenceMatrix
    """The mean of the rounds."""
    each: tuple[InfluenceMatrix, ...]
    """The rounds, at least one."""
    change: float | None
    """Total variation between the last two proposals; None where there were no two."""


def measure_in_rounds(
    measure: Callable[[int], InfluenceMatrix],
    propose: Callable[[InfluenceMatrix], NDArray[np.float64] | None],
    *,
    num_rounds: int,
    tolerance: float,
) -> Rounds:
    """Measures up to `num_rounds` rounds.

    Args:
        measure: gives the influence of round r = 0, 1, ..., each of text of its own.
        propose: gives the mixture (K,) that would follow from an influence, or None where none
            does; the same on every rank.
        num_rounds: rounds at the most.
        tolerance: total variation up to which two proposals count as the same; 0 measures all.
    """
    each = [measure(0)]
    matrix, change = each[0], None
    last_K = propose(matrix) if num_rounds > 1 else None
    while len(each) < num_rounds and not _is_within(change, tolerance):
        each.append(measure(len(each)))
        matrix = InfluenceMatrix.mean(each)
        proposal_K = propose(matrix)
        change = None
        if proposal_K is not None and last_K is not None:
            change = total_variation(proposal_K, last_K)
        last_K = proposal_K
    return Rounds(matrix, tuple(each), change)


def _is_within(change: float | None, tolerance: float) -> bool:
    return change is not None and tolerance > 0 and change <= tolerance
