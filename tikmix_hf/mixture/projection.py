"""The mixture within floors, caps and groups that is nearest in Kullback-Leibler divergence.

In go a mixture m and a `Polytope`; out comes the one minimiser of KL(w | m) over it:

    minimise  sum_k w_k log(w_k / m_k)   subject to  l <= w <= u,  R w >= b,  sum_k w_k = 1.

Without group rows that is `project`. With them, the rows have multipliers mu >= 0, and for given
ones the minimiser is w(mu) = project(m exp(R^T mu)): the dual has only as many unknowns as there
are rows. It is concave with gradient b - R w(mu), and is climbed by a projected Newton method
(Bertsekas, "Projected Newton methods for optimization problems with simple constraints", 1982).
Weak duality bounds how far any point is from the optimum, so what is returned is verified.

Where m_k = 0, KL(w | m) is infinite at every w with w_k > 0. Such domains get as little as the
polytope lets them have, and share it as if each had had a vanishing equal share, as in `project`.
"""

# Shape letters: K domains, G group rows.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import rel_entr

from tikmix_hf.mixture.polytope import TOLERANCE, Polytope, is_empty, least_change, least_sum
from tikmix_hf.mixture.simplex import ROUNDING, normalise, project, read_only

Array = NDArray[np.float64]

MAX_STEPS = 200  # 5 are usual; one per unit of log w_k where rows leave a domain nothing
# Of KL(w | m), which is 2-strongly convex in total variation: shares are known to 1e-5, but it is
# float64 that ends the climb, at 1e-15 or so.
MAX_GAP = 1e-8
# Rows that a ball of total variation may take; 1 is usual.
MAX_CUTS = 100
_LARGEST_MOVE = 20.0  # of a multiplier in one step, in units of log w_k
_LEAST_LOG = -700.0  # exp of less is no float64


def nearest(mixture: ArrayLike, polytope: Polytope) -> Array:
    """The mixture (K,) within the polytope that is nearest in KL(w | mixture), read-only.

    Raises:
        ValueError: No mixture is inside, or float64 did not find the nearest.

    Example:
        The first two may have half; they keep their ratio.

        >>> half = Polytope.box([0, 0, 0], [1, 1, 1]).with_row(np.array([-1.0, -1, 0]), -0.5)
        >>> nearest([0.6, 0.3, 0.1], half).round(12).tolist()
        [0.333333333333, 0.166666666667, 0.5]
    """
    mixture_K = normalise(mixture)
    if is_empty(polytope):
        raise ValueError("`polytope` must leave room for a mixture; its bounds exclude each other.")
    polytope = _without_rounding(polytope)
    if len(polytope.least_G) == 0:
        return project(mixture_K, polytope.lower_K, polytope.upper_K)
    mixture_K, polytope = _without_empty(mixture_K, polytope)
    best = _climbed(mixture_K, polytope)
    if not best.is_verified:
        best = _climbed(mixture_K, _without_implied(polytope))
    if not best.is_verified:
        raise ValueError(
            "the nearest mixture within the constraints was not found: the best one breaks them by "
            f"{best.violation:.1e}, its divergence may be {best.gap:.1e} too large."
        )
    return read_only(best.mixture_K)


def nearest_within(
    mixture: ArrayLike, polytope: Polytope, in_force_K: Array, max_change: float
) -> tuple[Array | None, Polytope]:
    """`nearest`, among the mixtures that differ from another by at most a total variation.

    The ball is a row w(A) <= q(A) + max_change for every set A of domains. The one that the nearest
    mixture breaks most is put in, time after time, until it breaks none: at once from the middle of
    the ball, after about K rows from elsewhere.

    Returns:
        (K,) mixture, read-only, or None where there is none, and the polytope with the rows that
        were put in, to begin with next time.

    Raises:
        ValueError: Float64 did not find it.
    """
    if is_empty(polytope):
        return None, polytope
    if max_change < 1 and least_change(polytope, in_force_K) > max_change + TOLERANCE:
        return None, polytope
    for _ in range(MAX_CUTS):
        found_K = nearest(mixture, polytope)
        gains_K = found_K > in_force_K
        if (found_K - in_force_K)[gains_K].sum() <= max_change + 0.5 * TOLERANCE:
            return found_K, polytope
        most = float(in_force_K[gains_K].sum()) + max_change
        polytope = polytope.with_row(-gains_K.astype(np.float64), -most)
    raise ValueError(f"the nearest mixture within `max_change` was not found in {MAX_CUTS} cuts.")


def _without_rounding(polytope: Polytope) -> Polytope:
    """Bounds that cross, or exclude a sum of 1, by less than `TOLERANCE` no longer do."""
    lower_K, upper_K = polytope.lower_K, np.maximum(polytope.lower_K, polytope.upper_K)
    if lower_K.sum() > 1:
        lower_K = lower_K / lower_K.sum()
    if upper_K.sum() < 1:
        upper_K = upper_K / upper_K.sum()
    return polytope._replace(lower_K=lower_K, upper_K=upper_K)


