"""DoGE, DGA and GRAPE against their formulas by hand, and on what they share."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals

PRIOR = np.array([0.5, 0.25, 0.25])
ALIGNMENT = np.array([[0.4, 0.1, -0.3], [0.2, 0.5, -0.1]])
NORMS = np.array([1.0, 2.0, 3.0])
LOSSES = np.array([2.0, 5.0])
GIVEN = Signals(
    step=100,
    domains=("web", "code", "books"),
    targets=("arc", "piqa"),
    mixture=np.array([0.2, 0.2, 0.6]),
    learning_rate=1e-3,
    alignment=ALIGNMENT,
    gradient_norms=NORMS,
    target_losses=LOSSES,
)
FAMILY = ("doge", "dga", "grape")


def answer(name, signals=GIVEN, state=None, **settings):
    mixer = mixers.load(name)(**settings)
    return mixer.step(mixer.init(PRIOR) if state is None else state, signals)


def changed(**fields):
    return dataclasses.replace(GIVEN, **fields)


def test_doge_by_hand():
    """Scores (0.6, 0.6, -0.4) / 2, the last clipped to 0; 100 steps at 1e-3 over 0.05 are 2."""
    mixture, state = answer("doge", mu=0.05)
    raised = PRIOR * np.exp([2 * 0.3, 2 * 0.3, 0.0])
    np.testing.assert_allclose(mixture, raised / raised.sum(), rtol=1e-13)
    assert state.step == 100
    # 50 steps more at half the rate are a quarter of that.
    later = changed(step=150, learning_rate=5e-4)
    mixture, _ = answer("doge", later, state, mu=0.05)
    raised = raised * np.exp([0.5 * 0.3, 0.5 * 0.3, 0.0])
    np.testing.assert_allclose(mixture, raised / raised.sum(), rtol=1e-13)


def test_doge_clips_scores_at_five_gradient_norms_and_says_so():
    """Whatever is above counts alike."""
    large = changed(alignment=100 * ALIGNMENT)
    mixture, state = answer("doge", large)
    np.testing.assert_allclose(mixture[0] / mixture[1], PRIOR[0] / PRIOR[1], rtol=1e-12)
    gain = 100 * 1e-3 * 5 / 0.05
    np.testing.assert_allclose(np.log(mixture[0] / mixture[2]), gain + np.log(2), rtol=1e-12)
    assert state.notes[0] == "domain web: score 30 clipped at 5"


def test_doge_smooths_and_averages_as_it_is_told():
    mixer = mixers.load("doge")(smoothing=0.3)
    mixture, _ = answer("doge", smoothing=0.3)
    plain, _ = answer("doge")
    np.testing.assert_allclose(mixture, 0.7 * plain + 0.1, rtol=1e-13)
    averaging = mixers.load("doge")(smoothing=0.3, mode="average")
    state, mean_state, seen = mixer.init(PRIOR), averaging.init(PRIOR), []
    for step in (50, 60, 90):
        mixture, state = mixer.step(state, changed(step=step))
        mean, mean_state = averaging.step(mean_state, changed(step=step))
        seen.append(mixture)
        np.testing.assert_allclose(mean, np.mean(seen, axis=0), rtol=1e-13)


def test_dga_by_hand():
    """Means (0.3, 0.3, -0.2) over a squared norm of 4; half of the old mixture stays."""
    mixture, state = answer("dga", eta=4.0, beta=0.5)
    raised = PRIOR * np.exp([0.3, 0.3, -0.2])
    weights = raised / raised.sum()
    np.testing.assert_allclose(mixture, 0.5 * PRIOR + 0.5 * weights, rtol=1e-13)
    np.testing.assert_allclose(state.weights, weights, rtol=1e-13)
    # alpha goes on from alpha, and not from the average.
    second, _ = answer("dga", GIVEN, state, eta=4.0, beta=0.5)
    raised = PRIOR * np.exp([0.6, 0.6, -0.4])
    np.testing.assert_allclose(second, 0.5 * mixture + 0.5 * raised / raised.sum(), rtol=1e-13)


def test_grape_by_hand():
    """Relative alignment (0.2, 0.05, -0.15) and (0.04, 0.1, -0.02); the mixture in force improves
    arc by -0.04 and piqa by 0.016, so that z leans to arc.
    """
    settings = {"mu_tasks": 0.01, "mu_domains": 0.01}
    mixture, state = answer("grape", **settings)
    steps = 100 * 1e-3  # learning rate times steps
    tasks = np.exp(-steps / (100 * 0.01) * np.array([-0.04, 0.016]))
    tasks /= tasks.sum()
    np.testing.assert_allclose(state.task_weights, tasks, rtol=1e-13)
    pulls = tasks[0] * np.array([0.2, 0.05, -0.15]) + tasks[1] * np.array([0.04, 0.1, -0.02])
    raised = PRIOR * np.exp(steps / (10 * 0.01) * pulls)
    np.testing.assert_allclose(mixture, raised / raised.sum(), rtol=1e-13)


def test_grape_turns_to_the_target_that_lags():
    """Each domain helps one target; the mixture in force gives arc's domain nearly nothing."""
    lagging = changed(
        alignment=np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        target_losses=np.ones(2),
        mixture=np.array([0.05, 0.9, 0.05]),
    )
    _, state = answer("grape", lagging)
    assert state.task_weights[0] > 0.9
    assert state.notes[0].startswith("task weights: arc 1.00")
    mixture, _ = answer("grape", lagging, mu_domains=0.01)
    assert mixture[0] / PRIOR[0] > 1.5 * mixture[1] / PRIOR[1]


