"""ADO on losses that follow known laws."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals, _loss_curve

NAMES = ("web", "code", "books")
PRIOR = np.array([0.5, 0.3, 0.2])
FLOORS, HEIGHTS, ALPHAS = (
    np.array([2.0, 1.0, 3.0]),
    np.array([8.0, 30.0, 5.0]),
    np.array([0.2, 0.4, 0.1]),
)
TOKENS_PER_STEP = 1000.0


def interval(first_step, num_steps, mixture=PRIOR):
    """Signals of steps whose losses follow the laws, in tokens of all domains."""
    after = TOKENS_PER_STEP * np.arange(first_step + 1, first_step + num_steps + 1)
    losses = FLOORS + HEIGHTS * after[:, None] ** -ALPHAS
    return Signals(
        step=first_step + num_steps,
        domains=NAMES,
        targets=(),
        mixture=mixture,
        train_losses=losses,
        train_tokens=np.tile(TOKENS_PER_STEP * mixture, (num_steps, 1)),
    )


def preferred_at(num_tokens):
    """The paper's formula with the true laws and with credit equal to the prior."""
    slopes = ALPHAS * HEIGHTS * num_tokens ** (-ALPHAS - 1)
    shares = PRIOR * slopes * np.sqrt(PRIOR)
    return shares / shares.sum()


def test_the_preferred_mixture_is_that_of_the_true_slopes():
    mixer = mixers.load("ado")(pace=1.0, floor=0.0, steps_per_point=1)
    mixture, _ = mixer.step(mixer.init(PRIOR), interval(0, 60))
    np.testing.assert_allclose(mixture, preferred_at(60_000), rtol=1e-4)


def test_the_answer_is_mostly_the_running_mean_of_the_preferred():
    mixer = mixers.load("ado")(floor=0.0, steps_per_point=1)
    first, state = mixer.step(mixer.init(PRIOR), interval(0, 60))
    one, two = preferred_at(60_000), preferred_at(120_000)
    mean = (PRIOR + one) / 2
    np.testing.assert_allclose(first, 0.9 * mean + 0.1 * one, rtol=1e-4)
    second, _ = mixer.step(state, interval(60, 60))
    mean = (PRIOR + one + two) / 3
    np.testing.assert_allclose(second, 0.9 * mean + 0.1 * two, rtol=1e-4)


def test_credit_follows_what_was_read_step_by_step():
    mixer = mixers.load("ado")(credit_memory=0.5)
    read = np.array([0.2, 0.2, 0.6])
    _, state = mixer.step(mixer.init(PRIOR), interval(0, 2, mixture=read))
    np.testing.assert_allclose(state.credit, 0.25 * PRIOR + 0.75 * read, rtol=1e-13)


def test_a_domain_that_was_read_less_is_credited_less():
    mixer = mixers.load("ado")(pace=1.0, floor=0.0, steps_per_point=1, skipped=0.0)
    little = np.array([0.05, 0.5, 0.45])
    mixture, _ = mixer.step(mixer.init(PRIOR), interval(0, 200, mixture=little))
    shares = preferred_at(200_000) * np.sqrt(little / PRIOR)
    np.testing.assert_allclose(mixture, shares / shares.sum(), rtol=1e-3)


def test_the_floor_holds_after_everything_else():
    mixer = mixers.load("ado")(pace=1.0, floor=0.2, steps_per_point=1)
    mixture, _ = mixer.step(mixer.init(PRIOR), interval(0, 60))
    free = preferred_at(60_000)
    assert free[2] < 0.2 < min(free[:2])
    assert mixture[2] == pytest.approx(0.2, abs=1e-15)
    assert mixture[0] / mixture[1] == pytest.approx(free[0] / free[1], rel=1e-4)


def test_a_floor_that_would_be_too_much_is_uniform():
    mixer = mixers.load("ado")(floor=0.9)
    mixture, _ = mixer.step(mixer.init(PRIOR), interval(0, 60))
    np.testing.assert_allclose(mixture, 1 / 3, rtol=1e-12)


def test_until_there_are_points_enough_it_is_the_prior():
    mixer = mixers.load("ado")(least_points=6, skipped=0.0)
    mixture, state = mixer.step(mixer.init(PRIOR), interval(0, 25, mixture=np.full(3, 1 / 3)))
    np.testing.assert_allclose(mixture, PRIOR, rtol=1e-15)
    assert state.notes == ("no law has 6 points and falls: the prior",)
    mixture, state = mixer.step(state, interval(25, 5))
    assert np.abs(mixture - PRIOR).max() > 0.01
    assert state.notes == ()


def test_losses_that_rise_leave_the_prior():
    rising = interval(0, 60)
    rising = dataclasses.replace(rising, train_losses=rising.train_losses[::-1].copy())
    mixer = mixers.load("ado")()
    mixture, state = mixer.step(mixer.init(PRIOR), rising)
    np.testing.assert_allclose(mixture, PRIOR, rtol=1e-15)
    assert state.notes


def test_a_point_is_the_mean_over_tokens_and_silence_is_no_point():
    given = Signals(
        step=4,
        domains=NAMES,
        targets=(),
        mixture=PRIOR,
        train_losses=np.array([[4.0, 3.0, np.nan], [2.0, np.nan, np.nan], [1.0, 5.0, np.nan]]),
        train_tokens=np.array([[100.0, 50.0, 0.0], [300.0, 0.0, 0.0], [10.0, 20.0, 0.0]]),
    )
    mixer = mixers.load("ado")(steps_per_point=2)
    _, state = mixer.step(mixer.init(PRIOR), given)
    assert state.losses == ((2.5, 1.0), (3.0, 5.0), ())
    assert state.tokens == ((450.0, 480.0), (450.0, 480.0), ())


