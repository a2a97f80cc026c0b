"""A primal-dual interior point for the convex program of `_simplex_program`.

In goes a `Program`; out come a mixture and the multipliers that bound how far it is from the
optimum. The norm |B w| is lifted to a second-order cone (r, x), x = B w, with dual (1, y),
|y| <= 1, so its kink is none here. Each step is Mehrotra's predictor-corrector with
Nesterov-Todd scaling of the cone (Vandenberghe, "The CVXOPT linear and quadratic cone program
solvers", 2010). In w the Newton matrix is diagonal, so a step costs O(K M^2): w is eliminated and
a dense system in the multipliers of the rows, x = B w and sum_k w_k = 1 remains.
"""

# Shape letters: K domains, N rows of B, R rows of G w >= h and of groups, M = R + N rows in all, C
# = N + 1 entries of the cone, P = 2 K + R pairs of slack and multiplier (of bounds and of rows).

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers import _second_order_cone as cone
from tikmix_hf.mixers._simplex_program import Program

Array = NDArray[np.float64]

MAX_STEPS = 100  # 10 are usual, 25 are rare
# A hundredth of what the certificate asks for.
_GOAL = 1e-9
_FRACTION = 0.99  # Mehrotra's, of the way to the boundary
# Of the unit diagonal: keeps rows that repeat each other from making the system singular.
_RIDGE = 1e-15
# One solution and two refinements.
_ROUNDS = 3


class _Rows(NamedTuple):
    """The program without the domains whose bounds coincide."""

    rows_MK: Array
    offset_M: Array
    """Slacks of the R rows and x are rows_MK @ w - offset_M."""
    linear_K: Array
    lower_K: Array
    upper_K: Array
    total: float
    gamma: float


class _Point(NamedTuple):
    """An interior point; also a direction between two."""

    mixture_K: Array
    slack_R: Array
    cone_C: Array
    dual_P: Array
    spread_N: Array
    """Tail of the cone's dual, whose head is 1. It is -y."""
    level: Array
    """nu, the multiplier of the sum, as an array without axes."""

    def moved(self, direction: _Point, step: float) -> _Point:
        return _Point(
            *(value + step * change for value, change in zip(self, direction, strict=True))
        )


class _Residual(NamedTuple):
    stationarity_K: Array
    rows_M: Array
    total: float


def interior_point(program: Program) -> tuple[Array, Array, Array]:
    """Solve the program, or come as near as float64 lets it.

    Returns:
        Mixture (K,), lambda and mu (R,) and y (N,) of the best point, for `Program.bound`.
    """
    fixed_K = program.polytope.upper_K - program.polytope.lower_K <= 1e-12
    mixture_K = np.array(program.polytope.lower_K)
    if fixed_K.all():
        spread_N = program.spread_NK @ mixture_K
        length = max(float(np.linalg.norm(spread_N)), np.finfo(np.float64).tiny)
        return mixture_K, np.zeros(len(program.least_R)), spread_N / length
    data = _without_fixed(program, fixed_K)
    num_rows = len(program.least_R)
    point = _start(data, num_rows)
    best, least_error = point, np.inf
    # A breakdown of float64 shows as a direction that is not finite; the best point so far counts.
    with np.errstate(all="ignore"):
        for _ in range(MAX_STEPS):
            residual = _residual(data, point)
            error = _error(data, point, residual)
            if error < least_error:
                best, least_error = point, error
            if error < _GOAL or not _inside(point):
                break
            try:
                direction, step = _newton_step(data, point, residual)
            except np.linalg.LinAlgError:
                break
            if not all(np.isfinite(change).all() for change in direction) or step < _GOAL:
                break
            point = point.moved(direction, step)
    mixture_K[~fixed_K] = best.mixture_K
    return mixture_K, best.dual_P[-num_rows:], -best.spread_N


def _without_fixed(program: Program, fixed_K: NDArray[np.bool_]) -> _Rows:
    rows_MK = np.vstack([program.rows_RK, program.spread_NK])
    offset_M = np.concatenate([program.least_R, np.zeros(len(program.spread_NK))])
    fixed_share_K = program.polytope.lower_K * fixed_K
    upper_K = program.polytope.upper_K[~fixed_K]
    return _Rows(
        rows_MK=rows_MK[:, ~fixed_K],
        offset_M=offset_M - rows_MK @ fixed_share_K,
        linear_K=program.linear_K[~fixed_K],
        lower_K=program.polytope.lower_K[~fixed_K],
        upper_K=np.where(upper_K >= 1, 2.0, upper_K),  # the sum implies it; keep it out of the way
        total=1 - fixed_share_K.sum(),
        gamma=program.gamma,
    )


