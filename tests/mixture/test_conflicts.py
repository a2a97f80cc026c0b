"""Conflicts: the smallest one against a search through all subsets, and how it is told."""

from __future__ import annotations

from contextlib import suppress
from itertools import combinations

import numpy as np
import pytest

from tikmix_hf.mixture import Constraints, Group, Supply
from tikmix_hf.mixture import conflicts as module
from tikmix_hf.mixture.conflicts import smallest_conflict

NAMES = ("web", "code", "books", "synthetic")


def least_size(num_members, can_hold):
    """Brute force: the size of the smallest subset that cannot hold."""
    for size in range(num_members + 1):
        for subset in combinations(range(num_members), size):
            marked_M = np.zeros(num_members, dtype=bool)
            marked_M[list(subset)] = True
            if not can_hold(marked_M):
                return size
    return None


def marked(num_members, members):
    return np.isin(np.arange(num_members), members)


def test_no_smaller_subset_is_a_conflict():
    """Random conflicts to be found: a set cannot hold if it has all of one of them."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        num_members = int(rng.integers(2, 9))
        cores = [
            rng.choice(num_members, int(rng.integers(1, num_members + 1)), replace=False)
            for _ in range(int(rng.integers(1, 5)))
        ]

        def can_hold(marked_M):
            return not any(marked_M[core].all() for core in cores)  # noqa: B023

        found = smallest_conflict(num_members, can_hold)
        assert not can_hold(marked(num_members, found))
        assert len(found) == least_size(num_members, can_hold)


def test_bounds_groups_and_balls_that_exclude_each_other_are_the_fewest(monkeypatch):
    """The subsets are searched by the same oracle, which the projection's tests judge."""
    asked = []

    def spying(num_members, can_hold):
        found = smallest_conflict(num_members, can_hold)
        asked.append((len(found), least_size(num_members, can_hold)))
        return found

    monkeypatch.setattr("tikmix_hf.mixture.constraints.smallest_conflict", spying)
    rng = np.random.default_rng(1)
    for _ in range(12):
        in_force_K, prior_K = rng.dirichlet(np.full(4, 3.0), 2)
        constraints = Constraints(
            floors={"web": rng.uniform(0, 0.4), "code": rng.uniform(0, 0.4)},
            caps={"synthetic": rng.uniform(0, 0.4)},
            groups={"natural": Group(domains=("web", "books"), at_most=rng.uniform(0.1, 0.9))},
            max_change=rng.uniform(0, 0.4),
            max_kl_prior=rng.uniform(0, 0.2),
        )
        supply = Supply(prior_K, 100 * prior_K, np.zeros(4), 100.0, np.ones(4))
        num_asked = len(asked)
        with suppress(ValueError):
            constraints.check(NAMES, in_force=in_force_K, supply=supply)
            assert len(asked) == num_asked
    assert len(asked) >= 6
    assert {size for size, _ in asked} >= {2, 3}
    assert all(found == least for found, least in asked)


def told(rows=(1.0, 1.0, 1.0, 1.0), **settings):
    constraints = Constraints(**settings)
    uniform_K = np.full(4, 0.25)
    supply = Supply(uniform_K, np.full(4, 100.0), np.zeros(4), 200.0, np.array(rows))
    with pytest.raises(ValueError, match="cannot hold") as caught:
        constraints.check(NAMES, in_force=uniform_K, supply=supply)
    return str(caught.value)


def test_a_conflict_is_told_in_the_users_words_and_the_innocent_are_not_named():
    natural = Group(domains=("web", "books"), at_least=0.6)
    assert told(
        floors={"code": 0.5, "books": 0.1}, caps={"web": 0.7}, groups={"natural": natural}
    ) == (
        "`floors['code']` 0.5 and `groups['natural'].at_least` 0.6 cannot hold together. "
        "Lower `floors['code']` or `groups['natural'].at_least`."
    )


def test_trust_regions_and_the_prior_take_part_in_conflicts():
    assert told(floors={"code": 0.5}, max_change=0.2, max_kl_change=1.0) == (
        "`floors['code']` 0.5 and `max_change` 0.2 cannot hold together. "
        "Lower `floors['code']`, or raise `max_change`."
    )
    # From uniform to (0.5, 1/6, 1/6, 1/6): log 2 / 2 + log(2/3) / 2 = 0.1438 nats.
    assert "`max_kl_change` 0.14 cannot" in told(floors={"code": 0.5}, max_kl_change=0.14)
    assert "`max_kl_prior` 0.14 cannot" in told(floors={"code": 0.5}, max_kl_prior=0.14)
    uniform_K = np.full(4, 0.25)
    Constraints(floors={"code": 0.5}, max_kl_change=0.144).check(
        NAMES, in_force=uniform_K, supply=None
    )


def test_epochs_that_leave_too_few_tokens_are_told_with_their_shares():
    message = told(max_epochs=0.4, floors={"web": 0.1})
    assert "`max_epochs['web']` 0.4 (a share of at most 0.2)" in message
    assert message.endswith(
        "Raise `max_epochs['web']`, `max_epochs['code']`, `max_epochs['books']` or "
        "`max_epochs['synthetic']`."
    )


def test_epochs_of_rows_of_unequal_lengths_are_told_with_their_shares_of_the_samples():
    """40 tokens each in rows of 2, 1, 1 and 1, of 200 samples left: 20 + 3 * 40 rows."""
    message = told(max_epochs=0.4, rows=(2.0, 1.0, 1.0, 1.0))
    assert "`max_epochs['web']` 0.4 (a share of the samples of at most 0.1)" in message
    assert "`max_epochs['books']` 0.4 (a share of the samples of at most 0.2)" in message
    assert "cannot hold together. Raise `max_epochs['web']`, " in message


def test_many_members_are_counted_and_summed():
    names = [f"domain {k}" for k in range(8)]
    with pytest.raises(ValueError, match=r"`caps` of 8 domains \(shares that sum to 0.8\)"):
        Constraints(caps=dict.fromkeys(names, 0.1)).check(
            names, in_force=np.full(8, 1 / 8), supply=None
        )


def test_a_rule_that_cannot_hold_alone_is_told_alone():
    with pytest.raises(ValueError, match=r"^`caps\['web'\]` 0.5 cannot hold. Raise"):
        Constraints(caps={"web": 0.5}).check(("web",), in_force=np.ones(1), supply=None)


def test_after_enough_rounds_a_conflict_is_at_least_irreducible(monkeypatch):
    monkeypatch.setattr(module, "MAX_ROUNDS", 2)

    def can_hold(marked_M):  # any three of six are a conflict
        return marked_M.sum() < 3

    assert len(smallest_conflict(6, can_hold)) == 3


def test_what_can_hold_has_no_conflict():
    with pytest.raises(ValueError, match="they can hold"):
        smallest_conflict(3, lambda marked_M: True)
