"""Rounds: as many as it takes until the proposal stays, and their mean."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.updates.rounds import measure_in_rounds


def matrix(value):
    return InfluenceMatrix(
        values=np.array([[value, 0.0]]),
        domain_stderr=np.array([[0.1, 0.1]]),
        target_stderr=np.array([[0.1, 0.1]]),
        targets=("arc",),
        domains=("web", "code"),
        preconditioner="sign",
        seconds=1.0,
        num_tokens=10,
        domain_losses=np.array([3.0, 4.0]),
        target_losses=np.array([5.0]),
    )


def share_of_web(influence):
    """A proposal whose total variation is the change of the mean."""
    value = influence.values[0, 0]
    return np.array([value, 1 - value])


def measured(values, *, propose=share_of_web, tolerance=0.02, num_rounds=None):
    asked = []

    def measure(number):
        asked.append(number)
        return matrix(values[number])

    rounds = measure_in_rounds(
        measure, propose, num_rounds=num_rounds or len(values), tolerance=tolerance
    )
    assert asked == list(range(len(rounds.each)))
    return rounds


# Means after each round: 0.1, 0.3, 0.31, 0.3075 or, where they agree at once, 0.1, 0.11.
MOVING = [0.1, 0.5, 0.33, 0.3]


def test_it_stops_once_two_proposals_in_a_row_agree():
    rounds = measured(MOVING)
    assert len(rounds.each) == 3
    assert rounds.change == pytest.approx(0.01)
    assert len(measured([0.1, 0.12, 0.9]).each) == 2
    assert len(measured(MOVING, tolerance=0.25).each) == 2


def test_the_result_is_the_mean_of_what_was_measured():
    rounds = measured(MOVING)
    assert rounds.matrix.values[0, 0] == pytest.approx(0.31)
    assert rounds.matrix.num_tokens == 30
    np.testing.assert_array_equal(rounds.matrix.rounds[:, 0, 0], MOVING[:3])


@pytest.mark.parametrize("values", [MOVING, [0.2, 0.2, 0.2]])
def test_no_tolerance_means_no_stop(values):
    rounds = measured(values, tolerance=0)
    assert len(rounds.each) == len(values)
    assert rounds.change == pytest.approx(abs(np.mean(values) - np.mean(values[:-1])))


def test_one_round_is_a_single_measurement_and_asks_no_mixer():
    rounds = measured([0.4], propose=None)
    assert rounds.matrix is rounds.each[0]
    assert rounds.change is None


def test_where_no_mixture_follows_all_rounds_are_measured():
    rounds = measured([0.2] * 4, propose=lambda influence: None)
    assert (len(rounds.each), rounds.change) == (4, None)


def test_a_round_without_a_proposal_is_agreed_with_by_nobody():
    answers = iter([np.array([0.5, 0.5]), None, np.array([0.5, 0.5]), np.array([0.5, 0.5])])
    rounds = measured([0.2] * 4, propose=lambda influence: next(answers))
    assert (len(rounds.each), rounds.change) == (4, 0.0)
