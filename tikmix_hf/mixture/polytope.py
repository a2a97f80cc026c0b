"""The polytope of mixtures that obey floors, caps, epochs and groups, and linear programs over it.

In go bounds on shares and on sums of shares; out come whether a mixture obeys them, whether any
does, and the least that every one of them must move. The nearest one is found by `nearest`.
"""

# Shape letters: K domains, G group rows, R rows of a linear program.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import OptimizeResult, linprog

from tikmix_hf.mixture.simplex import ROUNDING

Array = NDArray[np.float64]

# A share that is off by a token in 10^9 is not off: HiGHS is asked for a tenth of this.
TOLERANCE = 1e-9


class Polytope(NamedTuple):
    """All mixtures w with lower <= w <= upper and rows @ w >= least."""

    lower_K: Array
    upper_K: Array
    rows_GK: Array
    """A group's domains are 1 in a row that asks for a least sum, -1 in one that asks for a
    largest; 0 elsewhere. Epochs of rows of unequal lengths have rows of other numbers."""
    least_G: Array

    @classmethod
    def box(cls, lower: ArrayLike, upper: ArrayLike) -> Polytope:
        """The one without groups."""
        lower_K, upper_K = np.array(lower, dtype=np.float64), np.array(upper, dtype=np.float64)
        return cls(lower_K, upper_K, np.zeros((0, len(lower_K))), np.zeros(0))

    def with_row(self, row_K: Array, least: float) -> Polytope:
        """The part of it where also row @ w >= least."""
        rows_GK, least_G = np.vstack([self.rows_GK, row_K]), np.append(self.least_G, least)
        return self._replace(rows_GK=rows_GK, least_G=least_G)

    def violation(self, mixture_K: Array) -> float:
        """How far the mixture is outside, at the bound or row that it misses most; 0 inside."""
        return max(
            0.0,
            float((self.lower_K - mixture_K).max()),
            float((mixture_K - self.upper_K).max()),
            float((self.least_G - self.rows_GK @ mixture_K).max(initial=0.0)),
        )

    def contains(self, mixture_K: Array, *, tolerance: float = ROUNDING) -> bool:
        """Whether the mixture obeys every bound and row, but for rounding."""
        return self.violation(mixture_K) <= tolerance


def is_empty(polytope: Polytope) -> bool:
    """Whether no mixture is inside, even where every bound gives way by `TOLERANCE`."""
    lower_K, upper_K = polytope.lower_K, polytope.upper_K
    if (lower_K > upper_K + TOLERANCE).any():
        return True
    if lower_K.sum() > 1 + TOLERANCE or upper_K.sum() < 1 - TOLERANCE:
        return True
    return len(polytope.least_G) > 0 and _shortfall(polytope) > TOLERANCE


def least_sum(polytope: Polytope, row_K: Array) -> float:
    """The least row @ w over a polytope that is not empty."""
    return float(row_K @ _solved(polytope, row_K).x[: len(row_K)])


def least_change(polytope: Polytope, mixture_K: Array) -> float:
    """The least total variation from a mixture to a polytope that is not empty.

    The total variation (1/2) sum_k |w_k - q_k| is lifted: d_k >= w_k - q_k, d_k >= q_k - w_k.
    """
    num_domains = len(mixture_K)
    eye_KK = np.eye(num_domains)
    rows = np.block([[-eye_KK, eye_KK], [eye_KK, eye_KK]])
    cost = np.append(np.zeros(num_domains), np.full(num_domains, 0.5))
    result = _solved(polytope, cost, rows, np.concatenate([-mixture_K, mixture_K]))
    return float(result.fun)


def _shortfall(polytope: Polytope) -> float:
    """By how much all group rows and the sum must give way for a mixture to be inside."""
    num_domains = len(polytope.lower_K)
    ones_1K = np.ones((1, num_domains))
    rows_RK = np.vstack([polytope.rows_GK, ones_1K, -ones_1K])
    least_R = np.concatenate([polytope.least_G, [1.0, -1.0]])
    result = linprog(
        np.append(np.zeros(num_domains), 1.0),
        A_ub=-np.column_stack([rows_RK, np.ones(len(rows_RK))]),
        b_ub=-least_R,
        bounds=[*_bounds(polytope), (0, None)],
        options=_OPTIONS,
    )
    assert result.x is not None, result.message
    return float((least_R - rows_RK @ result.x[:-1]).max())


def _solved(
    polytope: Polytope,
    cost: Array,
    more_rows: Array | None = None,
    more_least: Array | None = None,
) -> OptimizeResult:
    """Least cost over the polytope, whose K shares come first among the unknowns."""
    num_domains, num_more = len(polytope.lower_K), len(cost) - len(polytope.lower_K)
    rows, least = np.pad(polytope.rows_GK, ((0, 0), (0, num_more))), polytope.least_G
    if more_rows is not None and more_least is not None:
        rows, least = np.vstack([rows, more_rows]), np.concatenate([least, more_least])
    total = np.append(np.ones(num_domains), np.zeros(num_more))
    for give in (0.0, TOLERANCE):  # the second for what `is_empty` lets pass
        result = linprog(
            cost,
            A_ub=np.vstack([-rows, total, -total]),
            b_ub=np.concatenate([-least, [1.0, -1.0]]) + give,
            bounds=[*_bounds(polytope), *[(0, None)] * num_more],
            options=_OPTIONS,
        )
        if result.x is not None:
            return result
    raise ValueError(f"a linear program over the constraints was not solved: {result.message}")


def _bounds(polytope: Polytope) -> list[tuple[float, float]]:
    upper_K = np.maximum(polytope.lower_K, polytope.upper_K)  # they may cross by rounding
    return list(zip(polytope.lower_K.tolist(), upper_K.tolist(), strict=True))


_OPTIONS = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
