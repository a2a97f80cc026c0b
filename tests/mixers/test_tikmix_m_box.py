"""Mixtures drawn from a box have the law of plain rejection, and come back to the nearest one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tikmix_hf.mixers import _box
from tikmix_hf.mixers._box import into_box, latin_hypercube, room, sample_box
from tikmix_hf.mixture import project


def plain_rejection(lower_K, upper_K, num_mixtures, rng):
    """The paper's words: a point of the box, divided by its sum, if that is in the box."""
    kept, num_drawn, num_kept = [], 0, 0
    while num_kept < num_mixtures:
        points_NK = rng.uniform(lower_K, upper_K, (4096, len(lower_K)))
        mixtures_NK = points_NK / points_NK.sum(axis=1, keepdims=True)
        inside_N = ((mixtures_NK >= lower_K) & (mixtures_NK <= upper_K)).all(axis=1)
        kept.append(mixtures_NK[inside_N])
        num_drawn, num_kept = num_drawn + 4096, num_kept + int(inside_N.sum())
    return np.concatenate(kept)[:num_mixtures], num_kept / num_drawn


def statistics(mixtures_NK, middle_K):
    """Each share, the largest and least factor and the entropy, (S, N)."""
    factors_NK = mixtures_NK / middle_K
    entropy_N = -(mixtures_NK * np.log(mixtures_NK)).sum(axis=1)
    return [*mixtures_NK.T, factors_NK.max(axis=1), factors_NK.min(axis=1), entropy_N]


def test_two_domains_have_the_density_that_integration_gives():
    """Along a ray the points v = s w of the box have s from max(l / w) to min(u / w).

    Their area is the integral of s ds, so the density of w is (min(u / w)^2 - max(l / w)^2) / 2; at
    l = 1/4, u = 1 and w <= 1/2 that is (1 / (1 - w)^2 - 1 / (16 w^2)) / 2.
    """
    lower_K, upper_K = np.full(2, 0.25), np.full(2, 1.0)
    shares_N = sample_box(lower_K, upper_K, 4000, np.random.default_rng(0)).mixtures[:, 0]

    def primitive(share):
        return 1 / (1 - share) + 1 / (16 * share)

    half = primitive(0.5) - primitive(0.25)

    def cumulated(shares):
        below = np.minimum(shares, 1 - shares)
        part = (primitive(below) - primitive(0.25)) / (2 * half)
        return np.where(shares <= 0.5, part, 1 - part)

    assert shares_N.min() >= 0.25
    assert stats.kstest(shares_N, cumulated).pvalue > 0.01


@pytest.mark.parametrize("num_layers", [None, 1, 2, 24])
@pytest.mark.parametrize(
    ("middle", "factors"),
    [
        ([0.5, 0.3, 0.2], (0.5, 2.0)),
        ([0.9, 0.06, 0.04], (0.5, 2.0)),
        ([0.3, 0.3, 0.2, 0.1, 0.06, 0.04], (0.9, 1.02)),
        ([0.25, 0.25, 0.25, 0.25], (0.0, 1.3)),
    ],
)
def test_the_law_is_that_of_plain_rejection(middle, factors, num_layers, monkeypatch):
    if num_layers is not None:
        monkeypatch.setattr(
            _box, "_best_layers", lambda lower, upper: _box._layers(lower, upper, num_layers)
        )
    middle_K = np.array(middle)
    lower_K, upper_K = factors[0] * middle_K, factors[1] * middle_K
    rng = np.random.default_rng(1)
    expected_NK, acceptance = plain_rejection(lower_K, upper_K, 4000, rng)
    found = sample_box(lower_K, upper_K, 4000, rng)
    pairs = zip(
        statistics(expected_NK, middle_K), statistics(found.mixtures, middle_K), strict=True
    )
    # Some thirty comparisons for each of sixteen cases: the least p of 500 is about 1/500.
    assert min(stats.ks_2samp(*pair).pvalue for pair in pairs) > 1e-3
    assert found.plain_acceptance == pytest.approx(acceptance, rel=0.15)


