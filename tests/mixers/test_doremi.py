"""DoReMi against its algorithm by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals

PRIOR = np.array([0.5, 0.25, 0.25])


def signals(excess):
    return Signals(
        step=1,
        domains=("web", "code", "books"),
        targets=(),
        mixture=PRIOR,
        excess_losses=np.array(excess, dtype=np.float64),
    )


def after(mixer, *excesses):
    state, mixtures = mixer.init(PRIOR), []
    for excess in excesses:
        mixture, state = mixer.step(state, signals(excess))
        mixtures.append(mixture)
    return mixtures


def test_one_step_by_hand():
    """exp(log 2) doubles the second weight: (2, 2, 1) / 5, of which 0.9 and 0.1 / 3 are left."""
    (mixture,) = after(mixers.load("doremi")(smoothing=0.1), [0.0, np.log(2), 0.0])
    np.testing.assert_allclose(mixture, 0.9 * np.array([0.4, 0.4, 0.2]) + 0.1 / 3, rtol=1e-14)


def test_steps_add_up_where_nothing_is_smoothed():
    first, second = np.array([0.3, 0.1, 0.8]), np.array([0.0, 0.6, 0.2])
    *_, mixture = after(mixers.load("doremi")(smoothing=0.0, eta=2.0), first, second)
    expected = PRIOR * np.exp(2 * (first + second))
    np.testing.assert_allclose(mixture, expected / expected.sum(), rtol=1e-13)


def test_the_average_is_that_of_the_weights_and_not_of_the_prior():
    excesses = np.random.default_rng(0).random((4, 3))
    own = after(mixers.load("doremi")(), *excesses)
    means = after(mixers.load("doremi")(mode="average"), *excesses)
    for count in range(1, 5):
        np.testing.assert_allclose(means[count - 1], np.mean(own[:count], axis=0), rtol=1e-13)


def test_smoothing_brings_a_domain_without_a_share_back():
    mixer = mixers.load("doremi")(smoothing=0.03)
    state = mixer.init(np.array([1.0, 0.0, 0.0]))
    mixture, _ = mixer.step(state, signals([0.0, 5.0, 0.0]))
    np.testing.assert_allclose(mixture, [0.98, 0.01, 0.01], rtol=1e-13)


def test_excess_of_any_size_and_a_shift_of_all_change_nothing_else():
    far = after(mixers.load("doremi")(), [1e4, 1e4 + 1.0, 1e4])
    near = after(mixers.load("doremi")(), [0.0, 1.0, 0.0])
    np.testing.assert_allclose(far, near, rtol=1e-10)


def test_an_excess_that_was_not_clipped_is_refused():
    with pytest.raises(MixerError, match=r"must not be negative; got -0\.1 of domain 'code'"):
        after(mixers.load("doremi")(), [0.0, -0.1, 0.0])


@pytest.mark.parametrize(
    "settings", [{"eta": -1.0}, {"smoothing": 1.5}, {"mode": "proxy"}, {"eta": np.nan}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        mixers.load("doremi")(**settings)
