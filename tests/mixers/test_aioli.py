"""Aioli on probes whose effects are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals
from tikmix_hf.mixture import Constraints, Group, nearest

NAMES, TARGETS = ("web", "code", "books"), ("arc", "piqa")
PRIOR = np.array([0.5, 0.25, 0.25])
# What a probe on one domain alone would take off each target's loss.
EFFECTS = np.array([[0.5, 0.1, -0.1], [0.3, 0.2, 0.0]])


def probed(mixer, state, effects=EFFECTS, noise=0.0):
    """Signals after the mixer's probes, on a model whose losses fall linearly in the mixture."""
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR)
    mixtures = mixer.probe_mixtures(state, signals)
    falls = mixtures @ effects.T + noise
    losses = 5.0 - np.vstack([np.zeros(2), np.cumsum(falls, axis=0)])
    return dataclasses.replace(signals, probe_losses=losses)


def bent(mixer, state, bounds, effects=EFFECTS):
    """The same, with probes that constraints keep from what was asked."""
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR)
    allowed = bounds.polytope(NAMES)
    asked = mixer.probe_mixtures(state, signals)
    mixtures = np.array([nearest(mixture, allowed) for mixture in asked])
    losses = 5.0 - np.vstack([np.zeros(2), np.cumsum(mixtures @ effects.T, axis=0)])
    return dataclasses.replace(signals, probe_losses=losses, probe_mixtures=mixtures)


def shares_of(effects):
    """The paper's matrix: least entry 0, sum 1."""
    shifted = effects - effects.min()
    return shifted / shifted.sum()


def test_effects_are_recovered_from_smoothed_probes():
    """By hand: A - min A is (0.6, 0.2, 0; 0.4, 0.3, 0.1), of sum 1.6; columns 1.0, 0.5, 0.1."""
    mixer = mixers.load("aioli")(eta=0.8)
    state = mixer.init(PRIOR)
    mixture, after = mixer.step(state, probed(mixer, state))
    np.testing.assert_allclose(after.effects, shares_of(EFFECTS), rtol=1e-9)
    raised = PRIOR * np.exp(0.8 * 3 * np.array([1.0, 0.5, 0.1]) / 1.6)
    np.testing.assert_allclose(mixture, raised / raised.sum(), rtol=1e-9)


@pytest.mark.parametrize("one_hot", [0.2, 0.625, 1.0])
def test_how_pure_a_probe_is_changes_nothing_without_noise(one_hot):
    mixer = mixers.load("aioli")(one_hot=one_hot, lp_rounds=3)
    state = mixer.init(PRIOR)
    _, after = mixer.step(state, probed(mixer, state))
    np.testing.assert_allclose(after.effects, shares_of(EFFECTS), rtol=1e-9)


@pytest.mark.parametrize(
    "bounds",
    [
        Constraints(floors={"web": 0.3}, caps={"code": 0.4}),
        Constraints(groups={"few": Group(domains=("code", "books"), at_most=0.5)}),
    ],
    ids=["floor and cap", "group"],
)
def test_effects_are_those_of_the_probes_that_constraints_allowed(bounds):
    mixer = mixers.load("aioli")()
    state = mixer.init(PRIOR)
    given = bent(mixer, state, bounds)
    asked = mixer.probe_mixtures(state, given)
    assert np.abs(given.probe_mixtures - asked).max() > 0.1
    _, after = mixer.step(state, given)
    np.testing.assert_allclose(after.effects, shares_of(EFFECTS), rtol=1e-6, atol=1e-9)
    _, mistaken = mixer.step(state, dataclasses.replace(given, probe_mixtures=None))
    assert np.abs(np.array(mistaken.effects) - shares_of(EFFECTS)).max() > 0.01


def test_a_domain_whose_share_no_probe_moved_has_the_mean_effect():
    """Web has 0.2 in every probe; by hand, code and books differ by 0.2 on arc, 0.2 on piqa.

    So the effects are mean + (0, 0.1, -0.1) each, where the means are those of the falls:
    0.2 * 0.5 + 0.4 * (0.1 - 0.1) = 0.1 and 0.2 * 0.3 + 0.4 * (0.2 + 0.0) = 0.14.
    """
    mixer = mixers.load("aioli")(lp_rounds=1)
    state = mixer.init(PRIOR)
    still = Constraints(floors={"web": 0.2}, caps={"web": 0.2})
    _, after = mixer.step(state, bent(mixer, state, still))
    expected = np.array([[0.1, 0.2, 0.0], [0.14, 0.24, 0.04]])
    np.testing.assert_allclose(after.effects, shares_of(expected), rtol=1e-6, atol=1e-9)


def test_constraints_that_leave_one_mixture_are_refused():
    mixer = mixers.load("aioli")()
    state = mixer.init(PRIOR)
    given = bent(mixer, state, Constraints(floors={"web": 0.2}, caps={"web": 0.2}))
    alike = dataclasses.replace(given, probe_mixtures=np.tile(PRIOR, (6, 1)))
    with pytest.raises(MixerError, match="nor may the constraints leave a single mixture"):
        mixer.step(state, alike)
    fewer = dataclasses.replace(given, probe_mixtures=given.probe_mixtures[:5])
    with pytest.raises(MixerError, match="a row for each of 6 probes; got 5 rows"):
        mixer.step(state, fewer)


