"""The simplex: binding by name, splitting, and the projection into a box."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from tikmix_hf.mixture import (
    as_mixture,
    entropy,
    kl,
    largest_remainder,
    normalise,
    project,
    total_variation,
)

NAMES = ("web", "code", "books")


def random_box(rng, num_domains):
    """Bounds around a mixture, so that they leave room for one; a third of them are 0 or 1."""
    inside_K = rng.dirichlet(np.ones(num_domains))
    lower_K = np.maximum(0, inside_K - rng.random(num_domains) * rng.choice([0, 0.1, 1]))
    upper_K = np.minimum(1, inside_K + rng.random(num_domains) * rng.choice([0, 0.1, 1]))
    return lower_K, upper_K


def test_shares_bind_by_name_and_missing_names_have_none():
    mixture_K = as_mixture({"books": 0.25, "web": 0.75}, NAMES)
    np.testing.assert_array_equal(mixture_K, [0.75, 0.0, 0.25])
    assert mixture_K.dtype == np.float64
    assert not mixture_K.flags.writeable


def test_an_array_stays_writeable_and_its_mixture_is_a_copy():
    given_K = np.array([0.5, 0.3, 0.2])
    mixture_K = as_mixture(given_K, NAMES)
    given_K[0] = 9
    np.testing.assert_allclose(mixture_K, [0.5, 0.3, 0.2])


def test_shares_are_divided_by_their_sum():
    given_K = np.array([0.5, 0.3, 0.2 + 9e-7])
    np.testing.assert_array_equal(as_mixture(given_K, NAMES), given_K / given_K.sum())


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"webb": 1.0}, "no domain to bind 'webb' to. Did you mean 'web'"),
        ({"zzz": 1.0}, "Choose from: web, code, books"),
        ([0.5, 0.5], r"one share per domain \(3: web, code, books\); got shape \(2,\)"),
        ([1.5, -0.5, 0.0], "got -0.5 for 'code'"),
        ([np.nan, 0.5, 0.5], "got nan for 'web'"),
        ([0.5, 0.3, 0.2 + 2e-6], "must sum to 1"),
        ("natural", "got 'natural'"),
    ],
)
def test_what_is_no_mixture_is_refused_by_name(given, reason):
    with pytest.raises(ValueError, match=f"`prior`.*{reason}"):
        as_mixture(given, NAMES, argument="prior")


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, -1.0], [np.inf, 1.0]])
def test_what_cannot_be_normalised_is_refused(values):
    with pytest.raises(ValueError, match="`values_K` must be finite"):
        normalise(values)


def test_entropy_kl_and_total_variation_are_their_sums():
    rng = np.random.default_rng(0)
    w, r = rng.dirichlet(np.ones(6), 2)
    assert entropy(w) == pytest.approx(-sum(x * np.log(x) for x in w))
    assert kl(w, r) == pytest.approx(sum(x * np.log(x / y) for x, y in zip(w, r, strict=True)))
    assert total_variation(w, r) == pytest.approx(np.maximum(w - r, 0).sum())
    assert entropy([1.0, 0.0]) == 0
    assert kl([0.0, 1.0], [0.5, 0.5]) == pytest.approx(np.log(2))
    assert kl([0.5, 0.5], [1.0, 0.0]) == np.inf
    assert total_variation([1, 0], [0, 1]) == 1


def test_a_split_sums_exactly_and_nobody_with_a_share_goes_empty():
    rng = np.random.default_rng(1)
    for _ in range(300):
        num_domains = int(rng.integers(1, 30))
        mixture_K = rng.dirichlet(np.full(num_domains, 0.2)) * (rng.random(num_domains) < 0.8)
        if not mixture_K.any():
            continue
        total = num_domains + int(rng.integers(0, 60))
        counts_K = largest_remainder(mixture_K / mixture_K.sum(), total)
        assert counts_K.sum() == total
        assert counts_K.dtype == np.int64
        np.testing.assert_array_equal(counts_K > 0, mixture_K > 0)


def test_a_split_without_tiny_shares_is_hamiltons():
    """Whole parts first, then one unit each to the largest remainders."""
    rng = np.random.default_rng(2)
    for _ in range(100):
        mixture_K = rng.dirichlet(np.full(8, 5.0))
        quota_K = 10_000 * mixture_K
        expected_K = np.floor(quota_K).astype(int)
        order = sorted(range(8), key=lambda k: expected_K[k] - quota_K[k])
        for k in order[: 10_000 - expected_K.sum()]:
            expected_K[k] += 1
        np.testing.assert_array_equal(largest_remainder(mixture_K, 10_000), expected_K)


def test_the_units_of_tiny_shares_come_from_the_domain_furthest_above_its_quota():
    mixture_K = np.array([0.9] + [0.001] * 100)
    np.testing.assert_array_equal(largest_remainder(mixture_K, 110), [10] + [1] * 100)


def test_a_split_into_too_few_units_is_refused():
    with pytest.raises(ValueError, match=r"each of the 3 domains with a share one unit; got 2"):
        largest_remainder([0.4, 0.3, 0.3, 0.0], 2)


def test_a_trillion_units_are_split_exactly():
    counts_K = largest_remainder([1 / 3, 1 / 3, 1 / 3], 10**12)
    np.testing.assert_array_equal(sorted(counts_K), [333333333333, 333333333333, 333333333334])


def test_the_projection_is_the_clipped_multiple_that_sums_to_one():
    """Brute force: the scalar by root finding on the sum's monotone curve."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        num_domains = int(rng.integers(2, 12))
        mixture_K = rng.dirichlet(np.full(num_domains, 0.5)) + 1e-6
        mixture_K /= mixture_K.sum()
        lower_K, upper_K = random_box(rng, num_domains)
        found_K = project(mixture_K, lower_K, upper_K)
        assert found_K.sum() == pytest.approx(1, abs=1e-13)
        assert (lower_K <= found_K).all()
        assert (found_K <= upper_K).all()

        def excess(log_c):
            return np.clip(np.exp(log_c) * mixture_K, lower_K, upper_K).sum() - 1  # noqa: B023

        if excess(-40) < 0 < excess(40):  # else the bounds alone sum to 1
            scale = np.exp(brentq(excess, -40, 40, xtol=1e-13))
            # The root is known to 1e-13 in log c, shares are at most 1.
            np.testing.assert_allclose(
                found_K, np.clip(scale * mixture_K, lower_K, upper_K), atol=1e-11
            )


