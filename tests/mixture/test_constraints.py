"""Constraints: binding by name, the way from the mixture in force to the goal, and what is told."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_hf.mixture import Constraints, Group, Supply, kl, nearest, normalise, total_variation
from tikmix_hf.mixture.region import Region
from tikmix_hf.mixture.rules import Rule

NAMES = ("web", "code", "books", "synthetic")
UNIFORM = np.full(4, 0.25)
# What a projection may be off by, see `region.PROJECTED`.
ROUNDING = 2e-9
quick = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def supply(prior=UNIFORM, *, tokens=100.0, seen=0.0, left=400.0, rows=1.0):
    every = np.ones(len(prior))
    prior = np.asarray(prior, dtype=np.float64)
    return Supply(prior, tokens * every, seen * every, left, np.array(rows) * every)


def applied(proposal, in_force=UNIFORM, given=None, **constraints):
    return Constraints(**constraints).apply(
        proposal, NAMES, in_force=np.asarray(in_force, dtype=np.float64), supply=given or supply()
    )


def mixtures(num=1):
    """Mixtures of the four domains; some have empty ones."""
    weights = st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any)
    return st.tuples(*[weights.map(lambda w: np.array(w) / sum(w)) for _ in range(num)])


share = st.integers(0, 20).map(lambda n: n / 20)
anything = st.fixed_dictionaries(
    {},
    optional={
        "floors": st.dictionaries(st.sampled_from(NAMES), share.map(lambda s: s / 4)),
        "caps": st.dictionaries(st.sampled_from(NAMES), share.map(lambda s: 0.25 + s)).map(
            lambda caps: {name: min(cap, 1.0) for name, cap in caps.items()}
        ),
        "groups": st.dictionaries(
            st.sampled_from(["a", "b"]),
            st.builds(
                lambda domains, low, width: Group(
                    domains=tuple(sorted(domains)), at_least=low / 2, at_most=low / 2 + width / 2
                ),
                st.sets(st.sampled_from(NAMES), min_size=1, max_size=3),
                share,
                share,
            ),
        ),
        "max_epochs": share.map(lambda s: 1 + 4 * s),
        "max_change": share,
        "max_kl_change": share,
        "max_kl_prior": share,
        "smoothing": share.map(lambda s: s / 2),
    },
)


@given(anything, mixtures(3), st.lists(st.integers(1, 30), min_size=4, max_size=4))
@quick
def test_the_answer_obeys_everything_or_a_conflict_is_named(given, three, rows):
    proposal, in_force, prior = three
    constraints, known = Constraints(**given), supply(prior, left=40.0, rows=rows)
    circumstances = {"in_force": in_force, "supply": known}
    try:
        found_K, notes = constraints.apply(proposal, NAMES, **circumstances)
    except ValueError:
        with pytest.raises(ValueError, match="cannot hold"):
            constraints.check(NAMES, **circumstances)
        return
    assert found_K.sum() == pytest.approx(1, abs=1e-9)
    assert (found_K >= 0).all()
    assert not found_K.flags.writeable
    for name, floor in constraints.floors.items():
        assert found_K[NAMES.index(name)] >= floor - ROUNDING
    for name, cap in constraints.caps.items():
        assert found_K[NAMES.index(name)] <= cap + ROUNDING
    for group in constraints.groups.values():
        total = sum(found_K[NAMES.index(name)] for name in group.domains)
        assert group.at_least - ROUNDING <= total <= group.at_most + ROUNDING
    if constraints.max_epochs is not None:
        rows_K = 40 * normalise(found_K / rows)
        assert (rows_K <= constraints.max_epochs * 100 / np.array(rows) + 1e-5).all()
    for radius, distance, middle_K in (
        (constraints.max_change, total_variation, in_force),
        (constraints.max_kl_change, kl, in_force),
        (constraints.max_kl_prior, kl, prior),
    ):
        assert radius is None or distance(found_K, middle_K) <= radius + ROUNDING
    assert constraints.holds(found_K, NAMES, **circumstances)
    assert bool(notes) or total_variation(found_K, proposal) <= ROUNDING


@given(anything, mixtures(3))
@quick
def test_an_answer_that_is_in_force_and_proposed_again_keeps_its_bits(given, three):
    proposal, in_force, prior = three
    constraints, known = Constraints(**given), supply(prior)
    try:
        found_K, _ = constraints.apply(proposal, NAMES, in_force=in_force, supply=known)
    except ValueError:
        return
    again_K, _ = constraints.apply(found_K, NAMES, in_force=found_K, supply=known)
    np.testing.assert_allclose(again_K, found_K, atol=ROUNDING)
    most = constraints.max_kl_prior
    obeys = constraints.polytope(NAMES, supply=known).contains(found_K)
    if obeys and (most is None or kl(found_K, prior) <= most):  # not off as a projection may be
        np.testing.assert_array_equal(again_K, found_K)


@given(mixtures(2))
@quick
def test_loose_constraints_keep_the_proposals_bits_and_have_nothing_to_tell(two):
    proposal, in_force = two
    found_K, notes = applied(
        proposal,
        in_force,
        floors={"web": 0.0},
        caps={"code": 1.0},
        groups={"natural": Group(domains=("web", "books"))},
        max_epochs=4,
        max_change=1.0,
    )
    np.testing.assert_array_equal(found_K, proposal)
    assert notes == ()


def test_an_answer_applied_again_keeps_its_bits():
    given = {
        "floors": {"web": 0.3},
        "groups": {"a": Group(domains=("code", "books"), at_most=0.3)},
        "max_kl_prior": 0.5,
    }
    once_K, notes = applied([0.1, 0.5, 0.1, 0.3], **given)
    twice_K, silence = applied(once_K, **given)
    np.testing.assert_array_equal(twice_K, once_K)
    assert notes
    assert silence == applied(once_K, **given)[1]


def test_renaming_domains_only_permutes():
    rng = np.random.default_rng(0)
    constraints = Constraints(
        floors={"web": 0.1},
        groups={"natural": Group(domains=("web", "books"), at_least=0.6)},
        max_change=0.3,
        max_kl_prior=0.4,
        smoothing=0.2,
    )
    proposal, in_force, prior = rng.dirichlet(np.full(4, 2.0), 3)
    order = [2, 0, 3, 1]
    found_K, notes = constraints.apply(proposal, NAMES, in_force=in_force, supply=supply(prior))
    renamed_K, same = constraints.apply(
        proposal[order],
        [NAMES[k] for k in order],
        in_force=in_force[order],
        supply=supply(prior[order]),
    )
    np.testing.assert_allclose(renamed_K, found_K[order], atol=1e-9)
    assert same == notes
    assert len(notes) >= 2


def test_the_goal_is_the_nearest_mixture_and_the_note_says_what_moved_it():
    found_K, notes = applied([0.1, 0.3, 0.2, 0.4], floors={"web": 0.3}, caps={"synthetic": 0.2})
    np.testing.assert_allclose(found_K, [0.3, 0.3, 0.2, 0.2])
    assert "constraints: floors of web and caps of synthetic moved 20.0% of tokens" in notes
    found_K, notes = applied(
        [0.1, 0.3, 0.2, 0.4], groups={"natural": Group(domains=("web", "books"), at_least=0.6)}
    )
    np.testing.assert_allclose(found_K, [0.2, 0.3 * 0.4 / 0.7, 0.4, 0.4 * 0.4 / 0.7])
    assert "constraints: groups of natural moved 30.0% of tokens" in notes


def test_epochs_become_caps_by_what_is_read_and_left():
    """Two epochs of 100 tokens, 60 of them read: 140 of the 400 left."""
    found_K, notes = applied([0.7, 0.1, 0.1, 0.1], given=supply(seen=60.0), max_epochs={"web": 2})
    np.testing.assert_allclose(found_K, [0.35, 0.65 / 3, 0.65 / 3, 0.65 / 3])
    assert notes == ("constraints: max_epochs of web moved 35.0% of tokens",)


def test_epochs_are_bounds_on_rows_where_these_differ_in_length():
    """300 rows of 40 tokens are read once; 100 of them are half of the 200 samples left.

    Half of the samples in rows of 40 and half in rows of 10 tokens are 4/5 of the tokens, and the
    uniform mixture, a fifth of the samples, obeys.
    """
    names, prior_K, tokens_K = ("long", "short"), np.full(2, 0.5), np.array([12_000.0, 1e9])
    known = Supply(prior_K, tokens_K, np.array([8000.0, 0]), 200.0, np.array([40.0, 10.0]))
    once = Constraints(max_epochs=1)
    found_K, notes = once.apply([0.9, 0.1], names, in_force=prior_K, supply=known)
    np.testing.assert_allclose(found_K, [0.8, 0.2], rtol=1e-9)
    assert notes == ("constraints: max_epochs of long moved 10.0% of tokens",)
    np.testing.assert_array_equal(
        once.apply(prior_K, names, in_force=prior_K, supply=known)[0], prior_K
    )
    assert once.holds([0.8, 0.2], names, in_force=prior_K, supply=known)
    assert not once.holds([0.801, 0.199], names, in_force=prior_K, supply=known)


def test_a_domain_that_was_read_too_often_gets_nothing():
    known = supply()._replace(seen=np.array([250.0, 0, 0, 0]))
    found_K, notes = applied(UNIFORM, given=known, max_epochs={"web": 2})
    np.testing.assert_allclose(found_K, [0, 1 / 3, 1 / 3, 1 / 3])
    assert "the mixture in force breaks max_epochs of web; 25.0% of tokens move" in notes[0]


def test_the_largest_change_ends_the_way_where_it_is_reached():
    found_K, notes = applied([1.0, 0, 0, 0], max_change=0.3)
    np.testing.assert_allclose(found_K, [0.55, 0.15, 0.15, 0.15], rtol=1e-9)
    assert notes == ("trust region: max_change shortened the move to 40%",)


@pytest.mark.parametrize("setting", ["max_kl_change", "max_kl_prior"])
def test_a_ball_of_divergence_ends_the_way_on_its_boundary(setting):
    prior = np.array([0.3, 0.3, 0.2, 0.2])
    found_K, notes = applied([1.0, 0, 0, 0], given=supply(prior), **{setting: 0.2})
    middle_K = UNIFORM if setting == "max_kl_change" else prior
    assert kl(found_K, middle_K) == pytest.approx(0.2, abs=1e-11)
    np.testing.assert_allclose(found_K[1:], found_K[1])  # on the straight way
    assert notes[0].startswith(f"trust region: {setting} shortened the move to ")


def test_smoothing_goes_part_of_the_way_back():
    found_K, notes = applied([1.0, 0, 0, 0], smoothing=0.25)
    np.testing.assert_allclose(found_K, 0.75 * np.array([1.0, 0, 0, 0]) + 0.25 * UNIFORM)
    assert notes == ("smoothing held back 25% of the move",)


def test_smoothing_never_leads_out_of_the_constraints():
    found_K, notes = applied([0.6, 0.2, 0.1, 0.1], floors={"web": 0.5}, smoothing=0.5)
    anchor_K = np.array([0.5, 1 / 6, 1 / 6, 1 / 6])
    np.testing.assert_allclose(found_K, 0.5 * anchor_K + 0.5 * np.array([0.6, 0.2, 0.1, 0.1]))
    assert "the mixture in force breaks floors of web; 25.0% of tokens move" in notes[0]


def test_a_domain_that_a_ball_of_divergence_forbids_is_left_out_and_does_not_stop_the_move():
    found_K, notes = applied([0.2, 0.2, 0.2, 0.4], [0.5, 0.3, 0.2, 0.0], max_kl_change=10.0)
    np.testing.assert_allclose(found_K, [1 / 3, 1 / 3, 1 / 3, 0.0], atol=1e-12)
    assert notes == ("constraints: max_kl_change moved 40.0% of tokens",)


def nearest_of_all(in_force, prior, group_least, radii):
    """The anchor as Clarabel finds it: nearest to `in_force` among all that obey."""
    found = cp.Variable(4)
    conditions = [
        cp.sum(found) == 1,
        found[0] + found[2] >= group_least,
        cp.norm(found - in_force, 1) / 2 <= radii[0],
        cp.sum(cp.kl_div(found, in_force)) <= radii[1],
        cp.sum(cp.kl_div(found, prior)) <= radii[2],
    ]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.kl_div(found, in_force))), conditions)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL)
    return found.value


def test_from_outside_the_nearest_mixture_that_obeys_is_the_anchor():
    """A proposal that is the mixture in force leads nowhere from the anchor but back to it."""
    rng = np.random.default_rng(1)
    num_found = 0
    for _ in range(10):
        in_force, prior = rng.dirichlet(np.full(4, 3.0), 2)
        least = min(0.9, in_force[0] + in_force[2] + rng.uniform(-0.1, 0.2))
        radii = rng.uniform(0.02, 0.4), rng.uniform(0.05, 0.5), rng.uniform(0.02, 0.3)
        reference = nearest_of_all(in_force, prior, least, radii)
        constraints = Constraints(
            groups={"natural": Group(domains=("web", "books"), at_least=least)},
            max_change=radii[0],
            max_kl_change=radii[1],
            max_kl_prior=radii[2],
            smoothing=1 - 1e-12,  # stay at the anchor
        )
        if reference is None:
            with pytest.raises(ValueError, match="cannot hold"):
                constraints.check(NAMES, in_force=in_force, supply=supply(prior))
            continue
        found_K, _ = constraints.apply(prior, NAMES, in_force=in_force, supply=supply(prior))
        np.testing.assert_allclose(found_K, reference, atol=1e-4)
        num_found += total_variation(found_K, in_force) > 0.01
    assert num_found >= 3


def test_a_start_that_is_outside_by_rounding_does_not_end_the_way():
    """Both ends are at the same distance, which is 1e-10 beyond the largest, and so is the way."""
    region = Region.of([Rule("max_change", "", "max_change", 0.3, 0.3)], UNIFORM, UNIFORM)
    start_K = np.array([0.55, 0.15, 0.15, 0.15]) + 1e-10 * np.array([1.0, -1, 0, 0])
    goal_K = np.array([0.55, 0.05, 0.20, 0.20]) + 1e-10 * np.array([1.0, -1, 0, 0])
    assert region.reach(start_K, goal_K) == (1.0, ())
    further_K = np.array([0.65, 0.05, 0.15, 0.15])
    assert region.reach(UNIFORM, further_K)[0] == pytest.approx(0.75)


def test_promises_that_both_ends_keep_are_kept_on_the_way():
    """TiKMiX's: no target gets less than under the mixture in force."""
    rng = np.random.default_rng(2)
    values_JK = rng.standard_normal((2, 4))
    better_K = max(rng.dirichlet(np.ones(4), 200), key=lambda w: (values_JK @ (w - UNIFORM)).min())
    found_K, _ = applied(better_K, max_kl_change=0.05, smoothing=0.3)
    assert (values_JK @ found_K > values_JK @ UNIFORM).all()
    assert 0 < total_variation(found_K, UNIFORM) < total_variation(better_K, UNIFORM)