def _start(data: _Rows, num_rows: int) -> _Point:
    """Uniform, pulled into the box; multipliers of the size of the objective's slopes."""
    width_K = data.upper_K - data.lower_K
    num_domains = len(width_K)
    mixture_K = np.clip(
        np.full(num_domains, data.total / num_domains),
        data.lower_K + 0.1 * np.minimum(width_K, 1 / num_domains),
        data.upper_K - 0.1 * width_K,
    )
    image_M = data.rows_MK @ mixture_K - data.offset_M
    spread_N = image_M[num_rows:]
    slope = max(
        data.gamma,
        float(np.abs(data.linear_K).max()),
        float(np.abs(data.rows_MK[num_rows:]).max(initial=0)),
        np.finfo(np.float64).tiny,
    )
    complementarity = slope / num_domains
    slack_R = np.maximum(image_M[:num_rows], 0.1)
    slack_P = np.concatenate([mixture_K - data.lower_K, data.upper_K - mixture_K, slack_R])
    head = 1.1 * np.linalg.norm(spread_N) + complementarity
    return _Point(
        mixture_K=mixture_K,
        slack_R=slack_R,
        cone_C=np.concatenate([[head], spread_N]),
        dual_P=complementarity / slack_P,
        spread_N=np.zeros(len(spread_N)),
        level=np.zeros(()),
    )


def _residual(data: _Rows, point: _Point) -> _Residual:
    """What vanishes at the optimum besides complementarity."""
    mixture_K = point.mixture_K
    lower_K, upper_K = np.split(point.dual_P[: 2 * len(mixture_K)], 2)
    disorder_K = data.gamma * (np.log(mixture_K) + 1)
    pull_K = _multiplier_M(point) @ data.rows_MK
    image_M = data.rows_MK @ mixture_K - data.offset_M
    return _Residual(
        stationarity_K=data.linear_K + disorder_K + point.level - pull_K - lower_K + upper_K,
        rows_M=np.concatenate([point.slack_R, point.cone_C[1:]]) - image_M,
        total=float(mixture_K.sum() - data.total),
    )


def _complementarity(data: _Rows, point: _Point) -> float:
    return float(_slack_P(data, point) @ point.dual_P + point.cone_C @ _dual_C(point))


def _error(data: _Rows, point: _Point, residual: _Residual) -> float:
    """The largest of the gap, in units of max(1, |f|), and of the residuals."""
    mixture_K, num_rows = point.mixture_K, len(point.slack_R)
    disorder = data.gamma * mixture_K @ np.log(mixture_K)
    objective = point.cone_C[0] + data.linear_K @ mixture_K + disorder
    scale = max(1.0, abs(float(objective)))
    return max(
        _complementarity(data, point) / scale,
        float(np.abs(residual.stationarity_K) @ mixture_K) / scale,
        float(np.abs(residual.rows_M[:num_rows]).max()),
        float(np.abs(residual.rows_M[num_rows:]).max(initial=0)) / scale,
        abs(residual.total),
    )


def _inside(point: _Point) -> bool:
    """Whether rounding has left both cone points inside their cone."""
    return all(v_C[0] > np.linalg.norm(v_C[1:]) for v_C in (point.cone_C, _dual_C(point)))


