"""What holds for whatever `mixers.available()` finds, and how it is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers.base import MixerError, Signals

DOMAINS, TARGETS = ("web", "code", "books"), ("arc", "piqa")
MIXTURE_K = np.array([0.5, 0.3, 0.2])


def signals(**changes):
    values_JK = np.array([[1.0, 0.2, 0.5], [0.3, 0.9, 0.6]])
    fields = {"step": 1, "domains": DOMAINS, "targets": TARGETS, "mixture": MIXTURE_K}
    return Signals(**{**fields, "influence": values_JK, **changes})


@pytest.mark.parametrize("name", mixers.available())
def test_a_step_returns_a_mixture_and_leaves_its_arguments_alone(name):
    mixer = mixers.load(name)()
    state = mixer.init(MIXTURE_K)
    given = signals()
    before = given.influence.copy()
    mixture_K, after = mixer.step(state, given)
    assert mixture_K.shape == MIXTURE_K.shape
    assert mixture_K.dtype == np.float64
    assert (mixture_K >= 0).all()
    assert mixture_K.sum() == pytest.approx(1, abs=1e-12)
    assert all(isinstance(note, str) for note in after.notes)
    assert mixer.init(MIXTURE_K) == state
    np.testing.assert_array_equal(given.influence, before)


@pytest.mark.parametrize("name", mixers.available())
def test_a_state_survives_a_checkpoint(name):
    mixer = mixers.load(name)()
    _, state = mixer.step(mixer.init(MIXTURE_K), signals())
    restored = mixer.restore(json.loads(json.dumps(state._asdict())))
    assert restored == state
    first, _ = mixer.step(state, signals())
    second, _ = mixer.step(restored, signals())
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ValueError, match="`saved` must have the fields"):
        mixer.restore({"unknown": 1})


@pytest.mark.parametrize("name", mixers.available())
def test_settings_are_frozen_and_an_unknown_one_is_refused(name):
    mixer = mixers.load(name)
    assert dataclasses.is_dataclass(mixer)
    with pytest.raises(TypeError, match="no_such_setting"):
        mixer(no_such_setting=1)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        mixer().requires = frozenset()


@pytest.mark.parametrize("name", mixers.available())
def test_a_required_influence_that_says_nothing_is_a_mixer_error(name):
    mixer = mixers.load(name)()
    state = mixer.init(MIXTURE_K)
    if "influence" not in mixer.requires:
        mixer.step(state, signals(influence=None))
        return
    with pytest.raises(MixerError, match="was not measured"):
        mixer.step(state, signals(influence=None))
    with pytest.raises(MixerError, match="zero everywhere"):
        mixer.step(state, signals(influence=np.zeros((2, 3))))
    broken_JK = np.array([[1.0, 1.0, 1.0], [1.0, np.inf, 1.0]])
    with pytest.raises(MixerError, match="got inf of domain 'code' on target 'piqa'"):
        mixer.step(state, signals(influence=broken_JK))


def test_static_keeps_the_mixture_in_force_whatever_the_signals_say():
    mixer = mixers.load("static")()
    mixture_K, state = mixer.step(mixer.init(np.full(3, 1 / 3)), signals())
    np.testing.assert_array_equal(mixture_K, MIXTURE_K)
    assert state.notes == ()


def test_the_control_comes_first_and_only_methods_are_available():
    names = mixers.available()
    assert names[0] == "static"
    assert list(names[1:]) == sorted(names[1:])
    assert "tikmix_d" in names
    assert "base" not in names
    assert not any(name.startswith("_") for name in names)


@pytest.mark.parametrize("name", ["tikmix-d", "base", "_slsqp", "os", "..mixture"])
def test_nothing_but_a_method_can_be_loaded(name):
    with pytest.raises(ValueError, match=r"`mixer` must be an available mixer; got"):
        mixers.load(name)


def test_a_misspelt_method_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'tikmix_d'"):
        mixers.load("tikmix-d")


def test_methods_are_attributes_and_nothing_else_is():
    assert mixers.tikmix_d.solve([[1.0, 1.0]], [0.5, 0.5]).shape == (2,)
    with pytest.raises(AttributeError, match="no_such_method"):
        _ = mixers.no_such_method


def test_signals_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"`influence` must have shape \(2, 3\); got \(3, 2\)"):
        signals(influence=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`mixture` must have shape \(3,\); got \(2,\)"):
        signals(mixture=np.ones(2))
