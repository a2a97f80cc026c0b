"""The KL projection with groups: by hand, against Clarabel, and by weak duality."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

from tikmix_hf.mixture import Polytope, kl, nearest, project, total_variation
from tikmix_hf.mixture.polytope import is_empty, least_change, least_sum
from tikmix_hf.mixture.projection import nearest_within

FREE = Polytope.box(np.zeros(4), np.ones(4))


def random_polytope(rng, num_domains, num_groups, *, gap=0.1):
    """Bounds and groups around a mixture that obeys them; `gap` 0 makes all groups tight."""
    inside_K = rng.dirichlet(np.ones(num_domains))
    lower_K = np.maximum(0, inside_K - rng.random(num_domains) * rng.choice([0.1, 1]))
    upper_K = np.minimum(1, inside_K + rng.random(num_domains) * rng.choice([0.1, 1]))
    polytope = Polytope.box(lower_K, upper_K)
    for _ in range(num_groups):
        row_K = (rng.random(num_domains) < 0.4) * rng.choice([-1.0, 1.0])
        polytope = polytope.with_row(row_K, row_K @ inside_K - gap * rng.random())
    return polytope


def clarabel(mixture_K, polytope):
    """The minimiser as Clarabel finds it."""
    found = cp.Variable(len(mixture_K))
    conditions = [
        cp.sum(found) == 1,
        found >= polytope.lower_K,
        found <= polytope.upper_K,
        polytope.rows_GK @ found >= polytope.least_G,
    ]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.kl_div(found, mixture_K))), conditions)
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-11)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, **tolerances)
    return np.asarray(found.value)


def test_a_group_scales_its_domains_and_the_others_each_by_one_factor():
    """(0.6, 0.3) must shrink to 0.45 together, (0.06, 0.04) grow to 0.55."""
    half = FREE.with_row(np.array([-1.0, -1, 0, 0]), -0.45)
    np.testing.assert_allclose(nearest([0.6, 0.3, 0.06, 0.04], half), [0.3, 0.15, 0.33, 0.22])


def test_overlapping_groups_multiply_their_factors():
    """By hand: m = 1/4 each, {0, 1} >= 0.6 and {1, 2} >= 0.6 meet with factors f each.

    With w = (f, f^2, f, 1) / Z both are 0.6: f + f^2 = 0.6 (2 f + f^2 + 1), so 4 f^2 - 2 f - 6 = 0
    and f = 3/2; then Z = 4 + 9/4.
    """
    both = FREE.with_row(np.array([1.0, 1, 0, 0]), 0.6).with_row(np.array([0, 1.0, 1, 0]), 0.6)
    np.testing.assert_allclose(nearest(np.full(4, 0.25), both), [0.24, 0.36, 0.24, 0.16])


def test_the_answer_is_clarabels():
    rng = np.random.default_rng(0)
    for _ in range(25):
        num_domains = int(rng.integers(3, 20))
        polytope = random_polytope(rng, num_domains, int(rng.integers(1, 6)))
        mixture_K = rng.dirichlet(np.full(num_domains, 0.5)) + 1e-6
        mixture_K /= mixture_K.sum()
        found_K, reference_K = nearest(mixture_K, polytope), clarabel(mixture_K, polytope)
        assert found_K.sum() == pytest.approx(1, abs=1e-13)
        assert polytope.violation(found_K) <= 1e-12
        # KL is 2-strongly convex in total variation and Clarabel's gap is of the order of 1e-9.
        np.testing.assert_allclose(found_K, reference_K, atol=1e-4)
        assert total_variation(found_K, mixture_K) > 1e-3 or polytope.contains(mixture_K)


def test_tight_groups_that_leave_hardly_anything_are_met_to_rounding():
    rng = np.random.default_rng(1)
    for _ in range(40):
        num_domains = int(rng.integers(2, 20))
        polytope = random_polytope(rng, num_domains, int(rng.integers(1, 8)), gap=0.0)
        mixture_K = rng.dirichlet(np.full(num_domains, 0.3))
        mixture_K[rng.random(num_domains) < 0.3] = 0.0
        found_K = nearest(mixture_K + np.eye(num_domains)[0] * 1e-3, polytope)
        assert found_K.sum() == pytest.approx(1, abs=1e-12)
        assert polytope.violation(found_K) <= 1e-9


def test_without_groups_it_is_the_projection_into_the_box():
    rng = np.random.default_rng(2)
    mixture_K = rng.dirichlet(np.ones(6))
    box = random_polytope(rng, 6, 0)
    np.testing.assert_array_equal(
        nearest(mixture_K, box), project(mixture_K, box.lower_K, box.upper_K)
    )


def test_a_group_that_does_not_bind_changes_no_bit_of_the_box_projection():
    rng = np.random.default_rng(3)
    mixture_K, box = rng.dirichlet(np.ones(6)), random_polytope(rng, 6, 0)
    loose = box.with_row(np.ones(6), 0.5)
    np.testing.assert_allclose(nearest(mixture_K, loose), nearest(mixture_K, box), rtol=1e-14)


def test_renaming_domains_only_permutes():
    rng = np.random.default_rng(4)
    polytope, mixture_K = random_polytope(rng, 9, 4), rng.dirichlet(np.ones(9))
    order_K = rng.permutation(9)
    renamed = Polytope(
        polytope.lower_K[order_K],
        polytope.upper_K[order_K],
        polytope.rows_GK[:, order_K],
        polytope.least_G,
    )
    np.testing.assert_allclose(
        nearest(mixture_K[order_K], renamed), nearest(mixture_K, polytope)[order_K], atol=1e-12
    )


def test_an_empty_domain_gets_only_what_its_group_must_have():
    """{0, 1} >= 0.6 and the first is capped at 0.5: the empty one gets 0.1, the rest 0.4."""
    capped = Polytope.box(np.zeros(4), [0.5, 1, 1, 1]).with_row(np.array([1.0, 1, 0, 0]), 0.6)
    np.testing.assert_allclose(nearest([0.5, 0, 0.3, 0.2], capped), [0.5, 0.1, 0.24, 0.16])


def test_empty_domains_share_what_they_must_have_evenly():
    third = FREE.with_row(np.array([0, 1.0, 1, 0]), 0.4)
    np.testing.assert_allclose(nearest([0.9, 0, 0, 0.1], third), [0.54, 0.2, 0.2, 0.06], atol=1e-9)


def test_a_group_without_any_share_leaves_its_domains_empty():
    none = FREE.with_row(np.array([-1.0, -1, 0, 0]), 0.0)
    np.testing.assert_allclose(nearest(np.full(4, 0.25), none), [0, 0, 0.5, 0.5], atol=1e-12)


def test_rows_that_only_together_leave_a_domain_nothing_do_not_stop_the_climb():
    """{0, 3, 4} <= 0.8 asks {1, 2} for 0.2, so {1, 2, 4} = 0.2 leaves the last domain nothing.

    Then {1, 2, 3} <= 0.42 caps domain 3 at 0.22, and the first has the rest.
    """
    row_K = np.array([0, 1.0, 1, 0, 1])
    polytope = Polytope.box(np.zeros(5), np.ones(5)).with_row(np.array([0, -1.0, -1, -1, 0]), -0.42)
    polytope = polytope.with_row(row_K, 0.2).with_row(np.array([0, -1.0, -1, 0, 0]), -0.2)
    polytope = polytope.with_row(np.array([-1.0, 0, 0, -1, -1]), -0.8).with_row(-row_K, -0.2)
    found_K = nearest(np.full(5, 0.2), polytope)
    np.testing.assert_allclose(found_K, [0.58, 0.1, 0.1, 0.22, 0.0], atol=1e-8)


def test_groups_that_exclude_each_other_are_refused():
    row_K = np.array([1.0, 1, 0, 0])
    both = FREE.with_row(row_K, 0.6).with_row(-row_K, -0.5)
    assert is_empty(both)
    with pytest.raises(ValueError, match="`polytope` must leave room for a mixture"):
        nearest(np.full(4, 0.25), both)
    assert not is_empty(FREE.with_row(row_K, 0.6).with_row(-row_K, -0.6))


def test_the_least_sum_and_the_least_change_are_those_of_hand():
    half = FREE.with_row(np.array([1.0, 1, 0, 0]), 0.6)
    assert least_sum(half, np.array([1.0, 1, 1, 0])) == pytest.approx(0.6)
    assert least_change(half, np.array([0.1, 0.1, 0.4, 0.4])) == pytest.approx(0.4)


def test_a_ball_of_change_is_met_by_the_nearest_of_its_mixtures():
    rng = np.random.default_rng(5)
    for _ in range(5):
        in_force_K, mixture_K = rng.dirichlet(np.ones(7), 2)
        polytope = random_polytope(rng, 7, 2)
        least = least_change(polytope, in_force_K)
        assert nearest_within(mixture_K, polytope, in_force_K, 0.9 * least)[0] is None
        found_K, _ = nearest_within(mixture_K, polytope, in_force_K, 1.1 * least + 0.01)
        assert total_variation(found_K, in_force_K) <= 1.1 * least + 0.01 + 1e-9
        assert polytope.violation(found_K) <= 1e-9
        # Any other mixture of both, such as one nearest to elsewhere, is further away.
        for other_K in rng.dirichlet(np.ones(7), 3):
            there_K, _ = nearest_within(other_K, polytope, in_force_K, 1.1 * least + 0.01)
            assert kl(found_K, mixture_K) <= kl(there_K, mixture_K) + 1e-9
