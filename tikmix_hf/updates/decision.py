"""Decision: from the rounds of a measurement to the mixture that follows.

In: a mixer, its state, signals with the mean of the rounds, and the rounds. Out: the mixture, how
it came about, and the mixer's next state. A mixer's step is pure, so it can be asked what it would
propose as often as one likes; only the state of the one real step is kept. Training decides here,
and so does a dry run: what one says is what the other would do.
"""

# Shape letters: J targets, K domains, R rounds.

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers import Mixer, MixerError, Signals
from tikmix_hf.mixture import as_mixture
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.updates.noise_guard import Verdict, cross_validate

Array = NDArray[np.float64]


class Decision(NamedTuple):
    """What follows from a measurement."""

    mixture: Array
    """(K,) the mixture to announce; that in force where nothing changes."""
    proposal: Array
    """(K,) the mixer's own answer, before the noise guard."""
    state: Any
    """The mixer's next state."""
    notes: tuple[str, ...]
    """What the mixer and the guard have to say."""
    verdict: Verdict | None
    """The guard's; None where it had nothing to judge."""


def decide(
    mixer: Mixer[Any],
    state: Any,
    signals: Signals,
    rounds: Array | None,
    *,
    num_errors: float,
) -> Decision:
    """Steps the mixer, and takes back of its move what fresh text does not bear out.

    Args:
        mixer: turns signals into a mixture.
        state: its state.
        signals: with the mean influence of the rounds.
        rounds: (R, J, K) influence of each of the measurement's rounds; None, or fewer than two,
            are not guarded.
        num_errors: standard errors of the noise guard; 0 switches it off.

    Raises:
        MixerError: the signals do not determine a mixture.
        ValueError: the mixer's answer is no mixture.
    """
    proposal_K, next_state = propose(mixer, state, signals)
    notes = tuple(next_state.notes)
    whole = Decision(proposal_K, proposal_K, next_state, notes, None)
    is_move = not np.array_equal(proposal_K, signals.mixture)
    # Losses a step ahead cannot be taken round by round.
    if not (is_move and num_errors and mixer.requires == {"influence"}):
        return whole
    if rounds is None or len(rounds) < 2:
        return whole._replace(notes=(*notes, "one round of text, so no noise guard"))
    folds_RK = np.stack([_fold(mixer, state, signals, rounds, out=r) for r in range(len(rounds))])
    verdict = cross_validate(rounds, signals.mixture, proposal_K, folds_RK, num_errors=num_errors)
    if verdict.note is None:
        return whole._replace(verdict=verdict)
    mixture_K = signals.mixture
    if verdict.step > 0:
        mixture_K = _checked(mixture_K + verdict.step * (proposal_K - mixture_K), signals)
    if not mixer.allows(mixture_K, signals):
        note = "noise guard set aside: a smaller move would leave the constraints"
        return whole._replace(notes=(*notes, note), verdict=verdict)
    return Decision(mixture_K, proposal_K, next_state, (*notes, verdict.note), verdict)


def propose(mixer: Mixer[Any], state: Any, signals: Signals) -> tuple[Array, Any]:
    """The mixer's answer (K,), checked, and its next state.

    Raises:
        MixerError: the signals do not determine a mixture.
        ValueError: the answer is no mixture.
    """
    proposal_K, next_state = mixer.step(state, signals)
    if not np.array_equal(proposal_K, signals.mixture):  # what is in force keeps its bits
        proposal_K = _checked(proposal_K, signals)
    return proposal_K, next_state


def would_propose(mixer: Mixer[Any], state: Any, signals: Signals) -> Array | None:
    """The mixer's answer (K,) without consequences; None where it has none.

    Raises:
        ValueError: the answer is no mixture.
    """
    try:
        return propose(mixer, state, signals)[0]
    except MixerError:
        return None


def _fold(mixer: Mixer[Any], state: Any, signals: Signals, rounds_RJK: Array, *, out: int) -> Array:
    """(K,) what the mixer would answer without one round; who has no answer would have stayed."""
    num_rounds = len(rounds_RJK)
    stderr_JK = signals.stderr
    if stderr_JK is not None:
        # Of less text; a fold's own spread over rounds would be noisier than this.
        stderr_JK = stderr_JK * np.sqrt(num_rounds / (num_rounds - 1))
    others_RJK = np.delete(rounds_RJK, out, axis=0)
    fold = replace(signals, influence=others_RJK.mean(axis=0), stderr=stderr_JK, rounds=others_RJK)
    proposal_K = would_propose(mixer, state, fold)
    return signals.mixture if proposal_K is None else proposal_K


def with_gradients(signals: Signals, matrix: InfluenceMatrix, name: str) -> Signals:
    """The same signals with a measurement, as the signal of that name."""
    losses = {"domain_losses": matrix.domain_losses, "target_losses": matrix.target_losses}
    if name == "alignment":
        return replace(
            signals, alignment=matrix.values, gradient_norms=matrix.gradient_norms, **losses
        )
    return replace(
        signals, influence=matrix.values, stderr=matrix.stderr, rounds=matrix.rounds, **losses
    )


def _checked(mixture_K: Array, signals: Signals) -> Array:
    return as_mixture(mixture_K, signals.domains, argument="the mixer's mixture")
