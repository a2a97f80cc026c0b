"""Aioli: trains briefly on more of each domain, sees which losses fall, and follows.

In go the targets' losses before and after each of N probes, (N + 1, J); out comes the mixture of
Chen et al., "Aioli" (arXiv 2411.05735, 2025), algorithm 1. A sweep probes every domain once, in
random order: a few optimizer steps on the mixture with share h of that domain and the rest shared
evenly. With m^n the mixture of probe n and D_nj the fall of loss j in it, the law
D_nj = sum_i m^n_i A_ji is solved by least squares for A (J, K), the effect on target j of training
on domain i, which of probes that are as asked is the paper's exact solve of the means over sweeps:

    A <- A - min A,  A <- A / sum A
    p_k  proportional to  p_k exp(eta K sum_j A_jk).

Where this differs from the paper:
* Its losses are those of the domains; here of the targets. The domains' held-out text as targets
  gives the paper's.
* The exponent has the factor K: A sums to 1 over all its entries, so without it a step gets smaller
  the more domains there are, and eta would be another for each K.
* As in its code there are two ways to go on: p accumulates over updates, or (`ema`) A is averaged
  with its past and p starts from the uniform mixture at each update.
* p starts from the mixture that training starts with.
* m^n is what was trained on, where constraints keep that from what was asked. Where such probes do
  not determine A, effects differ as little as they can: a domain whose share no probe moved has
  the mean effect.

Probes train the model like any other step; the paper's defaults spend about half of a run of seven
domains on them.
"""

# Shape letters: J targets, K domains, R sweeps, N = R K probes.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._exponentiated import multiplied
from tikmix_hf.mixers.base import About, Mixer, check_settings
from tikmix_hf.mixers.signals import MixerError, Signals

Array = NDArray[np.float64]

# Effects that differ by less, relatively, differ by the rounding of the solve; divided by their sum
# they would decide everything.
_ROUNDING = 1e-9
# Probes that differ by less, relatively, in some direction say nothing of it.
_UNMOVED = 1e-6


