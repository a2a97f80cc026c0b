"""What holds for whatever `mixers.available()` finds, and how it is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import quadratic
from variants import every_variant

from tikmix_hf import Constraints, mixers
from tikmix_hf.mixers.base import MixerError, Signals
from tikmix_hf.mixers.signals import MEASURED


def ready(name, settings, **more):
    """A mixer, its state after two updates of a run and the signals of the third."""
    mixer = mixers.load(name)(**settings, **more)
    now = quadratic.problem()
    theta, state = now.theta, mixer.init(now.prior)
    for update in (1, 2, 3):
        theta, *batches = now.trained(theta, now.prior, quadratic.STEPS_PER_UPDATE)
        step = update * quadratic.STEPS_PER_UPDATE
        signals = quadratic.measured(now, theta, now.prior, step, batches)
        signals, theta = quadratic.with_probes(now, mixer, state, signals, theta)
        if update < 3:
            _, state = mixer.step(state, signals)
    return mixer, state, signals


def is_mixture(mixture):
    return (
        mixture.dtype == np.float64
        and (mixture >= 0).all()
        and mixture.sum() == pytest.approx(1, abs=1e-12)
    )


@every_variant
def test_a_step_returns_a_mixture_and_leaves_its_arguments_alone(name, settings):
    mixer, state, signals = ready(name, settings)
    given = [
        getattr(signals, field).copy() for field in MEASURED if getattr(signals, field) is not None
    ]
    mixture, after = mixer.step(state, signals)
    assert mixture.shape == (4,)
    assert is_mixture(mixture)
    assert isinstance(after, mixer.state_type)
    assert all(isinstance(note, str) for note in after.notes)
    again, after_again = mixer.step(state, signals)
    np.testing.assert_array_equal(again, mixture)
    assert after_again == after
    left = [getattr(signals, field) for field in MEASURED if getattr(signals, field) is not None]
    for before, value in zip(given, left, strict=True):
        np.testing.assert_array_equal(value, before)


@every_variant
def test_every_mixture_of_a_run_obeys_the_constraints(name, settings):
    bounds = Constraints(floors={"away": 0.15}, caps={"useful": 0.3, "aside": 0.35})
    outcome = quadratic.run(mixers.load(name)(**settings, constraints=bounds), num_updates=4)
    assert len(outcome.mixtures) > 1
    for mixture in outcome.mixtures[1:]:
        assert mixture[3] >= 0.15 - 1e-12
        assert mixture[0] <= 0.3 + 1e-12
        assert mixture[2] <= 0.35 + 1e-12
        assert is_mixture(mixture)


@every_variant
def test_no_domain_is_read_more_often_than_the_constraints_allow(name, settings):
    """All of "aside" is 0.6 of the run's tokens, and 0.3 of that may be read."""
    bounds = Constraints(max_epochs={"aside": 0.3})
    outcome = quadratic.run(mixers.load(name)(**settings, constraints=bounds))
    supply = outcome.signals.supply
    rows = supply.seen[2] / quadratic.TOKENS_PER_ROW
    # Quotas are rounded to whole rows whenever the mixture changes.
    assert rows <= 0.3 * supply.tokens[2] / quadratic.TOKENS_PER_ROW + quadratic.NUM_UPDATES


@every_variant
def test_other_names_change_nothing(name, settings):
    """But those that the settings speak of."""
    if "segments" in settings:
        return
    renamed = dataclasses.replace(quadratic.problem(), names=("a", "b", "c", "d"))
    # Supplies go by the order of the names, which is another one.
    order = np.argsort(np.argsort(quadratic.NAMES))
    renamed = dataclasses.replace(renamed, names=tuple(np.array(renamed.names)[order].tolist()))
    first = quadratic.run(mixers.load(name)(**settings), num_updates=4)
    second = quadratic.run(mixers.load(name)(**settings), renamed, num_updates=4)
    np.testing.assert_array_equal(second.mixtures, first.mixtures)


# Those that draw at random draw other orders or candidates for other places.
DRAWN = {"aioli": 0.1, "tikmix_m": 0.15}
# TiKMiX-D's certificate leaves that much of each share, see test_tikmix_d.py.
CERTIFIED = {"tikmix_d": 1e-3}


@every_variant
def test_permuting_domains_only_permutes(name, settings):
    order = np.array([2, 0, 3, 1])
    now = quadratic.problem()
    straight = quadratic.run(mixers.load(name)(**settings), now, num_updates=3)
    permuted = quadratic.run(mixers.load(name)(**settings), now.permuted(order), num_updates=3)
    tolerance = {**DRAWN, **CERTIFIED}.get(name, 1e-9)
    np.testing.assert_allclose(
        permuted.mixtures, np.array(straight.mixtures)[:, order], atol=tolerance
    )