def test_the_polytope_follows_the_names_and_knows_what_divergence_forbids():
    constraints = Constraints(
        floors={"books": 0.1},
        caps={"web": 0.5},
        groups={"a": Group(domains=("code", "web"), at_least=0.2, at_most=0.9)},
        max_kl_change=1.0,
    )
    polytope = constraints.polytope(NAMES)
    np.testing.assert_array_equal(polytope.lower_K, [0, 0, 0.1, 0])
    np.testing.assert_array_equal(polytope.upper_K, [0.5, 1, 1, 1])
    np.testing.assert_array_equal(polytope.rows_GK, [[1, 1, 0, 0], [-1, -1, 0, 0]])
    np.testing.assert_array_equal(polytope.least_G, [0.2, -0.9])
    narrower = constraints.polytope(NAMES, in_force=[0.5, 0.3, 0.2, 0.0])
    np.testing.assert_array_equal(narrower.upper_K, [0.5, 1, 1, 0])
    assert nearest([0.1, 0.1, 0.1, 0.7], polytope).sum() == pytest.approx(1)


def test_settings_come_back_from_json():
    constraints = Constraints(
        floors={"web": 0.1},
        groups={"a": Group(domains=("code", "books"), at_most=0.5)},
        max_epochs={"code": 4.0},
        max_change=0.2,
    )
    assert Constraints(**json.loads(json.dumps(asdict(constraints)))) == constraints


