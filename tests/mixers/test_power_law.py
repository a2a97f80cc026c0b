"""The fitted law against a general solver, and against laws that it was drawn from."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import least_squares

from tikmix_hf.mixers._power_law import ALPHAS, fit


def error(law, tokens, losses):
    predicted = law.floor + law.height * (tokens / law.unit) ** -law.alpha
    return float(np.sum(((predicted - losses) / losses) ** 2))


def general_error(tokens, losses):
    """The best of many starts of a solver that knows nothing of the law's structure."""

    def residuals(point):
        floor, height, alpha = point
        return (floor + height * (tokens / tokens[-1]) ** -alpha - losses) / losses

    starts = [
        (floor, height, alpha) for floor in (0.1, 2) for height in (0.1, 2) for alpha in (0.1, 0.7)
    ]
    bounds = [0, 0, ALPHAS[0]], [np.inf, np.inf, ALPHAS[1]]
    found = [least_squares(residuals, s, bounds=bounds, xtol=1e-14, ftol=1e-14) for s in starts]
    return min(2 * result.cost for result in found)


def test_a_point_that_counts_thrice_is_three_points():
    rng = np.random.default_rng(0)
    tokens = np.sort(rng.uniform(1e3, 1e5, 20))
    losses = 2.0 + 30.0 * tokens**-0.4 + 0.1 * rng.standard_normal(20)
    counts = np.tile([1, 3], 10)
    repeated = fit(np.repeat(tokens, counts), np.repeat(losses, counts))
    assert fit(tokens, losses, counts=counts) == pytest.approx(repeated, rel=1e-6)
    assert fit(tokens, losses).alpha != pytest.approx(repeated.alpha, rel=1e-2)


@pytest.mark.parametrize(
    "law", [(2.0, 3.0, 0.5), (1.5, 10.0, 0.2), (0.0, 4.0, 0.1), (3.0, 0.0, 0.3)]
)
def test_a_law_without_noise_is_found(law):
    floor, height, alpha = law
    tokens = np.arange(1, 41) * 1000.0
    losses = floor + height * tokens**-alpha
    found = fit(tokens, losses)
    for at in (tokens[0], tokens[-1], 2 * tokens[-1]):
        slope = alpha * height * at ** (-alpha - 1)
        assert found.slope(at) == pytest.approx(slope, rel=1e-3, abs=1e-15)
    if height:
        assert found.alpha == pytest.approx(alpha, rel=1e-3)
        assert found.floor == pytest.approx(floor, abs=1e-3)


def test_no_other_law_is_nearer_to_noisy_points():
    rng = np.random.default_rng(0)
    for _ in range(6):
        tokens = np.cumsum(rng.uniform(500, 2000, 25))
        losses = rng.uniform(0, 3) + rng.uniform(1, 9) * tokens ** -rng.uniform(0.05, 0.8)
        losses = losses * (1 + 0.02 * rng.normal(size=25))
        assert error(fit(tokens, losses), tokens, losses) <= general_error(tokens, losses) + 1e-9


def test_rising_losses_have_a_law_that_does_not_fall():
    law = fit([1.0, 2.0, 3.0, 4.0], [1.0, 1.1, 1.3, 1.6])
    assert law.height == 0
    assert law.slope(4.0) == 0


def test_the_slope_is_the_laws_derivative():
    law = fit(np.arange(1, 20), 2 + 5 * np.arange(1, 20) ** -0.4)

    def loss(n):
        return law.floor + law.height * (n / law.unit) ** -law.alpha

    assert law.slope(10.0) == pytest.approx((loss(9.999) - loss(10.001)) / 0.002, rel=1e-5)


def test_the_unit_of_tokens_is_nothing():
    tokens, losses = np.arange(1, 20), 2 + 5 * np.arange(1, 20) ** -0.4
    small, large = fit(tokens, losses), fit(1e9 * tokens, losses)
    assert large.slope(20e9) * 1e9 == pytest.approx(small.slope(20.0), rel=1e-9)