def _without_empty(mixture_K: Array, polytope: Polytope) -> tuple[Array, Polytope]:
    """The same task without a share of 0: what domains without one must have is put in as a cap."""
    empty_K = mixture_K == 0
    if not empty_K.any():
        return mixture_K, polytope
    least, floor = (
        least_sum(polytope, empty_K.astype(np.float64)),
        float(polytope.lower_K[empty_K].sum()),
    )
    mixture_K = np.where(empty_K, 1.0, mixture_K)
    if least <= floor + TOLERANCE:
        upper_K = np.where(empty_K, polytope.lower_K, polytope.upper_K)
        if not is_empty(fixed := polytope._replace(upper_K=upper_K)):
            return mixture_K, _without_rounding(fixed)
    return mixture_K, polytope.with_row(-empty_K.astype(np.float64), -least - 0.1 * TOLERANCE)


def _without_implied(polytope: Polytope) -> Polytope:
    """Domains that the rows together leave nothing are capped at 0.

    Their multipliers are infinite, and many rows that share one can climb there very slowly.
    """
    most_K = [-least_sum(polytope, -chosen_K) for chosen_K in np.eye(len(polytope.lower_K))]
    upper_K = np.where(np.array(most_K) <= TOLERANCE, polytope.lower_K, polytope.upper_K)
    return polytope._replace(upper_K=upper_K)


class _Point(NamedTuple):
    """Where the climb is, and what is known of it."""

    multipliers_G: Array
    mixture_K: Array
    slack_G: Array
    """R w - b, the dual's falling gradient."""
    value: float
    """The dual's value: no mixture inside has a lower divergence."""
    gap: float
    """By how much the divergence of `mixture_K` exceeds `value`: sum of multiplier * slack."""

    @property
    def violation(self) -> float:
        return float(-self.slack_G.min(initial=0.0))

    @property
    def is_verified(self) -> bool:
        return self.violation <= TOLERANCE and abs(self.gap) <= MAX_GAP

    @property
    def error(self) -> float:
        """0 at the optimum: slack where there is a multiplier, violation where there is none."""
        return float(np.abs(np.minimum(self.multipliers_G, self.slack_G)).max())


def _climbed(mixture_K: Array, polytope: Polytope) -> _Point:
    """The best point that projected Newton steps meet."""
    point = _point(np.zeros(len(polytope.least_G)), mixture_K, polytope)
    best = point
    for _ in range(MAX_STEPS):
        if best.error <= 0.01 * ROUNDING:
            break
        after = _step(point, mixture_K, polytope)
        if after is None:
            break
        point = after
        if point.error < best.error:
            best = point
    return best


def _point(multipliers_G: Array, mixture_K: Array, polytope: Polytope) -> _Point:
    log_K = np.log(mixture_K) + multipliers_G @ polytope.rows_GK
    tilted_K = np.exp(np.maximum(log_K - log_K.max(), _LEAST_LOG))
    found_K = project(tilted_K, polytope.lower_K, polytope.upper_K)
    slack_G = polytope.rows_GK @ found_K - polytope.least_G
    gap = float(multipliers_G @ slack_G)
    value = float(rel_entr(found_K, mixture_K).sum()) - gap
    return _Point(multipliers_G, found_K, slack_G, value, gap)


def _step(point: _Point, mixture_K: Array, polytope: Polytope) -> _Point | None:
    """A Newton step in the multipliers that are not held at 0, shortened until the dual rises."""
    held_G = (point.multipliers_G <= ROUNDING) & (point.slack_G > 0)
    for direction_G in (_newton(point, held_G, polytope), np.where(held_G, 0.0, -point.slack_G)):
        length = min(1.0, _LARGEST_MOVE / max(float(np.abs(direction_G).max()), 1e-300))
        for _ in range(40):
            multipliers_G = np.maximum(point.multipliers_G + length * direction_G, 0.0)
            rise = -point.slack_G @ (multipliers_G - point.multipliers_G)
            after = _point(multipliers_G, mixture_K, polytope)
            noise = 1e-15 * (1 + abs(point.value) + float(multipliers_G.sum()))
            is_better = after.error < point.error or after.value > point.value
            if rise > 0 and is_better and after.value - point.value >= 1e-4 * rise - noise:
                return after
            length *= 0.5
    return None


def _newton(point: _Point, held_G: NDArray[np.bool_], polytope: Polytope) -> Array:
    """The Newton direction; only shares between their bounds answer to multipliers."""
    found_K = point.mixture_K
    free_K = (polytope.lower_K < found_K) & (found_K < polytope.upper_K)
    rows_GK = polytope.rows_GK[:, free_K]
    moved_G = rows_GK @ found_K[free_K]
    hessian_GG = (rows_GK * found_K[free_K]) @ rows_GK.T
    hessian_GG -= np.outer(moved_G, moved_G) / max(float(found_K[free_K].sum()), 1e-300)
    ridge = 1e-12 * float(np.trace(hessian_GG)) + 1e-18
    hessian_GG += ridge * np.eye(len(hessian_GG))
    direction_G = np.zeros(len(held_G))
    if not held_G.all():
        rest = np.ix_(~held_G, ~held_G)
        direction_G[~held_G] = np.linalg.solve(hessian_GG[rest], -point.slack_G[~held_G])
    return direction_G