class _System:
    """The Newton system at one point, reduced to the M multipliers of the rows and nu."""

    def __init__(self, data: _Rows, point: _Point, residual: _Residual) -> None:
        self.point, self.residual = point, residual
        self.slack_P = _slack_P(data, point)
        self.scaling_CC = cone.scaling(point.cone_C, _dual_C(point))
        self.scaled_C = self.scaling_CC @ _dual_C(point)
        num_domains, num_rows = len(point.mixture_K), len(point.slack_R)
        stiffness_P = point.dual_P / self.slack_P
        lower_K, upper_K, row_R = np.split(stiffness_P, [num_domains, 2 * num_domains])
        self.hessian_K = data.gamma / point.mixture_K + lower_K + upper_K
        self.all_rows = np.vstack([data.rows_MK, -np.ones(num_domains)])
        self.compliance = np.zeros((len(self.all_rows),) * 2)
        bounded, tail = slice(num_rows), slice(num_rows, -1)
        self.compliance[bounded, bounded] = np.diag(1 / row_R)
        self.compliance[tail, tail] = (self.scaling_CC @ self.scaling_CC)[1:, 1:]
        matrix = (self.all_rows / self.hessian_K) @ self.all_rows.T + self.compliance
        self.unit = 1 / np.sqrt(np.diag(matrix))
        self.matrix = matrix * self.unit * self.unit[:, None] + _RIDGE * np.eye(len(matrix))

    def direction(self, products_P: Array, products_C: Array) -> _Point:
        """The direction that changes complementarity by the given products, to first order."""
        point, residual = self.point, self.residual
        num_domains = len(point.mixture_K)
        change_C = self.scaling_CC @ cone.quotient(products_C, self.scaled_C)
        lower_K, upper_K, row_R = np.split(
            products_P / self.slack_P, [num_domains, 2 * num_domains]
        )
        force_K = lower_K - upper_K - residual.stationarity_K
        row_dual_R = point.dual_P[2 * num_domains :]
        rows = np.concatenate([row_R * point.slack_R / row_dual_R, change_C[1:]])
        rows = np.append(rows + residual.rows_M, residual.total)
        mixture_K, multipliers = self._solved(force_K, rows)
        row_R, spread_N = np.split(multipliers[:-1], [len(point.slack_R)])
        slack_R = (products_P[2 * num_domains :] - point.slack_R * row_R) / row_dual_R
        slack_P = np.concatenate([mixture_K, -mixture_K, slack_R])
        dual_P = (products_P - point.dual_P * slack_P) / self.slack_P
        dual_P[2 * num_domains :] = row_R
        head_C = np.concatenate([[0.0], spread_N])
        cone_C = change_C - self.scaling_CC @ (self.scaling_CC @ head_C)
        return _Point(mixture_K, slack_R, cone_C, dual_P, spread_N, multipliers[-1])

    def _solved(self, force_K: Array, rows: Array) -> tuple[Array, Array]:
        """Change of the mixture and of the multipliers, refined against the full system.

        The reduced matrix holds 1 / hessian, whose size is that of the domains without a binding
        bound; what it rounds away in the rows is put back by solving for the remainder.
        """
        multipliers = np.zeros(len(rows))
        mixture_K = force_K / self.hessian_K
        for _ in range(_ROUNDS):
            remainder = rows - self.all_rows @ mixture_K - self.compliance @ multipliers
            multipliers += np.linalg.solve(self.matrix, remainder * self.unit) * self.unit
            mixture_K = (force_K + multipliers @ self.all_rows) / self.hessian_K
        return mixture_K, multipliers


def _newton_step(data: _Rows, point: _Point, residual: _Residual) -> tuple[_Point, float]:
    """Mehrotra's predictor and corrector, and how far to go along the latter."""
    system = _System(data, point, residual)
    products_P = system.slack_P * point.dual_P
    products_C = cone.product(system.scaled_C, system.scaled_C)
    predictor = system.direction(-products_P, -products_C)
    before = _complementarity(data, point)
    tried = point.moved(predictor, min(1.0, _reach(system.slack_P, point, predictor)))
    centring = float(np.clip(_complementarity(data, tried) / before, 1e-2, 1)) ** 3
    target = centring * before / (len(products_P) + 1)
    second_C = cone.product(
        np.asarray(np.linalg.solve(system.scaling_CC, predictor.cone_C), dtype=np.float64),
        system.scaling_CC[:, 1:] @ predictor.spread_N,
    )
    second_C[0] -= target
    second_P = _slack_change_P(predictor) * predictor.dual_P - target
    corrector = system.direction(-products_P - second_P, -products_C - second_C)
    return corrector, min(1.0, _FRACTION * _reach(system.slack_P, point, corrector))


def _reach(slack_P: Array, point: _Point, direction: _Point) -> float:
    """How many times the direction fits before a slack, a multiplier or the cone is exhausted."""
    pairs = np.concatenate([slack_P, point.dual_P])
    changes = np.concatenate([_slack_change_P(direction), direction.dual_P])
    ratios = -pairs[changes < 0] / changes[changes < 0]
    dual_change_C = np.concatenate([[0.0], direction.spread_N])
    return min(
        float(ratios.min(initial=np.inf)),
        cone.reach(point.cone_C, direction.cone_C),
        cone.reach(_dual_C(point), dual_change_C),
    )


def _slack_P(data: _Rows, point: _Point) -> Array:
    mixture_K = point.mixture_K
    return np.concatenate([mixture_K - data.lower_K, data.upper_K - mixture_K, point.slack_R])


def _slack_change_P(direction: _Point) -> Array:
    return np.concatenate([direction.mixture_K, -direction.mixture_K, direction.slack_R])


def _dual_C(point: _Point) -> Array:
    return np.concatenate([[1.0], point.spread_N])


def _multiplier_M(point: _Point) -> Array:
    return np.concatenate([point.dual_P[2 * len(point.mixture_K) :], point.spread_N])
