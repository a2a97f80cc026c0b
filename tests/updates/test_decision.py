"""Decision: mixer, noise guard and constraints, in that order of authority from the last."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
import pytest

from tikmix_hf import Constraints, mixers
from tikmix_hf.mixers.base import Mixer, MixerError, Signals
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.updates.decision import decide, with_gradients
from tikmix_hf.updates.noise_guard import cross_validate

DOMAINS = ("web", "code", "books")


def matrix(values_JK):
    values_JK = np.asarray(values_JK, dtype=np.float64)
    unknown_JK = np.full_like(values_JK, np.nan)
    return InfluenceMatrix(
        values=values_JK,
        domain_stderr=unknown_JK,
        target_stderr=unknown_JK,
        targets=tuple(f"t{j}" for j in range(len(values_JK))),
        domains=DOMAINS,
        preconditioner="sign",
        seconds=1.0,
        num_tokens=10,
        domain_losses=np.ones(3),
        target_losses=np.ones(len(values_JK)),
    )


def rounds(noise, num_rounds=4, seed=0):
    rng = np.random.default_rng(seed)
    truth_JK = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    return [matrix(truth_JK + noise * rng.normal(size=(2, 3))) for _ in range(num_rounds)]


def contradicting_rounds():
    """Of the mean nothing is left once a round is out."""
    return [matrix([[value + 0.5, 0.0, 0.0]] * 2) for value in (10.0, -10.0, 10.0, -10.0)]


def stacked(measured):
    return np.stack([one.values for one in measured])


def signals(measured, mixture=(0.2, 0.3, 0.5)):
    bare = Signals(step=8, domains=DOMAINS, targets=("t0", "t1"), mixture=np.array(mixture))
    return with_gradients(bare, InfluenceMatrix.mean(measured), "influence")


class _Asked(NamedTuple):
    notes: tuple[str, ...] = ()
    times: int = 0


@dataclass(frozen=True, kw_only=True)
class _MostHelpful(Mixer):
    """Half of everything to the domain that helps most; writes down what it was asked."""

    requires: ClassVar[frozenset[str]] = frozenset({"influence"})
    state_type: ClassVar[type] = _Asked
    asked: list = field(default_factory=list)
    told: list = field(default_factory=list)
    least: float = 0.0
    fails_below: float = -np.inf

    def init(self, prior):
        return _Asked()

    def propose(self, state, signals):
        self.asked.append(signals.influence)
        self.told.append(signals.stderr)
        if signals.influence.max() < self.fails_below:
            raise MixerError("too little, says the test")
        best_K = np.eye(3)[signals.influence.mean(axis=0).argmax()]
        return 0.5 * signals.mixture + 0.5 * best_K, _Asked(("as asked",), state.times + 1)

    def allows(self, mixture, signals):
        return bool(mixture.min() >= self.least)


def test_the_mixer_is_asked_about_all_rounds_and_about_all_but_each():
    mixer, measured = _MostHelpful(), rounds(1.0)
    decision = decide(mixer, mixer.init(None), signals(measured), stacked(measured), num_errors=1.0)
    values = np.stack([m.values for m in measured])
    expected = [values.mean(0), *(np.delete(values, r, axis=0).mean(0) for r in range(4))]
    np.testing.assert_allclose(mixer.asked, expected)
    assert decision.state.times == 1  # only the real step counts


def test_a_mixer_is_told_how_sure_the_text_is_that_it_is_asked_about():
    mixer, measured = _MostHelpful(), rounds(1.0)
    given = signals(measured)
    decide(mixer, mixer.init(None), given, stacked(measured), num_errors=1.0)
    # An error falls as one over the root of the rounds, and a fold has three of four.
    expected = [given.stderr, *[given.stderr * (4 / 3) ** 0.5] * 4]
    np.testing.assert_allclose(mixer.told, expected)
    unsure = _MostHelpful()
    decide(unsure, _Asked(), replace(given, stderr=None), stacked(measured), num_errors=1.0)
    assert unsure.told == [None] * 5


def test_the_step_is_the_guards_share_of_the_way():
    mixer, measured = mixers.load("tikmix_d")(), rounds(1.5, seed=3)
    given = signals(measured)
    free = decide(mixer, mixer.init(None), given, stacked(measured), num_errors=0.0)
    guarded = decide(mixer, mixer.init(None), given, stacked(measured), num_errors=1.0)
    folds = [
        mixer.step(
            mixer.init(None),
            with_gradients(
                given, InfluenceMatrix.mean(measured[:r] + measured[r + 1 :]), "influence"
            ),
        )[0]
        for r in range(4)
    ]
    verdict = cross_validate(
        np.stack([m.values for m in measured]),
        given.mixture,
        free.mixture,
        np.stack(folds),
        num_errors=1.0,
    )
    assert 0 < verdict.step < 1
    assert guarded.verdict == pytest.approx(verdict, rel=1e-9)  # means are summed in another order
    np.testing.assert_allclose(
        guarded.mixture, given.mixture + verdict.step * (free.mixture - given.mixture)
    )
    np.testing.assert_array_equal(guarded.proposal, free.mixture)
    assert guarded.notes[-1] == verdict.note
    assert free.verdict is None


def test_noise_is_not_followed_and_the_mixture_keeps_its_bits():
    mixer, measured = _MostHelpful(), contradicting_rounds()
    given = signals(measured)
    decision = decide(mixer, mixer.init(None), given, stacked(measured), num_errors=1.0)
    assert decision.verdict.step == 0
    assert decision.mixture is given.mixture
    assert "signal below its noise" in decision.notes[-1]
    assert not np.array_equal(decision.proposal, given.mixture)


def test_constraints_come_before_the_guard():
    # The mixture in force breaks them, so staying is no choice.
    mixer, measured = _MostHelpful(least=0.26), contradicting_rounds()
    decision = decide(mixer, mixer.init(None), signals(measured), stacked(measured), num_errors=1.0)
    assert decision.verdict.step == 0
    np.testing.assert_array_equal(decision.mixture, decision.proposal)
    assert "would leave the constraints" in decision.notes[-1]
    allowed = decide(
        _MostHelpful(least=0.2), _Asked(), signals(measured), stacked(measured), num_errors=1.0
    )
    np.testing.assert_array_equal(allowed.mixture, signals(measured).mixture)


def test_tikmix_d_allows_what_its_floors_and_caps_do_but_for_rounding():
    mixer = mixers.load("tikmix_d")(
        constraints=Constraints(floors={"web": 0.1}, caps={"code": 0.5})
    )
    given = signals(rounds(1.0))
    assert mixer.allows(np.array([0.1 - 1e-15, 0.5, 0.4]), given)
    assert not mixer.allows(np.array([0.09, 0.5, 0.41]), given)
    assert not mixer.allows(np.array([0.2, 0.51, 0.29]), given)
    assert mixers.load("tikmix_d")().allows(np.array([0.0, 1.0, 0.0]), given)


@pytest.mark.parametrize("known", [True, False], ids=["one round", "no rounds"])
def test_less_than_two_rounds_cannot_be_guarded_and_that_is_said(known):
    measured = rounds(1.0, num_rounds=1)
    given = stacked(measured) if known else None
    decision = decide(_MostHelpful(), _Asked(), signals(measured), given, num_errors=1.0)
    assert decision.verdict is None
    assert decision.notes == ("as asked", "one round of text, so no noise guard")


@dataclass(frozen=True, kw_only=True)
class _AsksForLosses(_MostHelpful):
    requires: ClassVar[frozenset[str]] = frozenset({"train_losses"})


def test_a_mixer_that_asks_for_no_influence_is_not_guarded():
    measured = contradicting_rounds()  # of a move by influence, nothing would be left
    mixer = _AsksForLosses()
    decision = decide(mixer, _Asked(), signals(measured), stacked(measured), num_errors=1.0)
    assert (decision.verdict, decision.notes) == (None, ("as asked",))
    np.testing.assert_array_equal(decision.mixture, decision.proposal)
    assert not np.array_equal(decision.mixture, signals(measured).mixture)


def test_a_mixer_that_moves_nothing_is_not_guarded():
    measured = rounds(1.0)
    static = mixers.load("static")()
    decision = decide(
        static, static.init(None), signals(measured), stacked(measured), num_errors=1.0
    )
    assert (decision.verdict, decision.notes) == (None, ())
    assert decision.mixture is decision.proposal


def test_a_fold_without_an_answer_counts_as_staying():
    # Without round 3 nothing reaches 100.
    measured = [matrix([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])] * 3 + [
        matrix([[500.0, 0.0, 0.0], [500.0, 0.0, 0.0]])
    ]
    mixer = _MostHelpful(fails_below=100.0)
    decision = decide(mixer, _Asked(), signals(measured), stacked(measured), num_errors=1.0)
    moved_K = decision.proposal - signals(measured).mixture
    scale = np.abs(InfluenceMatrix.mean(measured).centred(np.array([0.2, 0.3, 0.5]))).max()
    # Rounds 0 to 2 are left out of folds that still have round 3, and gain; round 3's fold stays.
    assert decision.verdict.confirmed == pytest.approx(3 * moved_K[0] / scale / 4)


def test_a_mixer_without_an_answer_has_no_decision():
    measured = rounds(1.0)
    with pytest.raises(MixerError, match="says the test"):
        decide(
            _MostHelpful(fails_below=np.inf),
            _Asked(),
            signals(measured),
            stacked(measured),
            num_errors=1.0,
        )
