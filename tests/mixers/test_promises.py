"""What each method promises, kept on a quadratic model: see `quadratic.py`."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import quadratic
from variants import VARIANTS

from tikmix_hf import mixers


@functools.cache
def static_target_loss(*shares):
    now = quadratic.problem()
    num_steps = quadratic.NUM_UPDATES * quadratic.STEPS_PER_UPDATE
    theta, *_ = now.trained(now.theta, np.array(shares), num_steps)
    return now.target_loss(theta)


TARGETED = [
    (name, settings)
    for name, settings in VARIANTS
    if mixers.load(name)(**settings).requires
    & {"influence", "alignment", "probe_losses", "lookahead_losses"}
]


@pytest.mark.parametrize(("name", "settings"), TARGETED, ids=str)
def test_methods_with_targets_come_close_to_the_best_mixture(name, settings):
    """From uniform to the best is a way of 2 nats; each method goes half of it at least."""
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    grid = [shares for shares in itertools.product(quarters, repeat=4) if sum(shares) == 1]
    best = min(grid, key=lambda shares: static_target_loss(*shares))
    assert best == (1.0, 0.0, 0.0, 0.0)
    way = static_target_loss(0.25, 0.25, 0.25, 0.25) - static_target_loss(*best)
    outcome = quadratic.run(mixers.load(name)(**settings))
    assert outcome.mixtures[-1].argmax() == 0
    assert outcome.mixtures[-1][3] < 0.25 / 2
    reached = quadratic.problem().target_loss(outcome.theta)
    assert reached - static_target_loss(*best) < 0.5 * way


def test_doremi_is_less_behind_its_reference_in_the_worst_domain_than_uniform_is():
    worst = {
        name: quadratic.run(mixers.load(name)(), num_updates=3).signals.excess_losses.max()
        for name in ("doremi", "uniform")
    }
    assert worst["doremi"] < 0.95 * worst["uniform"]


@pytest.mark.parametrize("rule", ["smoothed", "exp3"])
def test_odm_seeks_the_domain_with_the_highest_training_loss(rule):
    now = dataclasses.replace(quadratic.problem(), prior=np.full(4, 0.25))
    mixer = mixers.load("odm")(rule=rule)
    theta, *batches = now.trained(now.theta, now.prior, quadratic.STEPS_PER_UPDATE)
    signals = quadratic.measured(now, theta, now.prior, quadratic.STEPS_PER_UPDATE, batches)
    mixture, _ = mixer.step(mixer.init(now.prior), signals)
    losses = signals.train_losses.mean(axis=0)  # every step has rows of all
    np.testing.assert_array_equal(mixture.argsort()[[0, -1]], losses.argsort()[[0, -1]])
    assert mixture.max() - mixture.min() > 0.02


def test_ado_seeks_the_domain_whose_loss_falls_fastest():
    now = quadratic.problem()
    outcome = quadratic.run(mixers.load("ado")())
    gradients = now.domains.gradients(now.theta)
    falling = gradients @ (now.prior @ gradients)  # -dl_k/dt under the prior
    gained = outcome.mixtures[2] / now.prior
    np.testing.assert_array_equal(gained.argsort()[[0, -1]], falling.argsort()[[0, -1]])


def test_controls_are_what_they_are_called():
    now = quadratic.problem()
    for name, expected in (
        ("static", now.prior),
        ("natural", now.prior),
        ("uniform", np.full(4, 0.25)),
        ("unimax", np.full(4, 0.25)),  # every domain has tokens for 0.6 of the run and more
    ):
        for mixture in quadratic.run(mixers.load(name)()).mixtures[1:]:
            np.testing.assert_allclose(mixture, expected, rtol=1e-12)