def test_no_mixture_in_the_box_is_nearer_than_the_projection():
    rng = np.random.default_rng(4)
    for _ in range(100):
        mixture_K, other_K = rng.dirichlet(np.ones(5), 2)
        lower_K, upper_K = random_box(rng, 5)
        found_K = project(mixture_K, lower_K, upper_K)
        elsewhere_K = project(other_K, lower_K, upper_K)
        assert kl(found_K, mixture_K) <= kl(elsewhere_K, mixture_K) + 1e-12


def test_a_mixture_inside_the_box_is_its_own_projection():
    mixture_K = np.random.default_rng(5).dirichlet(np.ones(9))
    np.testing.assert_allclose(project(mixture_K, 0.5 * mixture_K, np.ones(9)), mixture_K)


def test_an_empty_domain_gets_its_floor_and_no_more():
    found_K = project([0.75, 0.25, 0.0], [0, 0, 0.2], [1, 1, 1])
    np.testing.assert_allclose(found_K, [0.6, 0.2, 0.2])


def test_what_capped_domains_cannot_hold_goes_evenly_to_the_empty_ones():
    found_K = project([1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0], [0.4, 1, 1, 0.1])
    np.testing.assert_allclose(found_K, [0.4, 0.25, 0.25, 0.1])


def test_bounds_that_sum_to_one_are_the_projection():
    tenths_K = np.full(10, 0.1)  # sums to 1 - 1e-16
    mixture_K = np.random.default_rng(6).dirichlet(np.ones(10))
    for box in ((tenths_K, np.ones(10)), (np.zeros(10), tenths_K)):
        # One share may take up what the other nine round away.
        np.testing.assert_allclose(project(mixture_K, *box), tenths_K, rtol=1e-14)


def test_a_box_without_a_mixture_is_refused():
    with pytest.raises(ValueError, match=r"must leave room for a mixture; got sums 1.2 and 2"):
        project([0.5, 0.5], [0.6, 0.6], [1.0, 1.0])
    with pytest.raises(ValueError, match="1 floors above their caps"):
        project([0.5, 0.5], [0.3, 0.0], [0.2, 1.0])
