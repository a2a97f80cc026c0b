"""TiKMiX-D against Clarabel, closed forms and the invariances of equations 9-11."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from tikmix_hf import mixers
from tikmix_hf.mixers._interior_point import interior_point
from tikmix_hf.mixers._simplex_program import certified, paper_program
from tikmix_hf.mixers._slsqp import slsqp
from tikmix_hf.mixers.base import MixerError
from tikmix_hf.mixers.tikmix_d import solve, solve_certified
from tikmix_hf.mixture import Polytope

certificates = runpy.run_path(
    str(Path(__file__).parents[2] / "eval" / "solver_certificates.py"), run_name="certificates"
)
FAMILIES, COEFFICIENTS = certificates["FAMILIES"], certificates["COEFFICIENTS"]
instance, objective = certificates["instance"], certificates["objective"]
normalised, reference = certificates["normalised"], certificates["reference"]

# What the task asks of an answer, in units of max(1, |f*|) and of a row's largest influence.
SAME_OBJECTIVE, SATISFIED = 1e-6, 1e-8
# Two certified answers differ by 2e-7 in f; gamma = 1 makes f 1-strongly convex in |.|_1 (Pinsker),
# so their shares differ by at most sqrt(2 * 2e-7) < 1e-3; observed: below 1e-6.
SAME_MIXTURE = 1e-3


def reference_with_groups(values_JK, current_K, coefficients, polytope):
    """The optimum as Clarabel finds it, with rows for groups."""
    gain_JK, guard_JK = normalised(values_JK)
    alpha, beta, gamma = coefficients
    mixture = cp.Variable(len(current_K))
    phat = gain_JK @ mixture
    value = alpha * cp.norm(phat - cp.sum(phat) / len(gain_JK), 2) / np.sqrt(len(gain_JK))
    value -= beta * cp.sum(phat) + gamma * cp.sum(cp.entr(mixture))
    conditions = [
        cp.sum(mixture) == 1,
        guard_JK @ mixture >= guard_JK @ current_K,
        mixture >= polytope.lower_K,
        mixture <= polytope.upper_K,
        polytope.rows_GK @ mixture >= polytope.least_G,
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        cp.Problem(cp.Minimize(value), conditions).solve(
            solver=cp.CLARABEL, tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9
        )
    found_K = np.clip(mixture.value, 0, None)
    return found_K / found_K.sum()


def assert_optimal(values_JK, current_K, mixture_K, coefficients, box=None):
    guard_JK = normalised(values_JK)[1]
    found = objective(values_JK, mixture_K, coefficients)
    reference_K = (
        reference_with_groups(values_JK, current_K, coefficients, box)
        if isinstance(box, Polytope)
        else reference(values_JK, current_K, coefficients, box)
    )
    best = objective(values_JK, reference_K, coefficients)
    assert abs(found - best) <= SAME_OBJECTIVE * max(1, abs(best))
    assert (guard_JK @ mixture_K >= guard_JK @ current_K - SATISFIED).all()
    assert (mixture_K >= 0).all()
    assert mixture_K.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answer_is_clarabels_or_better(family):
    """No instance is excused: Clarabel settled all of these within the tolerance."""
    rng = np.random.default_rng(FAMILIES.index(family))
    for i in range(20):
        sizes = rng.integers(1, 21), (200 if i == 0 else rng.integers(2, 30))
        values_JK, current_K = instance(family, rng, *sizes)
        coefficients = COEFFICIENTS[i % len(COEFFICIENTS)]
        solution = solve_certified(values_JK, current_K, coefficients)
        assert_optimal(values_JK, current_K, solution.mixture, coefficients)


def test_floors_and_caps_are_met_at_the_optimum_of_the_box():
    rng = np.random.default_rng(1)
    for i in range(30):
        values_JK, current_K = instance(FAMILIES[i % len(FAMILIES)], rng, 4, 9)
        box = current_K * 0.8, np.minimum(1, current_K * 1.3)
        box[0][: i % 3] = box[1][: i % 3] = current_K[: i % 3]  # these shares are fixed
        coefficients = COEFFICIENTS[i % len(COEFFICIENTS)]
        solution = solve_certified(values_JK, current_K, coefficients, constraints=box)
        assert (solution.mixture >= box[0]).all()
        assert (solution.mixture <= box[1]).all()
        assert_optimal(values_JK, current_K, solution.mixture, coefficients, box)
        assert solution.slack == 0


def random_groups(rng, inside_K, *, room=0.05):
    """A polytope with groups around a mixture that obeys them."""
    polytope = Polytope.box(0.5 * inside_K, np.minimum(1, 2 * inside_K))
    for _ in range(3):
        row_K = (rng.random(len(inside_K)) < 0.4) * rng.choice([-1.0, 1.0])
        polytope = polytope.with_row(row_K, row_K @ inside_K - room * rng.random())
    return polytope


@pytest.mark.parametrize("solver", ["auto", "slsqp"])
def test_groups_are_met_at_the_optimum_among_those_that_meet_them(solver):
    """The mixture in force obeys, so there is no slack; SLSQP is given regular instances only."""
    rng = np.random.default_rng(11)
    num_moved = 0
    for i in range(20):
        family = FAMILIES[i % len(FAMILIES)] if solver == "auto" else "gaussian"
        values_JK, current_K = instance(family, rng, 3, 9)
        polytope = random_groups(rng, current_K)
        coefficients = COEFFICIENTS[i % len(COEFFICIENTS)] if solver == "auto" else (1.0, 1.0, 1.0)
        solution = solve_certified(
            values_JK, current_K, coefficients, constraints=polytope, solver=solver
        )
        assert polytope.violation(solution.mixture) <= 1e-9
        assert solution.slack == 0
        assert_optimal(values_JK, current_K, solution.mixture, coefficients, polytope)
        free_K = solve_certified(values_JK, current_K, coefficients, constraints=polytope[:2])
        num_moved += polytope.violation(free_K.mixture) > 1e-3
    assert num_moved >= 3  # so often the groups made a difference


def test_groups_win_with_the_least_slack():
    """Only the first two help, had 0.8 and may have 0.6: the shortfall is 0.2."""
    polytope = Polytope.box(np.zeros(4), np.ones(4)).with_row(np.array([-1.0, -1, 0, 0]), -0.6)
    solution = solve_certified([[1.0, 1, 0, 0]], [0.4, 0.4, 0.1, 0.1], constraints=polytope)
    np.testing.assert_allclose(solution.mixture, [0.3, 0.3, 0.2, 0.2], atol=1e-6)
    assert polytope.contains(solution.mixture)
    assert solution.slack == pytest.approx(0.2, abs=2e-7)
    assert solution.notes(("a",)) == (
        "constraints exclude the mixture in force; Pareto slack 2.0e-01",
    )


def test_groups_that_fix_their_sums_are_met_and_certified():
    rng = np.random.default_rng(12)
    for i in range(20):
        values_JK, current_K = instance(FAMILIES[i % len(FAMILIES)], rng, 3, 8)
        row_K = np.arange(8) < 4
        total = row_K @ current_K + rng.uniform(-0.05, 0.05)
        total = float(np.clip(total, 0.0, 1.0))
        polytope = Polytope.box(np.zeros(8), np.ones(8)).with_row(1.0 * row_K, total)
        polytope = polytope.with_row(-1.0 * row_K, -total)
        solution = solve_certified(values_JK, current_K, constraints=polytope)
        assert row_K @ solution.mixture == pytest.approx(total, abs=1e-9)


def test_the_bound_holds_for_any_multipliers_of_groups():
    rng = np.random.default_rng(13)
    for i in range(100):
        values_JK, current_K = instance("gaussian", rng, 3, 5)
        coefficients = COEFFICIENTS[i % len(COEFFICIENTS)]
        polytope = random_groups(rng, current_K)
        program = paper_program(values_JK, current_K, coefficients, polytope, np.zeros(3))
        bound = program.bound(
            rng.exponential(size=6) - 0.2, rng.standard_normal(len(program.spread_NK))
        )
        mixture_K = solve_certified(values_JK, current_K, coefficients, constraints=polytope)
        assert bound <= objective(values_JK, mixture_K.mixture, coefficients) + SATISFIED
        assert bound <= objective(values_JK, current_K, coefficients)


def test_what_a_solver_leaves_of_a_group_is_put_right_before_it_is_certified():
    polytope = Polytope.box(np.zeros(3), np.ones(3)).with_row(np.array([-1.0, -1, 0]), -0.6)
    args = [[1.0, 1, 0]], [0.3, 0.3, 0.4], (1.0, 1.0, 1.0)
    program = paper_program(*map(np.array, args[:2]), args[2], polytope, np.zeros(1))

    def rough(program):
        mixture_K, *multipliers = interior_point(program)
        return mixture_K + 1e-8 * np.array([1.0, 0, -1]), *multipliers

    mixture_K, _, _ = certified(program, {"rough": rough})
    assert polytope.contains(mixture_K)


def test_one_mixture_that_bounds_leave_is_the_answer():
    only_K = np.array([0.1, 0.2, 0.3, 0.4])
    solution = solve_certified([[1.0, 0, 0, 0]], np.full(4, 0.25), constraints=(only_K, only_K))
    np.testing.assert_allclose(solution.mixture, only_K, rtol=1e-12)


def test_a_bound_below_which_no_feasible_mixture_lies_comes_from_any_multipliers():
    rng = np.random.default_rng(2)
    for i in range(200):
        values_JK, current_K = instance("gaussian", rng, 3, 5)
        coefficients = COEFFICIENTS[i % len(COEFFICIENTS)]
        lower_K, upper_K = 0.7 * current_K, np.minimum(1, current_K * 1.4)
        box = Polytope.box(lower_K, upper_K) if i % 2 else Polytope.box(np.zeros(5), np.ones(5))
        program = paper_program(values_JK, current_K, coefficients, box, np.zeros(3))
        num_spread = len(program.spread_NK)
        bound = program.bound(rng.exponential(size=3) - 0.2, rng.standard_normal(num_spread))
        mixture_K = solve(values_JK, current_K, constraints=box)
        assert bound <= objective(values_JK, mixture_K, coefficients) + SATISFIED
        assert bound <= objective(values_JK, current_K, coefficients)


def test_the_bound_is_tight_where_fixed_shares_and_floors_leave_one_mixture():
    lower_K, upper_K = np.array([0.9, 0.05]), np.array([0.9, 0.2])
    solution = solve_certified([[-1.0, 1.0]], [0.5, 0.5], constraints=(lower_K, upper_K))
    np.testing.assert_allclose(solution.mixture, [0.9, 0.1], rtol=1e-12)
    assert solution.gap == pytest.approx(0, abs=1e-7)


def test_a_certificate_asks_for_feasibility_and_for_the_bound():
    box = Polytope.box(np.zeros(2), np.ones(2))
    program = paper_program(np.eye(2), np.array([0.5, 0.5]), (1.0, 1.0, 1.0), box, np.zeros(2))
    inside_K, outside_K = np.array([0.5, 0.5]), np.array([0.5 + 2e-8, 0.5 - 2e-8])
    scale = max(1, abs(program.objective(inside_K)))
    assert program.certifies(inside_K, program.objective(inside_K) - 0.9e-7 * scale)
    assert not program.certifies(inside_K, program.objective(inside_K) - 1.1e-7 * scale)
    assert not program.certifies(outside_K, program.objective(outside_K))


@pytest.mark.parametrize("coefficients", COEFFICIENTS)
def test_the_gradient_is_that_of_finite_differences(coefficients):
    rng = np.random.default_rng(3)
    values_JK, current_K = instance("gaussian", rng, 4, 6)
    box = Polytope.box(np.zeros(6), np.ones(6))
    program = paper_program(values_JK, current_K, coefficients, box, np.zeros(4))
    numeric_K = approx_fprime(current_K, program.objective, 1e-7)
    # Forward differences err by step * |f''| / 2 <= 1e-7 / min w, and by rounding / step = 1e-8.
    np.testing.assert_allclose(
        program.gradient(current_K), numeric_K, atol=1e-7 / current_K.min() + 1e-6
    )
    assert program.objective(current_K) == pytest.approx(
        objective(values_JK, current_K, coefficients), rel=1e-12
    )


@pytest.mark.parametrize("solver", [interior_point, slsqp])
def test_either_solver_brings_multipliers_that_certify_a_regular_instance(solver):
    values_JK, current_K = instance("gaussian", np.random.default_rng(4), 3, 12)
    box = Polytope.box(np.zeros(12), np.ones(12))
    program = paper_program(values_JK, current_K, (1.0, 1.0, 1.0), box, np.zeros(3))
    mixture_K, guard_J, spread_N = solver(program)
    assert program.certifies(mixture_K / mixture_K.sum(), program.bound(guard_J, spread_N))
    assert not program.certifies(current_K, program.bound(guard_J, spread_N))


def test_an_uncertified_point_is_an_error_and_no_answer(monkeypatch):
    def wrong(program):
        num_domains = len(program.linear_K)
        uniform_K = np.full(num_domains, 1 / num_domains)
        return uniform_K, np.zeros(len(program.floor_J)), np.zeros(len(program.spread_NK))

    monkeypatch.setitem(mixers.tikmix_d.SOLVERS, "interior_point", wrong)
    values_JK, current_K = instance("gaussian", np.random.default_rng(5), 3, 12)
    with pytest.raises(MixerError, match=r"no certified optimum \(interior_point: gap"):
        solve_certified(values_JK, current_K, solver="interior_point")
    assert solve_certified(values_JK, current_K).solver == "slsqp"


def test_one_target_and_a_slack_constraint_give_a_softmax():
    rng = np.random.default_rng(6)
    row_K = rng.random(7) + 0.1
    worst_K = np.eye(7)[row_K.argmin()]
    logit_K = 2.0 * row_K / row_K.max() / 0.5
    expected_K = np.exp(logit_K) / np.exp(logit_K).sum()
    # The gap of 1e-7 at gamma = 0.5 leaves |w - w*|_1 <= sqrt(2 * 1e-7 / 0.5), see SAME_MIXTURE.
    found_K = solve(row_K[None], worst_K, beta=2.0, gamma=0.5)
    np.testing.assert_allclose(found_K, expected_K, atol=6e-4)


def test_without_entropy_and_spread_one_target_takes_the_best_domain():
    found_K = solve([[0.1, 0.7, 0.3]], np.full(3, 1 / 3), alpha=0, gamma=0)
    np.testing.assert_allclose(found_K, [0, 1, 0], atol=1e-6)


def test_renaming_domains_and_targets_only_permutes():
    rng = np.random.default_rng(7)
    values_JK, current_K = instance("gaussian", rng, 5, 12)
    order_K, order_J = rng.permutation(12), rng.permutation(5)
    found_K = solve(values_JK, current_K)
    renamed_K = solve(values_JK[order_J][:, order_K], current_K[order_K])
    np.testing.assert_allclose(renamed_K, found_K[order_K], atol=SAME_MIXTURE)
    assert np.abs(found_K - current_K).max() > 10 * SAME_MIXTURE


def test_the_scale_of_a_row_changes_nothing():
    rng = np.random.default_rng(8)
    values_JK, current_K = instance("gaussian", rng, 5, 12)
    scale_J1 = 2.0 ** rng.integers(-40, 20, (5, 1))  # powers of two: not even rounding differs
    np.testing.assert_array_equal(
        solve(values_JK * scale_J1, current_K), solve(values_JK, current_K)
    )
    np.testing.assert_allclose(
        solve(values_JK * 3e-12, current_K), solve(values_JK, current_K), atol=SAME_MIXTURE
    )


def test_the_optimum_beats_the_mixture_in_force_and_harms_no_target():
    rng = np.random.default_rng(9)
    values_JK, current_K = instance("gaussian", rng, 4, 20)
    mixture_K = solve(values_JK, current_K)
    better = objective(values_JK, mixture_K, (1, 1, 1))
    assert better < objective(values_JK, current_K, (1, 1, 1)) - 0.1
    assert (values_JK @ mixture_K >= values_JK @ current_K - SATISFIED).all()
    assert not mixture_K.flags.writeable
    assert mixture_K.dtype == np.float64


def test_opposed_targets_keep_the_mixture_in_force_and_say_so():
    current_K = np.array([0.3, 0.7])
    solution = solve_certified([[1.0, 0.0], [0.0, 1.0]], current_K)
    np.testing.assert_array_equal(solution.mixture, current_K)
    assert solution.notes(("a", "b")) == ("no mixture improves every target",)


def test_an_optimum_already_in_force_is_not_called_unimprovable():
    row_K = np.array([1.0, 0.0])
    optimum_K = np.exp(row_K) / np.exp(row_K).sum()
    solution = solve_certified(row_K[None], optimum_K)
    np.testing.assert_array_equal(solution.mixture, optimum_K)
    assert solution.notes(("a",)) == ("the mixture in force is the optimum",)


def test_constraints_win_with_the_least_slack():
    """Only the first domain helps and it may have 0.3 where it had 0.5: the shortfall is 0.2."""
    box = np.zeros(2), np.array([0.3, 1.0])
    solution = solve_certified([[1.0, 0.0]], [0.5, 0.5], constraints=box)
    np.testing.assert_allclose(solution.mixture, [0.3, 0.7], atol=1e-6)
    assert solution.slack == pytest.approx(0.2, abs=2e-7)
    assert solution.notes(("a",)) == (
        "constraints exclude the mixture in force; Pareto slack 2.0e-01",
    )


def test_constraints_that_exclude_the_mixture_but_no_improvement_use_no_slack():
    box = np.array([0.6, 0.0]), np.ones(2)
    solution = solve_certified([[1.0, 0.0]], [0.5, 0.5], constraints=box)
    assert solution.slack == 0
    assert solution.notes(("a",)) == ()


def test_a_mixture_off_its_bound_by_rounding_needs_no_slack():
    box = np.zeros(2), np.array([0.3, 1.0])
    above_K = np.array([np.nextafter(0.3, 1), 0.7])
    solution = solve_certified([[1.0, 0.0]], above_K, constraints=box)
    assert solution.slack == 0
    assert solution.kept
    assert (solution.mixture <= box[1]).all()


def test_a_mixture_just_outside_the_box_is_not_kept():
    """One part in a million costs 1e-12 of entropy, but a cap is a cap."""
    cap = 0.5 - 1e-6
    mixture_K = solve([[1.0, 1.0]], [0.5, 0.5], constraints=(np.zeros(2), np.array([cap, 1.0])))
    assert mixture_K[0] <= cap


def test_a_mixture_that_moved_for_entropy_alone_is_not_called_kept():
    solution = solve_certified([[1.0, 1.0, 1.0]], [0.8, 0.1, 0.1])
    np.testing.assert_allclose(solution.mixture, 1 / 3, atol=SAME_MIXTURE)
    assert solution.notes(("a",)) == ()


def test_targets_without_help_or_movement_are_named():
    solution = solve_certified([[-1.0, -3.0], [0.0, 0.0], [1.0, 2.0]], [0.5, 0.5])
    assert solution.unhelped == (0,)
    assert solution.unmoved == (1,)
    notes = solution.notes(("arc", "piqa", "boolq"))
    assert "target arc: no domain helps, divided by its largest |influence|" in notes
    assert "target piqa: no domain moves it, left out" in notes
    only_moved = solve([[-1.0, -3.0], [1.0, 2.0]], [0.5, 0.5])
    np.testing.assert_array_equal(solution.mixture, only_moved)


def test_a_single_domain_has_everything():
    np.testing.assert_allclose(solve([[2.0], [-1.0]], [1.0]), [1.0])


@pytest.mark.parametrize(
    ("values", "reason"),
    [([[0.0, 0.0]], "zero everywhere"), ([[1.0, np.nan]], "finite; got nan at target 0, domain 1")],
)
def test_values_that_say_nothing_are_a_mixer_error(values, reason):
    with pytest.raises(MixerError, match=reason):
        solve(values, [0.5, 0.5])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"alpha": -1.0}, "`alpha` must be finite and at least 0; got -1.0"),
        ({"gamma": np.inf}, "`gamma`"),
        ({"constraints": (np.zeros(3), np.ones(3))}, "`constraints` must be two arrays of 2"),
        ({"constraints": (np.zeros(2), np.full(2, 0.4))}, "leave room for a mixture"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, reason):
    with pytest.raises(ValueError, match=reason):
        solve([[1.0, 0.0]], [0.5, 0.5], **settings)


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="'auto' or one of interior_point, slsqp"):
        solve_certified([[1.0, 0.0]], [0.5, 0.5], solver="newton")