def test_a_domain_that_was_never_read_keeps_its_place_among_the_others():
    given = interval(0, 60)
    losses, tokens = given.train_losses.copy(), given.train_tokens.copy()
    losses[:, 2], tokens[:, 2] = np.nan, 0.0
    given = dataclasses.replace(given, train_losses=losses, train_tokens=tokens)
    mixer = mixers.load("ado")(pace=1.0, floor=0.0, credit_power=0.0, steps_per_point=1)
    mixture, _ = mixer.step(mixer.init(PRIOR), given)
    assert mixture[2] == pytest.approx(PRIOR[2], rel=1e-9)


def test_the_start_is_left_out_of_the_fit():
    """The first steps of a warm-up follow no law."""
    given = interval(0, 200)
    losses = given.train_losses.copy()
    losses[:20] = 11.0
    disturbed = dataclasses.replace(given, train_losses=losses)
    mixer = mixers.load("ado")(skipped=0.1, steps_per_point=1)
    expected, _ = mixer.step(mixer.init(PRIOR), given)
    np.testing.assert_allclose(mixer.step(mixer.init(PRIOR), disturbed)[0], expected, rtol=1e-12)
    every = mixers.load("ado")(skipped=0.0, steps_per_point=1)
    assert np.abs(every.step(every.init(PRIOR), disturbed)[0] - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"train_tokens": None}, "`train_tokens` was not measured"),
        (
            {"train_losses": np.full((60, 3), np.nan), "train_tokens": np.zeros((60, 3))},
            "no loss of any domain",
        ),
        ({"train_steps": np.ones(59)}, "for each of 60 rows of `train_losses`"),
        (
            {"train_losses": np.zeros((60, 3))},
            r"above 0 for a scaling law; got 0\.0 of domain 'web'",
        ),
    ],
)
def test_losses_that_say_nothing_are_refused(fields, reason):
    mixer = mixers.load("ado")()
    with pytest.raises(MixerError, match=reason):
        mixer.step(mixer.init(PRIOR), dataclasses.replace(interval(0, 60), **fields))


def in_stretches(signals, num_steps):
    """The same training, told in rows of several steps, the last perhaps of fewer."""
    starts = np.arange(0, len(signals.train_losses), num_steps)
    tokens = np.add.reduceat(signals.train_tokens, starts)
    losses = np.add.reduceat(signals.train_losses * signals.train_tokens, starts) / tokens
    steps = np.diff([*starts, len(signals.train_losses)]).astype(float)
    return dataclasses.replace(signals, train_losses=losses, train_tokens=tokens, train_steps=steps)


def test_stretches_as_long_as_a_point_give_the_points_and_credit_of_single_steps():
    mixer = mixers.load("ado")(steps_per_point=4)
    given = interval(0, 62, mixture=np.array([0.2, 0.2, 0.6]))
    expected, by_step = mixer.step(mixer.init(PRIOR), given)
    for num_steps in (2, 4):
        found, state = mixer.step(mixer.init(PRIOR), in_stretches(given, num_steps))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        np.testing.assert_allclose(state.tokens, by_step.tokens, rtol=1e-12)
        np.testing.assert_allclose(state.losses, by_step.losses, rtol=1e-12)
        np.testing.assert_allclose(state.credit, by_step.credit, rtol=1e-12)


def test_a_point_is_of_as_many_steps_as_it_should_be_in_the_mean():
    """Rows of 2 steps and points of 5: rows begin at steps 0, 2, 4 | 6, 8 | 10, 12, 14 | 16."""
    mixer = mixers.load("ado")(steps_per_point=5)
    _, state = mixer.step(mixer.init(PRIOR), in_stretches(interval(0, 18), 2))
    assert state.tokens[0] == (6000.0, 10_000.0, 16_000.0, 18_000.0)


@functools.cache
def histories(num_updates=12, num_steps=300):
    """States and answers after many points, with a history of 60 and with a whole one."""
    mixer = mixers.load("ado")(pace=1.0, floor=0.0, steps_per_point=1)
    ends = []
    for most in (60, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_loss_curve, "MOST_POINTS", most)
            state = mixer.init(PRIOR)
            for update in range(num_updates):
                given = interval(update * num_steps, num_steps)
                noise = np.random.default_rng(update).normal(1, 0.01, given.train_losses.shape)
                given = dataclasses.replace(given, train_losses=given.train_losses * noise)
                mixture, state = mixer.step(state, given)
            ends.append((mixture, state))
    return ends


def test_a_long_history_is_thinned_and_the_answer_hardly_changes():
    (thinned, short), (whole, long) = histories()
    assert [len(losses) for losses in long.losses] == [3600] * 3
    assert all(30 < len(losses) <= 60 for losses in short.losses)
    np.testing.assert_allclose(thinned, whole, rtol=0.01)
    # The thinned history of a domain keeps every loss that it had, once.
    for k in range(3):
        assert sum(short.counts[k]) == 3600
        assert np.dot(short.counts[k], short.losses[k]) == pytest.approx(sum(long.losses[k]))


@pytest.mark.parametrize(
    "settings",
    [{"pace": 1.5}, {"skipped": 1.0}, {"steps_per_point": 0}, {"least_points": 2}, {"floor": -0.1}],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must be"):
        mixers.load("ado")(**settings)