def test_grape_takes_relative_losses_so_the_unit_of_a_targets_loss_is_nothing():
    scale = np.array([1000.0, 0.01])
    rescaled = changed(alignment=ALIGNMENT * scale[:, None], target_losses=LOSSES * scale)
    np.testing.assert_allclose(answer("grape", rescaled)[0], answer("grape")[0], rtol=1e-9)


def test_dga_does_not_depend_on_the_unit_of_the_loss():
    rescaled = changed(alignment=ALIGNMENT * 49, gradient_norms=NORMS * 7)
    np.testing.assert_allclose(answer("dga", rescaled)[0], answer("dga")[0], rtol=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_the_order_of_targets_is_nothing(name):
    swapped = changed(
        targets=("piqa", "arc"), alignment=ALIGNMENT[::-1], target_losses=LOSSES[::-1]
    )
    np.testing.assert_allclose(answer(name, swapped)[0], answer(name)[0], rtol=1e-12)


@pytest.mark.parametrize("name", FAMILY)
def test_weights_go_on_from_themselves_and_not_from_what_constraints_made_of_them(name):
    """What was sampled meanwhile is nothing to alpha; GRAPE's task weights alone look at it."""
    _, state = answer(name)
    elsewhere = changed(step=200, mixture=np.array([0.98, 0.01, 0.01]))
    found, _ = answer(name, elsewhere, state, **({"mu_tasks": 1e6} if name == "grape" else {}))
    same = changed(step=200)
    expected, _ = answer(name, same, state, **({"mu_tasks": 1e6} if name == "grape" else {}))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["doge", "grape"])
def test_many_updates_move_as_far_as_one_of_the_same_steps(name):
    settings = {"mu_tasks": 1e6} if name == "grape" else {}
    once, _ = answer(name, **settings)
    state = None
    for step in (10, 35, 100):
        often, state = answer(name, changed(step=step), state, **settings)
    np.testing.assert_allclose(often, once, rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("doge", {"learning_rate": np.nan}, "`learning_rate` must be known"),
        ("grape", {"learning_rate": np.nan}, "`learning_rate` must be known"),
        ("doge", {"gradient_norms": None}, "`gradient_norms` was not measured"),
        ("dga", {"gradient_norms": np.zeros(3)}, "`gradient_norms` must not all be zero"),
        ("grape", {"target_losses": None}, "`target_losses` was not measured"),
        ("grape", {"target_losses": np.array([1.0, 0.0])}, "above 0 .* on target 'piqa'"),
    ],
)
def test_what_comes_with_alignment_is_asked_for_by_name(name, fields, reason):
    with pytest.raises(MixerError, match=reason):
        answer(name, changed(**fields))


def test_only_those_that_use_the_learning_rate_ask_for_it():
    np.testing.assert_array_equal(answer("dga", changed(learning_rate=np.nan))[0], answer("dga")[0])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("doge", {"mu": 0.0}),
        ("doge", {"mode": "proxy"}),
        ("doge", {"smoothing": -0.1}),
        ("dga", {"eta": -1.0}),
        ("dga", {"beta": 1.1}),
        ("grape", {"mu_tasks": 0.0}),
        ("grape", {"domain_interval": -1}),
    ],
)
def test_settings_out_of_range_are_refused(name, settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        mixers.load(name)(**settings)