@every_variant
def test_a_run_resumed_from_json_after_every_update_is_the_same_run(name, settings):
    mixer = mixers.load(name)(**settings)

    def saved(state):
        restored = mixer.restore(json.loads(json.dumps(state._asdict(), allow_nan=False)))
        assert restored == state
        return restored

    straight = quadratic.run(mixer, num_updates=4)
    resumed = quadratic.run(mixer, num_updates=4, saved=saved)
    np.testing.assert_array_equal(resumed.mixtures, straight.mixtures)
    assert resumed.state == straight.state
    with pytest.raises(ValueError, match="`saved` must have the fields"):
        mixer.restore({"unknown": 1})


@every_variant
def test_settings_are_frozen_and_an_unknown_one_is_refused(name, settings):
    mixer = mixers.load(name)
    assert dataclasses.is_dataclass(mixer)
    with pytest.raises(TypeError, match="no_such_setting"):
        mixer(**settings, no_such_setting=1)
    for field in dataclasses.fields(mixer):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(mixer(**settings), field.name, None)
    described = mixer(**settings).describe()
    assert described == json.loads(json.dumps(described))
    assert set(described) == {"mixer", *(field.name for field in dataclasses.fields(mixer))}


@every_variant
def test_every_required_signal_is_refused_where_it_says_nothing(name, settings):
    mixer, state, signals = ready(name, settings)
    assert mixer.requires <= set(MEASURED)
    for field in mixer.requires:
        with pytest.raises(MixerError, match=f"`{field}` was not measured"):
            mixer.step(state, dataclasses.replace(signals, **{field: None}))
        broken = getattr(signals, field).copy()
        broken[..., -1] = np.inf
        with pytest.raises(MixerError, match=f"`{field}` must be finite; got inf"):
            mixer.step(state, dataclasses.replace(signals, **{field: broken}))
        broken[..., -1] = np.nan
        if field == "train_losses":
            assert (signals.train_tokens[:, -1] > 0).any()
        with pytest.raises(MixerError, match=f"`{field}` must be finite; got nan"):
            mixer.step(state, dataclasses.replace(signals, **{field: broken}))
        if field in ("influence", "alignment"):
            nothing = np.zeros_like(broken)
            with pytest.raises(MixerError, match="zero everywhere"):
                mixer.step(state, dataclasses.replace(signals, **{field: nothing}))


@every_variant
def test_signals_that_are_not_required_are_not_read(name, settings):
    """A mixer that is asked before training has none at all."""
    mixer, state, signals = ready(name, settings)
    unasked = {field: None for field in MEASURED if field not in mixer.requires}
    expected, _ = mixer.step(state, signals)
    found, _ = mixer.step(state, dataclasses.replace(signals, **unasked))
    np.testing.assert_array_equal(found, expected)
    assert not (mixer.at_start and mixer.requires)
    assert mixer.at_start or mixer.at_updates


@every_variant
def test_probes_and_lookaheads_are_mixtures_in_the_number_that_was_promised(name, settings):
    mixer, state, signals = ready(name, settings)
    probes, steps = mixer.probe_mixtures(state, signals), mixer.probe_steps(4)
    ahead = mixer.lookahead(state, signals)
    assert len(probes) == len(steps)
    assert len(ahead.mixtures) == mixer.num_lookahead
    assert all(is_mixture(mixture) for mixture in (*probes, *ahead.mixtures))
    assert all(isinstance(n, int) and n >= 1 for n in steps)
    assert bool(steps) == ("probe_losses" in mixer.requires)
    assert bool(mixer.num_lookahead) == ("lookahead_losses" in mixer.requires)
    assert not mixer.num_lookahead or ahead.num_steps > 0


@pytest.mark.parametrize("name", mixers.available())
def test_a_method_says_what_it_is(name):
    assert mixers.load(name)().describe()
    about = mixers.load(name).about
    assert about.cost
    assert about.deviations
    assert not about.paper or "arXiv" in about.paper


def test_static_keeps_the_mixture_in_force_whatever_the_signals_say():
    mixer, state, signals = ready("static", {})
    changed = dataclasses.replace(signals, mixture=np.array([0.4, 0.3, 0.2, 0.1]))
    mixture, state = mixer.step(state, changed)
    np.testing.assert_array_equal(mixture, [0.4, 0.3, 0.2, 0.1])
    assert state.notes == ()


def test_the_control_comes_first_and_only_methods_are_available():
    names = mixers.available()
    assert names[0] == "static"
    assert list(names[1:]) == sorted(names[1:])
    assert {"tikmix_d", "doge", "odm", "uniform"} <= set(names)
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
    names = {"step": 1, "domains": ("a", "b", "c"), "targets": ("x", "y")}
    with pytest.raises(ValueError, match=r"`influence` must have shape \(2, 3\); got \(3, 2\)"):
        Signals(**names, mixture=np.full(3, 1 / 3), influence=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"`mixture` must have shape \(3,\); got \(2,\)"):
        Signals(**names, mixture=np.ones(2))
