"""ODM: a bandit that samples more of the domains with the higher training loss.

In go the training losses of every optimizer step since the last update, (S, K), NaN where a step
had no text of the domain; out comes the mixture of Albalak et al., "Efficient Online Data Mixing"
(arXiv 2312.02406, 2023), algorithm 1, an Exp3 whose arms are the domains. At turn t, with the
reward r_k a domain's loss over `reward_scale` and mean rewards smoothed:

    R_k <- s R_k + (1 - s) r_k / p_k           for the domains that the step had text of
    eps_t = min(1 / K, sqrt(ln K / (K t)))
    p_k = (1 - K eps_t) exp(eps_{t-1} R_k) / sum_i exp(eps_{t-1} R_i) + eps_t.

t counts optimizer steps, and each step between two updates is a turn of its own, replayed under the
mixture that was in force.

Where this differs from the paper:
* The mixture changes at updates, not after every step; R is the same as if it had been asked then.
* Both rules of the paper's code are here: the smoothed mean above, `rule="smoothed"`, which is the
  paper's, and the sum of Exp3, `rule="exp3"`, in whose code the loss is divided by 10. A turn of
  Exp3 pulls one arm, a step has text of several domains: each adds its share of the step's tokens
  times r_k / p_k to R_k, which in the mean is what as many turns of one arm add. The code's
  exponential of the loss, which its smoothed rule rewards in one place and not in another, is left
  out; so is its smoothed rule's lack of importance weighting (`importance=False` brings that back).
* A share below eps_t, which constraints or the start may make, counts as eps_t in r_k / p_k: Exp3
  itself never goes below it, and the quotient stays bounded.
* There is no warm-up on the first mixture: while eps_t = 1 / K, which is so for the first K ln K
  steps, the mixture is uniform.
"""

# Shape letters: K domains, S optimizer steps.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import About, Mixer, check_settings, normalised
from tikmix_hf.mixers.signals import MixerError, Signals

Array = NDArray[np.float64]


class ODMState(NamedTuple):
    """The bandit's rewards and its turn."""

    rewards: tuple[float, ...]
    """(K,) R."""
    num_steps: int = 0
    """Turns t so far: optimizer steps whose losses were replayed."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ODM(Mixer[ODMState]):
    """Exp3 on training losses; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Albalak et al., ODM (arXiv 2312.02406, 2023), algorithm 1",
        cost="nothing: the losses are those of training",
        deviations="the mixture changes at updates alone; steps between them are replayed",
    )
    state_type: ClassVar[type[ODMState]] = ODMState

    rule: Literal["smoothed", "exp3"] = "smoothed"
    """Whether R is a smoothed mean of rewards, as in the paper, or their sum, as in Exp3."""
    reward_scale: float = 1.0
    """What a loss in nats per token is divided by, > 0. 1 in the paper; 10 in its code for
    `rule="exp3"`."""
    smoothing: float = 0.9
    """s, what is kept of R at a step, in [0, 1); without effect for `rule="exp3"`. 0.9 in the
    paper's code."""
    importance: bool = True
    """Whether rewards are divided by the domain's share. True in the paper."""
    least_exploration: float = 0.0
    """eps_t does not fall below this, in [0, 1]; at most 1 / K is used. 0 in the paper."""

    def __post_init__(self) -> None:
        check_settings(reward_scale=self.reward_scale)
        check_settings(0.0, 1.0, smoothing=self.smoothing, least_exploration=self.least_exploration)
        if self.reward_scale == 0:
            raise ValueError("`reward_scale` must be above 0; got 0.")
        if self.smoothing == 1:
            raise ValueError("`smoothing` must be below 1, or no reward counts; got 1.")
        if self.rule not in ("smoothed", "exp3"):
            raise ValueError(f"`rule` must be 'smoothed' or 'exp3'; got {self.rule!r}.")

    @property
    def requires(self) -> frozenset[str]:
        """The losses of training."""
        return frozenset({"train_losses"})

    def init(self, prior: Array) -> ODMState:
        """No reward yet."""
        return ODMState((0.0,) * len(prior))

    def propose(self, state: ODMState, signals: Signals) -> tuple[Array, ODMState]:
        """The bandit's mixture after the steps since the last update.

        Raises:
            MixerError: There are no training losses, or they are infinite.
        """
        losses_SK = signals.usable("train_losses")
        shares_SK = self._shares_SK(signals)
        if not np.isfinite(losses_SK).any():
            raise MixerError("`train_losses` has no loss of any domain since the last update.")
        rewards_K = np.array(state.rewards)
        turn = state.num_steps
        for losses_K, shares_K in zip(losses_SK, shares_SK, strict=True):
            turn += 1
            added_K = self._reward_K(losses_K, signals.mixture, turn)
            if self.rule == "exp3":
                after_K = rewards_K + shares_K * added_K
            else:
                after_K = self.smoothing * rewards_K + (1 - self.smoothing) * added_K
            rewards_K = np.where(np.isnan(losses_K), rewards_K, after_K)
        # Turn t's losses are in: what is sampled next is turn t + 1's.
        num_domains = len(rewards_K)
        before, now = self._exploration(turn, num_domains), self._exploration(turn + 1, num_domains)
        weights_K = np.exp(before * (rewards_K - rewards_K.max()))
        mixture_K = (1 - num_domains * now) * weights_K / weights_K.sum() + now
        unheard = [
            name
            for name, losses_K in zip(signals.domains, losses_SK.T, strict=True)
            if np.isnan(losses_K).all()
        ]
        notes = (f"no training loss of {', '.join(unheard)}",) if unheard else ()
        return normalised(mixture_K, signals), ODMState(tuple(rewards_K.tolist()), turn, notes)

    def _reward_K(self, losses_K: Array, mixture_K: Array, turn: int) -> Array:
        """What a turn earns each domain, NaN where there is no news of it."""
        reward_K = losses_K / self.reward_scale
        if not self.importance:
            return reward_K
        return reward_K / np.maximum(mixture_K, self._exploration(turn, len(mixture_K)))

    def _shares_SK(self, signals: Signals) -> Array:
        """Each domain's share of a step's tokens; only Exp3's sum asks for it."""
        if self.rule != "exp3":
            return np.ones_like(signals.usable("train_losses"))
        tokens_SK = signals.usable("train_tokens")
        return tokens_SK / np.maximum(tokens_SK.sum(axis=1, keepdims=True), 1.0)

    def _exploration(self, turn: int, num_domains: int) -> float:
        """eps_t; 1 / K before the first turn."""
        falling = np.sqrt(np.log(num_domains) / (num_domains * turn)) if turn else np.inf
        return float(min(1 / num_domains, max(falling, self.least_exploration)))