def test_constraints_do_not_follow_later_changes_of_what_was_given():
    floors, epochs = {"web": 0.1}, {"web": 2.0}
    constraints = Constraints(floors=floors, max_epochs=epochs)
    floors["web"], epochs["web"] = 0.9, 9.0
    assert constraints.floors["web"] == 0.1
    assert constraints.max_epochs["web"] == 2.0


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"floors": {"web": -0.1}}, "`floors` must lie in .* got -0.1 for 'web'"),
        ({"caps": {"web": np.nan}}, "`caps` must lie in .* got nan for 'web'"),
        ({"floors": {"web": 0.6, "code": 0.6}}, "`floors` must sum to at most 1; got 1.2"),
        ({"floors": {"web": 0.6}, "caps": {"web": 0.5}}, "must not exceed `caps`; got 0.6 > 0.5"),
        ({"groups": {"a": 0.3}}, "`groups` must hold a Group for 'a'"),
        ({"groups": {"a": {"domains": ["web"], "most": 1}}}, "`groups` must hold a Group for 'a'"),
        ({"max_epochs": -1.0}, "`max_epochs` must be finite and not negative; got -1.0"),
        ({"max_epochs": {"web": np.nan}}, "`max_epochs` .* got nan for 'web'"),
        ({"max_change": 1.5}, r"`max_change` must lie in \[0, 1\]; got 1.5"),
        ({"max_kl_change": -0.1}, "`max_kl_change` must be finite and not negative; got -0.1"),
        ({"max_kl_prior": np.inf}, "`max_kl_prior` must be finite and not negative; got inf"),
        ({"smoothing": 1.0}, "`smoothing` must be below 1; got 1.0"),
        ({"smoothing": np.nan}, "`smoothing` must be finite and not negative; got nan"),
    ],
)
def test_bad_settings_are_refused_by_name(bounds, reason):
    with pytest.raises(ValueError, match=reason):
        Constraints(**bounds)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"domains": ()}, r"`domains` of a group must be names; got \(\)"),
        ({"domains": "web"}, "`domains` of a group must be names; got 'web'"),
        ({"domains": ("web", "web")}, "`domains` of a group must differ; got web, web"),
        ({"domains": ("web",), "at_least": 0.4, "at_most": 0.3}, "`at_least` must not exceed"),
        ({"domains": ("web",), "at_most": 1.3}, r"`at_most` must lie in \[0, 1\]; got 1.3"),
    ],
)
def test_bad_groups_are_refused_by_name(settings, reason):
    with pytest.raises(ValueError, match=reason):
        Group(**settings)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"caps": {"cod": 0.5}}, "`caps` has no domain .*'cod' .*Did you mean 'code'"),
        ({"groups": {"a": Group(domains=("wbe",))}}, r"`groups\['a'\]` .*Did you mean 'web'"),
        ({"max_epochs": {"book": 1.0}}, "`max_epochs` has .*Did you mean 'books'"),
        ({"max_epochs": 1.0}, "`max_epochs` needs `supply`"),
        ({"max_kl_prior": 1.0}, "`max_kl_prior` needs `supply`"),
    ],
)
def test_what_cannot_be_bound_is_refused_by_name(given, reason):
    known = supply() if reason.endswith("books'") else None
    with pytest.raises(ValueError, match=reason):
        Constraints(**given).check(NAMES, in_force=UNIFORM, supply=known)


def test_what_is_no_mixture_is_refused():
    with pytest.raises(ValueError, match="`proposal` must sum to 1"):
        applied([0.5, 0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="`in_force` must have one share per domain"):
        applied(UNIFORM, in_force=[0.5, 0.5])


def test_numbers_of_numpy_become_pythons_and_words_are_refused():
    made = Constraints(
        floors={"a": np.float32(0.25)},
        max_epochs={"a": np.int64(2)},
        max_change=np.float64(0.5),
        groups={"ab": {"domains": ("a", "b"), "at_most": np.float32(0.5)}},
        smoothing=np.float32(0.5),
    )
    assert json.loads(json.dumps(asdict(made)))["floors"] == {"a": 0.25}
    for wrong in ({"floors": {"a": "0.3"}}, {"max_epochs": "4"}, {"smoothing": "no"}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must"):
            Constraints(**wrong)
