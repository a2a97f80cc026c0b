"""A curve of bounded length against the points that it was made of."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf.mixers import _loss_curve
from tikmix_hf.mixers._loss_curve import MOST_POINTS, LossCurve, extended
from tikmix_hf.mixers._power_law import fit


def law(tokens):
    return 2.0 + 30.0 * tokens**-0.4


def curve_of(num_points, most=MOST_POINTS):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loss_curve, "MOST_POINTS", most)
        tokens = 1000.0 * np.arange(1, num_points + 1)
        return extended(LossCurve(), zip(tokens.tolist(), law(tokens).tolist(), strict=True))


def test_up_to_the_bound_points_are_kept_as_they_are():
    curve = curve_of(MOST_POINTS)
    assert curve.tokens == tuple(1000.0 * np.arange(1, 501))
    assert curve.counts == (1,) * 500


def test_one_more_merges_neighbours_in_pairs():
    """Mean loss, geometric mean of the tokens."""
    points = [(1.0, 8.0), (4.0, 6.0), (9.0, 5.0), (16.0, 3.0), (25.0, 2.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_loss_curve, "MOST_POINTS", 4)
        curve = extended(LossCurve(), points)
    np.testing.assert_allclose(curve.tokens, [2.0, 12.0, 25.0], rtol=1e-12)
    np.testing.assert_allclose(curve.losses, [7.0, 4.0, 2.0], rtol=1e-12)
    assert curve.counts == (2, 2, 1)


@pytest.mark.parametrize("num_points", [39, 40, 41, 79, 80, 81, 1000, 1023])
def test_all_points_but_the_last_stand_for_equally_many(num_points):
    curve = curve_of(num_points, most=40)
    assert sum(curve.counts) == num_points
    assert 20 < len(curve.counts) <= 40
    assert len(set(curve.counts[:-1])) == 1
    assert curve.counts[-1] <= curve.counts[0]
    assert list(curve.tokens) == sorted(curve.tokens)


def test_points_in_parts_are_the_points_at_once():
    points = [(float(n), 1.0 + 1.0 / n) for n in range(1, 1301)]
    at_once, in_parts = extended(LossCurve(), points), LossCurve()
    for start in range(0, 1300, 130):
        in_parts = extended(in_parts, points[start : start + 130])
    assert in_parts == at_once
    assert extended(at_once, []) == at_once


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4, 0.8])
def test_the_law_of_a_merged_curve_is_the_law_of_its_points(alpha):
    """The slope now within 1 %, on what is left without the first tenth."""
    tokens = 1000.0 * np.arange(1, 4001)
    noise = 1 + 0.01 * np.random.default_rng(0).standard_normal(4000)
    losses = (2.0 + 3.0 * (tokens / 1e6) ** -alpha) * noise
    merged = extended(LossCurve(), zip(tokens.tolist(), losses.tolist(), strict=True))
    assert len(merged.tokens) <= MOST_POINTS
    slopes = []
    for at, values, counts in ((tokens, losses, np.ones(4000)), map(np.array, merged)):
        used = at > 0.1 * tokens[-1]
        slopes.append(fit(at[used], values[used], counts=counts[used]).slope(tokens[-1]))
    assert slopes[1] == pytest.approx(slopes[0], rel=0.01)
