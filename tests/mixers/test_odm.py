"""ODM against its algorithm, turn by turn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals

NAMES = ("web", "code", "books")
PRIOR = np.array([0.5, 0.25, 0.25])


def signals(losses, mixture=PRIOR, tokens=None, steps=None):
    losses = np.array(losses, dtype=np.float64)
    if tokens is None:
        tokens = np.where(np.isnan(losses), 0.0, 128.0)
    return Signals(
        step=1,
        domains=NAMES,
        targets=(),
        mixture=mixture,
        train_losses=losses,
        train_tokens=np.array(tokens, dtype=np.float64),
        train_steps=None if steps is None else np.array(steps, dtype=np.float64),
    )


def answer(losses, state=None, mixture=PRIOR, tokens=None, steps=None, **settings):
    mixer = mixers.load("odm")(**settings)
    state = mixer.init(PRIOR) if state is None else state
    return mixer.step(state, signals(losses, mixture, tokens, steps))


def exploration(turn, num_domains=3):
    if turn == 0:
        return 1 / num_domains
    return min(1 / num_domains, math.sqrt(math.log(num_domains) / (num_domains * turn)))


def exp3(rewards, turn):
    """The mixture of turn t, one domain after the other."""
    powers = [math.exp(exploration(turn - 1) * reward) for reward in rewards]
    rest = 1 - len(rewards) * exploration(turn)
    return [rest * power / sum(powers) + exploration(turn) for power in powers]


def test_exploration_falls_as_the_root_of_the_turn_from_uniform():
    """sqrt(ln 3 / (3 t)) falls below 1 / 3 after 3 ln 3 = 3.3 turns."""
    uniform, _ = answer(np.tile([4.0, 1.0, 1.0], (2, 1)))
    np.testing.assert_allclose(uniform, np.full(3, 1 / 3), rtol=1e-12)
    moved, state = answer(np.tile([4.0, 1.0, 1.0], (6, 1)))
    assert moved[0] > 1.1 * moved[1]
    assert state.num_steps == 6


def test_the_smoothed_rule_by_hand():
    """A constant loss after n turns: (1 - 0.9^n) l / p."""
    mixture, state = answer(np.tile([4.0, 1.0, 2.0], (30, 1)))
    reached = 1 - 0.9**30
    rewards = [reached * 4 / 0.5, reached * 1 / 0.3333333333333333, reached * 2 / 0.3333333333]
    # While eps_t is 1 / 3 a share of 1/4 counts as 1/3, from then on as itself.
    early = sum(0.1 * 0.9 ** (30 - t) for t in (1, 2, 3))
    late = sum(
        0.1 * 0.9 ** (30 - t) * min(1, 0.25 / max(0.25, exploration(t))) for t in range(4, 31)
    )
    rewards[1] = early * 1 * 3 + late * 1 * 4
    rewards[2] = early * 2 * 3 + late * 2 * 4
    np.testing.assert_allclose(state.rewards, rewards, rtol=1e-9)
    np.testing.assert_allclose(mixture, exp3(rewards, 31), rtol=1e-9)


def test_exp3_sums_what_the_rows_of_a_step_earn():
    """A half of the tokens at a share of a half: the loss itself, whatever the share."""
    tokens = np.tile([64.0, 32.0, 32.0], (40, 1))
    losses = np.tile([4.0, 1.0, 2.0], (40, 1))
    _, state = answer(losses, tokens=tokens, rule="exp3", reward_scale=10.0)
    # The first turns, in which eps_t is above 1/4, earn the two small ones less.
    late = sum(0.25 / max(0.25, exploration(t)) for t in range(1, 41))
    np.testing.assert_allclose(state.rewards, [40 * 0.4, late * 0.1, late * 0.2], rtol=1e-12)


def test_exp3_earns_by_rows_what_single_arms_earn_in_the_mean():
    """Steps of one domain each, as often as its share says, sum to the same."""
    losses = np.full((400, 3), np.nan)
    arms = np.repeat([0, 1, 2], [200, 100, 100])
    losses[np.arange(400), arms] = np.array([4.0, 1.0, 2.0])[arms]
    late = mixers.odm.ODMState((0.0, 0.0, 0.0), num_steps=10_000)  # eps_t is small
    _, single = answer(losses, late, rule="exp3")
    tokens = np.tile([64.0, 32.0, 32.0], (400, 1))
    _, together = answer(np.tile([4.0, 1.0, 2.0], (400, 1)), late, tokens=tokens, rule="exp3")
    np.testing.assert_allclose(single.rewards, together.rewards, rtol=1e-12)
    np.testing.assert_allclose(single.rewards, [1600.0, 400.0, 800.0], rtol=1e-12)


def test_a_domain_without_news_keeps_its_reward():
    state = mixers.odm.ODMState((1.0, 2.0, 3.0), num_steps=1000)
    _, after = answer([[5.0, np.nan, np.nan], [5.0, np.nan, 1.0]], state)
    assert after.rewards[1] == 2.0
    assert after.rewards[0] == pytest.approx(0.9 * (0.9 * 1 + 0.1 * 10) + 0.1 * 10)
    assert after.rewards[2] == pytest.approx(0.9 * 3 + 0.1 * 4)
    assert after.notes == ("no training loss of code",)


def test_an_interval_is_replayed_step_by_step_whoever_cuts_it():
    losses = np.random.default_rng(0).uniform(1, 5, (50, 3))
    whole, state = answer(losses)
    _, first = answer(losses[:17])
    parts, second = answer(losses[17:], first)
    np.testing.assert_array_equal(parts, whole)
    assert second == state


@pytest.mark.parametrize("settings", [{}, {"rule": "exp3"}, {"importance": False}], ids=str)
def test_a_stretch_of_several_steps_is_as_many_turns(settings):
    """Turns 1 to 12, in which the exploration falls through the shares of a quarter."""
    losses = np.array([[4.0, 1.0, 2.0], [3.0, np.nan, 2.5], [5.0, 1.5, 1.0], [3.0, 2.0, 2.0]])
    tokens = np.where(np.isnan(losses), 0.0, [64.0, 32.0, 16.0])
    steps = np.array([1, 3, 6, 2])
    whole = answer(np.repeat(losses, steps, 0), tokens=np.repeat(tokens, steps, 0), **settings)
    told = answer(losses, tokens=tokens, steps=steps, **settings)
    np.testing.assert_allclose(told[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(told[1].rewards, whole[1].rewards, rtol=1e-12)
    assert told[1].num_steps == whole[1].num_steps == 12
    assert isinstance(told[1].num_steps, int)


@pytest.mark.parametrize("steps", [[1], [1, 0], [1, 1.5], [2, 2, 2]])
def test_steps_that_do_not_fit_the_losses_are_refused(steps):
    with pytest.raises(MixerError, match="`train_steps` must have a whole number of steps"):
        answer([[4.0, 1.0, 2.0]] * 2, steps=steps)


def test_importance_raises_a_domain_that_was_read_little():
    alike = np.full((50, 3), 3.0)
    weighted, _ = answer(alike)
    assert weighted[1] > weighted[0] + 0.02
    plain, _ = answer(alike, importance=False)
    np.testing.assert_allclose(plain, 1 / 3, rtol=1e-12)


def test_a_share_of_zero_counts_as_the_exploration():
    state = mixers.odm.ODMState((0.0, 0.0, 0.0), num_steps=99)
    _, after = answer([[np.nan, np.nan, 2.0]], state, mixture=np.array([0.5, 0.5, 0.0]))
    assert after.rewards[2] == pytest.approx(0.1 * 2.0 / exploration(100))


def test_every_domain_is_explored_and_more_of_it_if_so_told():
    losses = np.tile([500.0, 1.0, 1.0], (100, 1))
    mixture, _ = answer(losses)
    assert mixture.min() == pytest.approx(exploration(101), rel=1e-6)
    mixture, _ = answer(losses, least_exploration=0.2)
    assert mixture.min() == pytest.approx(0.2, abs=1e-3)


def test_rewards_of_any_size_do_not_overflow():
    mixture, _ = answer(np.tile([9e5, 1.0, 1.0], (50, 1)))
    assert np.isfinite(mixture).all()


def test_an_interval_without_any_loss_is_an_error():
    with pytest.raises(MixerError, match="no loss of any domain"):
        answer(np.full((3, 3), np.nan))


@pytest.mark.parametrize(
    "settings",
    [{"rule": "ucb"}, {"reward_scale": 0.0}, {"smoothing": 1.0}, {"least_exploration": -0.1}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        mixers.load("odm")(**settings)