def test_the_law_is_the_same_with_26_domains():
    rng = np.random.default_rng(2)
    middle_K = rng.dirichlet(np.full(26, 3.0))
    lower_K, upper_K = 0.5 * middle_K, 2 * middle_K
    expected_NK, _ = plain_rejection(lower_K, upper_K, 3000, rng)
    found = sample_box(lower_K, upper_K, 3000, rng)
    assert len(_box._best_layers(lower_K, upper_K).tilt_B) > 1
    pairs = zip(
        statistics(expected_NK, middle_K), statistics(found.mixtures, middle_K), strict=True
    )
    assert min(stats.ks_2samp(*pair).pvalue for pair in pairs) > 1e-3


def test_where_plain_rejection_starves_percents_are_kept():
    middle_K = np.full(200, 1 / 200)
    sample = sample_box(0.5 * middle_K, 2 * middle_K, 256, np.random.default_rng(0))
    assert sample.plain_acceptance < 1e-6
    assert sample.acceptance > 0.02
    assert sample.mixtures.shape == (256, 200)
    assert (sample.mixtures >= 0.5 * middle_K).all()
    assert (sample.mixtures <= 2 * middle_K).all()
    np.testing.assert_allclose(sample.mixtures.sum(axis=1), 1, atol=1e-12)


def test_a_domain_without_room_keeps_its_share_and_the_others_divide_the_rest():
    lower_K, upper_K = np.array([0.2, 0.0, 0.2, 0.2]), np.array([0.2, 0.0, 0.8, 0.8])
    rng = np.random.default_rng(0)
    mixtures_NK = sample_box(lower_K, upper_K, 2000, rng).mixtures
    assert (mixtures_NK[:, :2] == [0.2, 0.0]).all()
    pair_NK, _ = plain_rejection(lower_K[2:] / 0.8, upper_K[2:] / 0.8, 2000, rng)
    assert stats.ks_2samp(mixtures_NK[:, 2], 0.8 * pair_NK[:, 0]).pvalue > 0.01


@pytest.mark.parametrize("caps", [1.002, 1.05])
def test_a_corner_of_the_box_is_no_trap(caps):
    """Caps that nearly sum to 1 leave next to nothing of the box."""
    middle_K = np.random.default_rng(0).dirichlet(np.full(26, 3.0))
    sample = sample_box(0.5 * middle_K, caps * middle_K, 64, np.random.default_rng(0))
    assert (sample.mixtures <= caps * middle_K).all()
    assert sample.acceptance > 1e-3


def test_a_box_that_holds_one_mixture_or_none_is_refused():
    rng = np.random.default_rng(0)
    for lower_K, upper_K in (([0.5, 0.5], [1.0, 1.0]), ([0.0, 0.0], [0.4, 0.5]), ([1.0], [1.0])):
        with pytest.raises(ValueError, match="must leave room for two mixtures"):
            sample_box(np.array(lower_K), np.array(upper_K), 4, rng)
    assert room(np.array([0.5, 0.4]), np.array([1.0, 1.0])) == pytest.approx(0.1)


def test_a_latin_hypercube_has_one_point_in_each_slice_of_every_axis():
    points = latin_hypercube(50, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(
        np.sort(np.floor(points * 50), axis=0), np.tile(np.arange(50.0)[:, None], 3)
    )
    assert abs(np.corrcoef(points.T)[0, 1]) < 0.5


def test_many_points_come_into_the_box_as_each_would_alone():
    rng = np.random.default_rng(0)
    middle_K = rng.dirichlet(np.ones(8))
    lower_K, upper_K = 0.5 * middle_K, 2 * middle_K
    draws_NK = rng.dirichlet(np.full(8, 0.3), 50)
    expected_NK = [project(draw_K, lower_K, upper_K) for draw_K in draws_NK]
    np.testing.assert_allclose(into_box(draws_NK, lower_K, upper_K), expected_NK, atol=1e-10)