def test_sweeps_are_averaged():
    """Noise that sums to zero over the sweeps of a domain is nothing."""
    mixer = mixers.load("aioli")(lp_rounds=2)
    state = mixer.init(PRIOR)
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR)
    order = mixer.probe_mixtures(state, signals).argmax(axis=1)
    noise = np.zeros((6, 2))
    for k in range(3):
        first, second = np.flatnonzero(order == k)
        noise[first], noise[second] = 0.3 + k, -0.3 - k
    _, after = mixer.step(state, probed(mixer, state, noise=noise))
    np.testing.assert_allclose(after.effects, shares_of(EFFECTS), rtol=1e-9)


def test_probes_are_smoothed_one_hot_and_every_sweep_has_each_domain_once():
    mixer = mixers.load("aioli")(one_hot=0.6, lp_rounds=4, lp_steps=7)
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR)
    mixtures = mixer.probe_mixtures(mixer.init(PRIOR), signals)
    assert mixer.probe_steps(3) == (7,) * 12
    np.testing.assert_allclose(np.sort(mixtures, axis=1), np.tile([0.2, 0.2, 0.6], (12, 1)))
    for sweep in np.split(mixtures.argmax(axis=1), 4):
        assert sorted(sweep) == [0, 1, 2]


def test_the_order_is_drawn_anew_at_every_update_and_for_every_seed():
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR)

    def order(seed, num_updates):
        mixer = mixers.load("aioli")(seed=seed, lp_rounds=4)
        state = mixer.init(PRIOR)._replace(num_updates=num_updates)
        return mixer.probe_mixtures(state, signals).argmax(axis=1).tolist()

    orders = [order(seed, update) for seed in (0, 1) for update in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4
    assert order(0, 1) == order(0, 1)


def test_without_an_average_steps_add_up():
    mixer = mixers.load("aioli")(eta=0.5)
    state = mixer.init(PRIOR)
    _, state = mixer.step(state, probed(mixer, state))
    mixture, _ = mixer.step(state, probed(mixer, state, effects=EFFECTS[:, ::-1]))
    gains = 0.5 * 3 * (shares_of(EFFECTS) + shares_of(EFFECTS[:, ::-1])).sum(axis=0)
    raised = PRIOR * np.exp(gains)
    np.testing.assert_allclose(mixture, raised / raised.sum(), rtol=1e-9)


def test_with_an_average_each_update_starts_from_uniform():
    mixer = mixers.load("aioli")(eta=0.5, ema=0.1)
    state = mixer.init(PRIOR)
    first, state = mixer.step(state, probed(mixer, state))
    raised = np.exp(0.5 * 3 * shares_of(EFFECTS).sum(axis=0))
    np.testing.assert_allclose(first, raised / raised.sum(), rtol=1e-9)
    second, state = mixer.step(state, probed(mixer, state, effects=EFFECTS[:, ::-1]))
    mean = 0.1 * shares_of(EFFECTS) + 0.9 * shares_of(EFFECTS[:, ::-1])
    raised = np.exp(0.5 * 3 * mean.sum(axis=0))
    np.testing.assert_allclose(second, raised / raised.sum(), rtol=1e-9)
    np.testing.assert_allclose(state.effects, mean, rtol=1e-9)


def test_domains_that_all_do_the_same_leave_the_mixture():
    mixer = mixers.load("aioli")()
    state = mixer.init(PRIOR)
    mixture, _ = mixer.step(state, probed(mixer, state, effects=np.full((2, 3), 0.25)))
    np.testing.assert_allclose(mixture, PRIOR, atol=1e-12)


def test_a_single_domain_has_everything():
    mixer = mixers.load("aioli")(lp_rounds=1)
    signals = Signals(step=1, domains=("web",), targets=("arc",), mixture=np.ones(1))
    state = mixer.init(np.ones(1))
    np.testing.assert_array_equal(mixer.probe_mixtures(state, signals), [[1.0]])
    losses = np.array([[5.0], [4.0]])
    mixture, _ = mixer.step(state, dataclasses.replace(signals, probe_losses=losses))
    assert mixture.tolist() == [1.0]


@pytest.mark.parametrize(
    ("settings", "losses", "reason"),
    [
        ({}, np.ones((4, 2)), "a row before and one after each of 6 probes; got 4 rows"),
        ({}, np.ones((7, 2)), "the probes tell nothing"),
        ({"one_hot": 1 / 3}, np.arange(14.0).reshape(7, 2), "must not be 1 / K"),
    ],
)
def test_probes_that_tell_nothing_are_refused(settings, losses, reason):
    mixer = mixers.load("aioli")(**settings)
    signals = Signals(step=1, domains=NAMES, targets=TARGETS, mixture=PRIOR, probe_losses=losses)
    with pytest.raises(MixerError, match=reason):
        mixer.step(mixer.init(PRIOR), signals)


@pytest.mark.parametrize(
    "settings",
    [
        {"eta": -1.0},
        {"lp_rounds": 0},
        {"lp_steps": 0},
        {"one_hot": 1.1},
        {"ema": 1.0},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        mixers.load("aioli")(**settings)
