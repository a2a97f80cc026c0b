"""The convex program of TiKMiX-D, and the certificate that a point solves it.

In go normalised influence and its floors as a `Program`; out come its objective, its gradient and
a *lower bound* on its optimum that holds for any multipliers, however they were found:

    minimise  f(w) = alpha std(A w) - beta sum_j (A w)_j + gamma sum_k w_k log w_k
    subject to  G w >= h,  R w >= b,  sum_k w_k = 1,  l <= w <= u.

With B = alpha / sqrt(J) (A - column means of A), alpha std(A w) = |B w| = max over |y| <= 1 of
y^T B w. So for every lambda >= 0, mu >= 0 and |y| <= 1

    f* >= lambda^T h + mu^T b
          + min over l <= w <= u, sum_k w_k = 1 of  c^T w + gamma sum_k w_k log w_k,
    c = B^T y - beta sum_j A_j - G^T lambda - R^T mu,

and that minimum separates by domain once the sum has its own multiplier nu: w_k is
exp(-(c_k + nu) / gamma - 1) clipped to its bounds. Weak duality needs no nu to be exact.
The guard G w >= h holds within a tolerance and can be made to give way; the polytope of l, u, R and
b never is.
`paper_program` states equations 9-11 of TiKMiX (arXiv 2508.17677) as such a program; `_slsqp` and
`_interior_point` solve it.
"""

# Shape letters: J targets, K domains, N = J rows of B (none if it plays no part), G group rows,
# R = J + G rows that have a multiplier.

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.special import xlogy

from tikmix_hf.mixers.base import MixerError
from tikmix_hf.mixture import Polytope, nearest

Array = NDArray[np.float64]

# A guard row has entries of at most 1, so a violation is a fraction of the row's largest influence.
MAX_VIOLATION = 1e-8
# Of max(1, |f|): a hundredth of what moves any share by a visible amount at gamma = 1.
MAX_GAP = 1e-7
# max_k S_jk below this part of max_k |S_jk| is rounding noise, not help.
_NO_HELP = 1e-12


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program above; rows of `guard_JK` have their largest entry at 1 in size."""

    gain_JK: Array
    """A: influence divided so that A w is the paper's normalised Phat."""
    guard_JK: Array
    """G: influence divided by the row's largest size."""
    floor_J: Array
    """h: what G w must reach."""
    polytope: Polytope
    """l, u, R and b."""
    alpha: float
    beta: float
    gamma: float

    @cached_property
    def rows_RK(self) -> Array:
        """G and R."""
        return np.vstack([self.guard_JK, self.polytope.rows_GK])

    @cached_property
    def least_R(self) -> Array:
        """H and b."""
        return np.concatenate([self.floor_J, self.polytope.least_G])

    @cached_property
    def spread_NK(self) -> Array:
        """B, or no row where the standard deviation plays no part."""
        num_targets = len(self.gain_JK)
        if self.alpha == 0 or num_targets == 1:
            return np.zeros((0, self.gain_JK.shape[1]))
        centred_JK = self.gain_JK - self.gain_JK.mean(axis=0)
        return self.alpha / np.sqrt(num_targets) * centred_JK

    @cached_property
    def linear_K(self) -> Array:
        """Gradient of -beta sum_j (A w)_j."""
        return -self.beta * self.gain_JK.sum(axis=0)

    def objective(self, mixture_K: Array, *, kink: float = 0.0) -> float:
        """f(w), with sqrt(|B w|^2 + kink) for |B w|."""
        spread = np.sqrt(np.sum((self.spread_NK @ mixture_K) ** 2) + kink)
        disorder = self.gamma * xlogy(mixture_K, mixture_K).sum()
        return float(spread + self.linear_K @ mixture_K + disorder)

    def gradient(self, mixture_K: Array, *, kink: float = 0.0) -> Array:
        """Gradient of `objective` where no domain is empty and B w is not 0 (or kink is not)."""
        spread_N = self.spread_NK @ mixture_K
        slope_N = spread_N / np.sqrt(np.sum(spread_N**2) + kink) if len(spread_N) else spread_N
        disorder_K = self.gamma * (np.log(mixture_K) + 1) if self.gamma else 0.0
        return slope_N @ self.spread_NK + self.linear_K + disorder_K

    def violation(self, mixture_K: Array) -> float:
        """Largest shortfall of a guard row; 0 where all hold."""
        return max(0.0, float((self.floor_J - self.guard_JK @ mixture_K).max()))

    def bound(self, multipliers_R: Array, spread_N: Array) -> float:
        """A lower bound on the optimum from any multipliers lambda, mu and y.

        Args:
            multipliers_R: lambda, then mu; negative entries count as 0.
            spread_N: y; divided by its length where that exceeds 1.
        """
        multipliers_R = np.maximum(multipliers_R, 0.0)
        spread_N = spread_N / max(1.0, float(np.linalg.norm(spread_N)))
        cost_K = spread_N @ self.spread_NK + self.linear_K - multipliers_R @ self.rows_RK
        least = self._least_fill(cost_K) if self.gamma == 0 else self._least_softmax(cost_K)
        return float(multipliers_R @ self.least_R) + least

    def least_shortfall(self) -> float:
        """Least, over mixtures in the polytope, of max_j (h - G w)_j; a linear program.

        Positive: how far the floors must give way. Negative: how far all can be exceeded at once.
        """
        num_targets, num_domains = self.guard_JK.shape
        gives_way_R = np.arange(len(self.least_R)) < num_targets
        result = linprog(
            np.append(np.zeros(num_domains), 1.0),
            A_ub=-np.column_stack([self.rows_RK, gives_way_R]),
            b_ub=-self.least_R,
            A_eq=np.append(np.ones(num_domains), 0.0)[None],
            b_eq=[1.0],
            bounds=[*zip(self.polytope.lower_K, self.polytope.upper_K, strict=True), (None, None)],
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
        )
        if result.x is None:
            raise MixerError(f"the Pareto constraint's least slack was not found: {result.message}")
        return float((self.floor_J - self.guard_JK @ result.x[:-1]).max())

    def certifies(self, mixture_K: Array, bound: float) -> bool:
        """Whether the mixture is feasible and its objective within tolerance of the bound."""
        objective = self.objective(mixture_K)
        close = abs(objective - bound) <= MAX_GAP * max(1.0, abs(objective))
        return close and self.violation(mixture_K) <= MAX_VIOLATION

    def _least_fill(self, cost_K: Array) -> float:
        """Least c^T w: fill the cheapest domains first; the last one touched sets nu."""
        lower_K, upper_K = self.polytope[:2]
        order = np.argsort(cost_K)
        filled = np.cumsum((upper_K - lower_K)[order])
        last = min(int(np.searchsorted(filled, 1 - lower_K.sum())), len(order) - 1)
        level = cost_K[order[last]]
        excess_K = cost_K - level
        return float(np.minimum(excess_K * lower_K, excess_K * upper_K).sum() + level)

    def _least_softmax(self, cost_K: Array) -> float:
        """Least c^T w + gamma sum w log w: nu by bisection, then the separable minimum at it."""
        lower_K, upper_K = self.polytope[:2]
        logit_K = -cost_K / self.gamma
        room = max(1 - lower_K.sum(), np.finfo(np.float64).tiny)
        most = np.log(len(logit_K)) - np.log(room)
        low, high = logit_K.min() - 1, logit_K.max() + most + 1
        mixture_K = upper_K
        while low < (middle := 0.5 * (low + high)) < high:
            mixture_K = np.clip(np.exp(np.minimum(logit_K - middle, 1)), lower_K, upper_K)
            low, high = (middle, high) if mixture_K.sum() > 1 else (low, middle)
        level = -self.gamma * (middle - 1)  # -nu
        terms_K = (cost_K - level) * mixture_K + self.gamma * xlogy(mixture_K, mixture_K)
        return float(terms_K.sum() + level)


