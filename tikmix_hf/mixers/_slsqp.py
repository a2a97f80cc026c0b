"""The paper's solver for the convex program of `_simplex_program`: SLSQP, analytic derivatives.

In goes a `Program`; out come a mixture and multipliers. SLSQP's own are not public in every SciPy,
so they are fitted to its point; `Program.bound` then judges both.
"""

# Shape letters: K domains, N rows of B, R rows with a multiplier.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls

from tikmix_hf.mixers._simplex_program import Program

Array = NDArray[np.float64]

# |B w| has a kink at 0. SLSQP sees sqrt(|B w|^2 + this), which differs by at most 1e-8.
_KINK = 1e-16
# SLSQP stops within about this of a bound or a row; they count as active then.
_ACTIVE = 1e-6


def slsqp(program: Program) -> tuple[Array, Array, Array]:
    """Solve from the uniform mixture, then fit multipliers to the point.

    Returns:
        Mixture (K,), lambda and mu (R,) and y (N,), for `Program.bound` to judge.
    """
    lower_K, upper_K = program.polytope[:2]
    least_K = np.maximum(lower_K, np.minimum(1e-12, upper_K))  # log 0 has no slope
    uniform_K = np.full(len(least_K), 1 / len(least_K))
    result = minimize(
        lambda w_K: program.objective(np.maximum(w_K, least_K), kink=_KINK),
        np.clip(uniform_K, least_K, upper_K),
        jac=lambda w_K: program.gradient(np.maximum(w_K, least_K), kink=_KINK),
        method="SLSQP",
        bounds=np.stack([least_K, upper_K], axis=1),
        constraints=[
            {"type": "eq", "fun": lambda w_K: w_K.sum() - 1, "jac": np.ones_like},
            {
                "type": "ineq",
                "fun": lambda w_K: program.rows_RK @ w_K - program.least_R,
                "jac": lambda _: program.rows_RK,
            },
        ],
        options={"ftol": 1e-12, "maxiter": 500},
    )
    mixture_K = np.clip(np.nan_to_num(result.x, nan=1 / len(least_K)), least_K, upper_K)
    return mixture_K, *fitted_multipliers(program, mixture_K)


def fitted_multipliers(program: Program, mixture_K: Array) -> tuple[Array, Array]:
    """Multipliers lambda and mu (R,) and y (N,) that come nearest to stationarity at a mixture.

    Least squares over the domains between their bounds, weighted with sqrt(w_k): the gap that a
    residual r_k leaves is of the order of w_k r_k^2 / gamma. y is B w / |B w| off the kink and
    free at it.
    """
    room_K = np.minimum(mixture_K - program.polytope.lower_K, program.polytope.upper_K - mixture_K)
    inner_K = (room_K > _ACTIVE) | (room_K > 0.1 * mixture_K)
    active_R = program.rows_RK @ mixture_K - program.least_R < _ACTIVE
    spread_N = program.spread_NK @ mixture_K
    at_kink = np.linalg.norm(spread_N) < _ACTIVE
    slope_K = program.gradient(np.maximum(mixture_K, 1e-300), kink=_KINK)
    free_NK = program.spread_NK if at_kink else program.spread_NK[:0]
    ones_1K = np.ones((1, len(mixture_K)))
    columns = np.vstack([program.rows_RK[active_R], ones_1K, -ones_1K, free_NK, -free_NK])
    root_K = np.sqrt(mixture_K * inner_K)
    fit, _ = nnls((columns * root_K).T, slope_K * root_K)
    multipliers_R = np.zeros(len(active_R))
    multipliers_R[active_R] = fit[: active_R.sum()]
    slope_N = spread_N / np.sqrt(np.sum(spread_N**2) + _KINK)
    if at_kink:
        plus_N, minus_N = fit[active_R.sum() + 2 :].reshape(2, -1)
        slope_N = slope_N - plus_N + minus_N
    return multipliers_R, slope_N
