"""Aioli: trains briefly on more of each domain, sees which losses fall, and follows.

In go the targets' losses before and after each of N probes, (N + 1, J); out comes the mixture of
Chen et al., "Aioli" (arXiv 2411.05735, 2025), algorithm 1. A sweep probes every domain once, in
random order: a few optimizer steps on the mixture with share h of that domain and the rest shared
evenly, m^k. With D_kj the fall of loss j in the probe of domain k, mean over sweeps, the law
D_kj = sum_i m^k_i A_ji is solved for A (J, K), the effect on target j of training on domain i:

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
                probes, `one_hot` is 1 / K, or no probe changed any loss.
        """
        falls_KJ = self._falls_KJ(state, signals)
        smoothed_KK = self._smoothed_KK(len(falls_KJ))
        if len(falls_KJ) > 1 and np.isclose(self.one_hot, 1 / len(falls_KJ)):
            raise MixerError(
                f"`one_hot` must not be 1 / K; got {self.one_hot} for {len(falls_KJ)} domains."
            )
        effects_JK = _as_shares(np.linalg.solve(smoothed_KK, falls_KJ).T)
        start = state.weights
        if self.ema is not None:
            start = np.ones(len(falls_KJ))
            if state.effects:
                effects_JK = self.ema * np.array(state.effects) + (1 - self.ema) * effects_JK
        gains_K = self.eta * len(falls_KJ) * effects_JK.sum(axis=0)
        weights_K = multiplied(start, gains_K, signals)
        return weights_K, AioliState(
            weights=tuple(weights_K.tolist()),
            effects=tuple(map(tuple, effects_JK.tolist())),
            num_updates=state.num_updates + 1,
        )

    def _falls_KJ(self, state: AioliState, signals: Signals) -> Array:
        """Mean over sweeps of what each target's loss fell in the probe of each domain."""
        losses = signals.usable("probe_losses")
        num_domains = len(signals.domains)
        order_N = self._order_N(state, num_domains)
        if len(losses) != len(order_N) + 1:
            raise MixerError(
                f"`probe_losses` must have a row before and one after each of {len(order_N)} "
                f"probes; got {len(losses)} rows."
            )
        falls_NJ = -np.diff(losses, axis=0)
        if not falls_NJ.any():
            raise MixerError("`probe_losses` never changes: the probes tell nothing.")
        return (
            falls_NJ[np.argsort(order_N, kind="stable")]
            .reshape(num_domains, self.lp_rounds, -1)
            .mean(axis=1)
        )

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


def _as_shares(effects_JK: Array) -> Array:
    """Effects shifted to a least of 0 and divided by their sum; all alike say nothing, 0 each."""
    shifted_JK = effects_JK - effects_JK.min()
    if shifted_JK.max() <= _ROUNDING * np.abs(effects_JK).max():
        return np.zeros_like(effects_JK)
    return shifted_JK / shifted_JK.sum()
