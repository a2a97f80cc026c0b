"""A power law in tokens, fitted to a falling loss: L(n) = E + B n^-alpha.

In go points (tokens, loss); out comes the law's least-squares fit with E >= 0, B >= 0 and alpha in
a range, by variable projection: for a given alpha the law is linear in E and B and solved exactly,
so that one search over alpha remains. Residuals are relative, (L(n_i) - l_i) / l_i, which to first
order are those of log losses.
"""

# Shape letters: M points, G values of alpha.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.float64]

# ADO fits within [0.001, 0.8] and then takes the slope with at least 0.05 (Jiang et al., arXiv
# 2410.11820, 2024). Below that floor and exponent cannot be told apart from a run's own losses, and
# exchanging one exponent for a larger one would multiply the slope; so the fit keeps above it.
ALPHAS = (0.05, 0.8)
_NUM_GRID = 48


class PowerLaw(NamedTuple):
    """L(n) = floor + height (n / unit)^-alpha."""

    floor: float
    """E, nats per token, >= 0."""
    height: float
    """What is above the floor at `unit` tokens, nats per token, >= 0."""
    alpha: float
    unit: float
    """Tokens at the last point."""

    def slope(self, num_tokens: float) -> float:
        """-dL/dn, nats per token of loss, per token read."""
        above = self.height * (num_tokens / self.unit) ** -self.alpha
        return self.alpha * above / num_tokens


def fit(num_tokens: ArrayLike, losses: ArrayLike, *, counts: ArrayLike = 1) -> PowerLaw:
    """The law nearest to the points.

    Args:
        num_tokens: (M,) tokens, all > 0; M >= 2 of them different.
        losses: (M,) losses, all > 0.
        counts: (M,) how often each point counts, all > 0.

    Example:
        Points of 2 + 10 n^-0.5.

        >>> law = fit([100, 400, 1600, 6400], [3.0, 2.5, 2.25, 2.125])
        >>> round(law.floor, 3), round(law.alpha, 3)
        (2.0, 0.5)
    """
    tokens_M = np.asarray(num_tokens, dtype=np.float64)
    losses_M = np.asarray(losses, dtype=np.float64)
    unit = float(tokens_M[-1])
    logs_M = np.log(tokens_M / unit)
    weights_M = np.asarray(counts, dtype=np.float64) / losses_M**2

    def error(log_alpha: float) -> float:
        return _linear_fit(np.exp(-np.exp(log_alpha) * logs_M), losses_M, weights_M)[2]

    grid_G = np.linspace(np.log(ALPHAS[0]), np.log(ALPHAS[1]), _NUM_GRID)
    best = int(np.argmin([error(value) for value in grid_G]))
    bracket = grid_G[max(best - 1, 0)], grid_G[min(best + 1, _NUM_GRID - 1)]
    found = minimize_scalar(error, bounds=bracket, method="bounded", options={"xatol": 1e-6})
    log_alpha = found.x if found.fun < error(grid_G[best]) else grid_G[best]
    alpha = float(np.exp(log_alpha))
    floor, height, _ = _linear_fit(np.exp(-alpha * logs_M), losses_M, weights_M)
    return PowerLaw(floor, height, alpha, unit)


def _linear_fit(basis_M: Array, losses_M: Array, weights_M: Array) -> tuple[float, float, float]:
    """E, B >= 0 that minimise sum_i weight_i (E + B basis_i - l_i)^2, and the minimum.

    The inner optimum if it is allowed, else the better of the two edges E = 0 and B = 0.
    """
    total = weights_M.sum()
    mean_basis, mean_loss = weights_M @ basis_M / total, weights_M @ losses_M / total
    centred_M = basis_M - mean_basis
    height = float(weights_M * centred_M @ (losses_M - mean_loss) / (weights_M @ centred_M**2))
    floor = float(mean_loss - height * mean_basis)
    pairs = [(floor, height)]
    if floor < 0 or height < 0:
        through_origin = float(weights_M * basis_M @ losses_M / (weights_M @ basis_M**2))
        pairs = [(0.0, through_origin), (float(mean_loss), 0.0)]
    errors = [float(weights_M @ (E + B * basis_M - losses_M) ** 2) for E, B in pairs]
    best = int(np.argmin(errors))
    return (*pairs[best], errors[best])