def paper_program(
    values_JK: Array,
    current_K: Array,
    coefficients: tuple[float, float, float],
    polytope: Polytope,
    slack_J: Array,
) -> Program:
    """Equations 9-11 for influence without zero rows, each row in units of its own largest entry.

    Args:
        values_JK: Influence S.
        current_K: The mixture in force q.
        coefficients: alpha, beta, gamma.
        polytope: What floors, caps and groups leave.
        slack_J: By how much S w may fall short of S q, in the unit of `values_JK`.
    """
    size_J = np.abs(values_JK).max(axis=1)
    guard_JK = values_JK / size_J[:, None]
    top_J = guard_JK.max(axis=1)
    return Program(
        gain_JK=guard_JK / np.where(top_J > _NO_HELP, top_J, 1.0)[:, None],
        guard_JK=guard_JK,
        floor_J=guard_JK @ current_K - slack_J / size_J,
        polytope=polytope,
        alpha=coefficients[0],
        beta=coefficients[1],
        gamma=coefficients[2],
    )


def certified(
    program: Program, solvers: Mapping[str, Callable[[Program], tuple[Array, Array, Array]]]
) -> tuple[Array, float, str]:
    """The first certified mixture, its bound and its solver's name.

    Args:
        program: What to solve.
        solvers: By name, in order; each returns a mixture (K,), lambda and mu (R,) and y (N,).

    Raises:
        MixerError: None of them is certified.
    """
    failures: list[str] = []
    for name, solver in solvers.items():
        mixture_K, multipliers_R, spread_N = solver(program)
        mixture_K = nearest(mixture_K, program.polytope)
        bound = program.bound(multipliers_R, spread_N)
        if program.certifies(mixture_K, bound):
            return mixture_K, bound, name
        gap = program.objective(mixture_K) - bound
        failures.append(f"{name}: gap {gap:.1e}, violation {program.violation(mixture_K):.1e}")
    raise MixerError(f"no certified optimum ({'; '.join(failures)}).")