class AioliState(NamedTuple):
    """The weights and, for the average, the effects; whatever the constraints made of them."""

    weights: tuple[float, ...]
    """(K,) p."""
    effects: tuple[tuple[float, ...], ...] = ()
    """(J, K) A, averaged with its past where `ema` is set; empty before the first update."""
    num_updates: int = 0
    """With the seed it settles the order of the next probes."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Aioli(Mixer[AioliState]):
    """Measured effects of domains on targets; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Chen et al., Aioli (arXiv 2411.05735, 2025), algorithm 1",
        cost="the targets' loss before and after each of rounds x K probes, which train",
        deviations="losses of targets, not of domains; the exponent is scaled by K",
    )
    state_type: ClassVar[type[AioliState]] = AioliState

    eta: float = 1.0
    """Step size, >= 0: the mean over domains of the exponent, nats. 0.2 and 1 in the paper, without
    the factor K."""
    lp_rounds: int = 2
    """Sweeps over the domains, >= 1. 4 in the paper, 2 in its full runs."""
    lp_steps: int = 4
    """Optimizer steps of a probe, >= 1. 4 in the paper, 10 in its full runs."""
    one_hot: float = 0.75
    """h, the share of the probed domain, in [0, 1] and not 1 / K, which would tell nothing. 0.625
    in the paper, 0.75 in its full runs."""
    ema: float | None = None
    """What A keeps of its past, in [0, 1), where p starts from the uniform mixture at every update;
    0.1 in the paper. None: p accumulates."""
    seed: int = 0
    """Of the order of the probes, >= 0."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(eta=self.eta, seed=self.seed)
        check_settings(1.0, lp_rounds=self.lp_rounds, lp_steps=self.lp_steps)
        check_settings(0.0, 1.0, one_hot=self.one_hot)
        if self.ema is not None:
            check_settings(0.0, 1.0, ema=self.ema)
            if self.ema == 1:
                raise ValueError("`ema` must be below 1, or no probe counts; got 1.")

    @property
    def requires(self) -> frozenset[str]:
        """The losses around the probes."""
        return frozenset({"probe_losses"})

    def init(self, prior: Array) -> AioliState:
        """The weights p are the prior."""
        return AioliState(tuple(prior.tolist()))

    def probe_steps(self, num_domains: int) -> tuple[int, ...]:
        """`lp_steps` for each domain in each sweep."""
        return (self.lp_steps,) * (self.lp_rounds * num_domains)

    def probe_mixtures(self, state: AioliState, signals: Signals) -> Array:
        """(N, K) smoothed one-hot mixtures, in the order of the sweeps."""
        num_domains = len(signals.domains)
        return self._smoothed_KK(num_domains)[self._order_N(state, num_domains)]

    def propose(self, state: AioliState, signals: Signals) -> tuple[Array, AioliState]:
        """The weights p after one step.

        Raises:
            MixerError: The losses around the probes are missing, not finite or of another number of
                probes, no probe changed any loss, or all probes were of one mixture.
        """
        mixtures_NK = self._probed_NK(state, signals)
        num_domains = len(signals.domains)
        effects_JK = _as_shares(_effects_JK(mixtures_NK, _falls_NJ(signals, len(mixtures_NK))))
        start = state.weights
        if self.ema is not None:
            start = np.ones(num_domains)
            if state.effects:
                effects_JK = self.ema * np.array(state.effects) + (1 - self.ema) * effects_JK
        gains_K = self.eta * num_domains * effects_JK.sum(axis=0)
        weights_K = multiplied(start, gains_K, signals)
        return weights_K, AioliState(
            weights=tuple(weights_K.tolist()),
            effects=tuple(map(tuple, effects_JK.tolist())),
            num_updates=state.num_updates + 1,
        )

    def _probed_NK(self, state: AioliState, signals: Signals) -> Array:
        """What was trained on, which is what was asked for where nothing else is known."""
        asked_NK = self.probe_mixtures(state, signals)
        is_told = signals.probe_mixtures is not None
        probed_NK = signals.usable("probe_mixtures") if is_told else asked_NK
        if len(probed_NK) != len(asked_NK):
            raise MixerError(
                f"`probe_mixtures` must have a row for each of {len(asked_NK)} probes; got "
                f"{len(probed_NK)} rows."
            )
        num_domains = len(signals.domains)
        if num_domains > 1 and np.ptp(probed_NK, axis=0).max() < _UNMOVED:
            raise MixerError(
                f"all probes were of one mixture, which tells domains not apart: `one_hot` must "
                f"not be 1 / K, nor may the constraints leave a single mixture; got "
                f"{self.one_hot} for {num_domains} domains."
            )
        return probed_NK

    def _order_N(self, state: AioliState, num_domains: int) -> NDArray[np.intp]:
        """The probed domains, each once in every sweep."""
        rng = np.random.default_rng((self.seed, state.num_updates))
        return np.concatenate([rng.permutation(num_domains) for _ in range(self.lp_rounds)])

    def _smoothed_KK(self, num_domains: int) -> Array:
        """Row k has share `one_hot` of domain k, the rest shared evenly."""
        if num_domains == 1:
            return np.ones((1, 1))
        rest = (1 - self.one_hot) / (num_domains - 1)
        return np.full((num_domains,) * 2, rest) + (self.one_hot - rest) * np.eye(num_domains)


def _falls_NJ(signals: Signals, num_probes: int) -> Array:
    """What each target's loss fell in each probe."""
    losses = signals.usable("probe_losses")
    if len(losses) != num_probes + 1:
        raise MixerError(
            f"`probe_losses` must have a row before and one after each of {num_probes} probes; got "
            f"{len(losses)} rows."
        )
    falls_NJ = -np.diff(losses, axis=0)
    if not falls_NJ.any():
        raise MixerError("`probe_losses` never changes: the probes tell nothing.")
    return falls_NJ


def _effects_JK(mixtures_NK: Array, falls_NJ: Array) -> Array:
    """A that explains the falls best; of several, that with effects nearest to their mean.

    Shares sum to 1, so what all falls have in common is common to all effects. It is taken off
    first: the least solution of the rest then says nothing of what was not probed.
    """
    mean_J = falls_NJ.mean(axis=0)
    apart_KJ, *_ = np.linalg.lstsq(mixtures_NK, falls_NJ - mean_J, rcond=_UNMOVED)
    return (mean_J + apart_KJ).T


def _as_shares(effects_JK: Array) -> Array:
    """Effects shifted to a least of 0 and divided by their sum; all alike say nothing, 0 each."""
    shifted_JK = effects_JK - effects_JK.min()
    if shifted_JK.max() <= _ROUNDING * np.abs(effects_JK).max():
        return np.zeros_like(effects_JK)
    return shifted_JK / shifted_JK.sum()
