"""TiKMiX-D as a mixer: constraints by name, slack in standard errors, notes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tikmix_hf.mixers.base import MixerError, Signals
from tikmix_hf.mixers.tikmix_d import TikMixD
from tikmix_hf.mixture import Constraints, Group, Supply


def signals(**changes):
    fields = {
        "step": 10,
        "domains": ("web", "code"),
        "targets": ("arc", "piqa"),
        "mixture": np.array([0.5, 0.5]),
        "influence": np.array([[1.0, 0.0], [0.0, 1.0]]),
    }
    return Signals(**{**fields, **changes})


def test_the_mixer_binds_constraints_by_name_and_notes_what_happened():
    mixer = TikMixD(constraints=Constraints(caps={"web": 0.2}))
    mixture_K, state = mixer.step(mixer.init(np.array([0.5, 0.5])), signals())
    assert mixture_K[0] == pytest.approx(0.2, abs=1e-6)
    slack, moved = state.notes
    assert slack.startswith("constraints exclude the mixture in force")
    assert moved == "constraints: the mixture in force breaks caps of web; 30.0% of tokens move"


def test_groups_and_epochs_are_rows_of_the_program():
    """Both targets want web and then code; web and code may have half, web 100 of 400 tokens.

    With alpha = gamma = 0 that leaves web 0.25 and code 0.25; a projection of the free optimum, all
    web, would leave code nothing.
    """
    names = ("web", "code", "books", "wiki")
    uniform_K = np.full(4, 0.25)
    constraints = Constraints(
        groups={"crawled": Group(domains=("web", "code"), at_most=0.5)}, max_epochs={"web": 1}
    )
    given = signals(
        domains=names,
        mixture=uniform_K,
        influence=np.array([[2.0, 1.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]]),
        supply=Supply(uniform_K, np.full(4, 100.0), np.zeros(4), 400.0, np.ones(4)),
    )
    mixer = TikMixD(alpha=0.0, gamma=0.0, constraints=constraints)
    mixture_K, _ = mixer.step(mixer.init(uniform_K), given)
    np.testing.assert_allclose(mixture_K[:2], [0.25, 0.25], atol=1e-6)
    with pytest.raises(MixerError, match="`max_epochs` needs `supply`"):
        mixer.step(mixer.init(uniform_K), replace(given, supply=None))


def test_constraints_that_cannot_hold_are_a_mixer_error():
    mixer = TikMixD(constraints=Constraints(floors={"web": 0.9}, max_change=0.1))
    with pytest.raises(MixerError, match=r"`floors\['web'\]` 0.9 and `max_change` 0.1 cannot hold"):
        mixer.step(mixer.init(np.array([0.5, 0.5])), signals())


def test_a_trust_region_ends_the_move_and_no_target_loses():
    values_JK = np.array([[1.0, 0.2], [0.9, 0.1]])
    mixer = TikMixD(constraints=Constraints(max_change=0.05))
    mixture_K, state = mixer.step(mixer.init(np.array([0.5, 0.5])), signals(influence=values_JK))
    np.testing.assert_allclose(mixture_K, [0.55, 0.45])
    assert (values_JK @ mixture_K >= values_JK @ [0.5, 0.5]).all()
    assert state.notes[-1].startswith("trust region: max_change shortened the move to ")


def test_slack_in_standard_errors_lets_a_target_lose_that_much():
    """(S q)_j errs by sqrt(2 (0.5 * 0.4)^2); Phat sums to 1.5 w_web + w_code, so web grows.

    It grows until piqa, which loses 4 - 2 per share, has lost its slack.
    """
    given = signals(
        influence=np.array([[1.0, 0.0], [2.0, 4.0]]), stderr=np.array([[0.1, 0.1], [0.4, 0.4]])
    )
    strict = TikMixD(alpha=0.0, gamma=0.0)
    held_K, state = strict.step(strict.init(given.mixture), given)
    np.testing.assert_array_equal(held_K, given.mixture)
    assert state.notes == ("no mixture improves every target",)
    relaxed = TikMixD(alpha=0.0, gamma=0.0, pareto_slack=0.2)
    free_K, state = relaxed.step(relaxed.init(given.mixture), given)
    slack = 0.2 * np.sqrt(2 * (0.5 * 0.4) ** 2)
    assert free_K[0] == pytest.approx(0.5 + slack / 2, abs=1e-6)
    assert state.notes == ()


def test_slack_without_a_known_standard_error_is_a_mixer_error():
    mixer = TikMixD(pareto_slack=1.0)
    with pytest.raises(MixerError, match="`stderr`, which is not known"):
        mixer.step(mixer.init(np.ones(2)), signals())
    unknown_JK = np.array([[0.1, 0.1], [0.1, np.nan]])
    with pytest.raises(MixerError, match="got nan for target 'piqa'"):
        mixer.step(mixer.init(np.ones(2)), signals(stderr=unknown_JK))


def test_centred_influence_is_what_a_shift_of_a_whole_row_cannot_change():
    values_JK = np.array([[5.0, 5.2], [7.0, 7.5]])
    shifted_JK = values_JK + np.array([[100.0], [-50.0]])
    steps = {}
    for centred in (False, True):
        mixer = TikMixD(centred=centred)
        steps[centred] = [
            mixer.step(mixer.init(np.ones(2)), signals(influence=values))[0][1]
            for values in (values_JK, shifted_JK)
        ]
    assert steps[True][0] == pytest.approx(steps[True][1], abs=1e-6)
    assert abs(steps[False][0] - steps[False][1]) > 1e-3
    # By hand: both rows centred and divided are (-1, 1), Phat = 2 w_code - 1 for both, and
    # 4 w_code + H(w) is largest where log(w_code / w_web) = 4.
    assert steps[True][0] == pytest.approx(1 / (1 + np.exp(-4)), abs=1e-5)
