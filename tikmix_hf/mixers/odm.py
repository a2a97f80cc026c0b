"""ODM: a bandit that samples more of the domains with the higher training loss.

In go the training losses of the stretches of steps since the last update, (S, K), NaN where one had
no text of the domain, and how many optimizer steps each stretch is; out comes the mixture of
Albalak et al., "Efficient Online Data Mixing" (arXiv 2312.02406, 2023), algorithm 1, an Exp3 whose
arms are the domains. At turn t, with the reward r_k a domain's loss over `reward_scale` and mean
rewards smoothed:

    R_k <- s R_k + (1 - s) r_k / p_k           for the domains that the step had text of
    eps_t = min(1 / K, sqrt(ln K / (K t)))
    p_k = (1 - K eps_t) exp(eps_{t-1} R_k) / sum_i exp(eps_{t-1} R_i) + eps_t.

t counts optimizer steps, and each step between two updates is a turn of its own, replayed under the
mixture that was in force. A stretch of n steps is n turns, each with the stretch's loss and, for
Exp3, its share of the tokens; a domain that it has text of counts as read in all of them.

Where this differs from the paper:
* The mixture changes at updates, not after every step; R is the same as if it had been asked then.
* Both rules of the paper's code are here: the smoothed mean above, `rule="smoothed"`, which is the
  paper's, and the sum of Exp3, `rule="exp3"`, in whose code the loss is divided by 10. A turn of
  Exp3 pulls one arm, a step has text of several domains: each adds its share of the step's tokens
  times r_k / p_k to R_k, which in the mean is what as many turns of one arm add. The code's
  exponential of the loss, which its smoothed rule rewards in one place and not in another, is left
  out; so is its smoothed rule's lack of importance weighting (`importance=False` brings that back).
* The mixture in force divides the rewards of all steps since the last update, although samples that
  were prefetched when it was announced had been drawn under the one before.
* A share below eps_t, which constraints or the start may make, counts as eps_t in r_k / p_k: Exp3
  itself never goes below it, and the quotient stays bounded.
* There is no warm-up on the first mixture: while eps_t = 1 / K, which is so for the first K ln K
  steps, the mixture is uniform.
"""

# Shape letters: K domains, S stretches of steps, T turns.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._stretches import steps_of_stretches
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
        Mixer.__post_init__(self)
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
            MixerError: There are no training losses, they are not finite, or `train_steps` do not
                fit them.
        """
        losses_SK = signals.usable("train_losses")
        rewards_SK = losses_SK / self.reward_scale * self._shares_SK(signals)
        if not np.isfinite(losses_SK).any():
            raise MixerError("`train_losses` has no loss of any domain since the last update.")
        rewards_K = np.array(state.rewards)
        turn = state.num_steps
        for reward_K, num_turns in zip(rewards_SK, steps_of_stretches(signals), strict=True):
            turns_T = turn + np.arange(1, num_turns + 1)
            rewards_K = self._replayed_K(rewards_K, reward_K, signals.mixture, turns_T)
            turn += int(num_turns)
        # Turn t's losses are in: what is sampled next is turn t + 1's.
        num_domains = len(rewards_K)
        before, now = self._exploration_T(np.array([turn, turn + 1]), num_domains).tolist()
        weights_K = np.exp(before * (rewards_K - rewards_K.max()))
        mixture_K = (1 - num_domains * now) * weights_K / weights_K.sum() + now
        unheard = [
            name
            for name, losses_K in zip(signals.domains, losses_SK.T, strict=True)
            if np.isnan(losses_K).all()
        ]
        notes = (f"no training loss of {', '.join(unheard)}",) if unheard else ()
        return normalised(mixture_K, signals), ODMState(tuple(rewards_K.tolist()), turn, notes)

    def _replayed_K(
        self, rewards_K: Array, reward_K: Array, mixture_K: Array, turns_T: NDArray[np.int64]
    ) -> Array:
        """R after turns that all earn the same, `reward_K` before it is divided by a share.

        R of a domain whose reward is NaN stays: there is no news of it.
        """
        worth_TK = np.ones((len(turns_T), len(mixture_K)))
        if self.importance:
            least_T = self._exploration_T(turns_T, len(mixture_K))
            worth_TK = 1 / np.maximum(mixture_K, least_T[:, None])
        kept, weights_T = 1.0, np.ones(len(turns_T))
        if self.rule == "smoothed":
            kept = self.smoothing ** len(turns_T)
            weights_T = (1 - self.smoothing) * self.smoothing ** np.arange(len(turns_T))[::-1]
        after_K = kept * rewards_K + weights_T @ worth_TK * reward_K
        return np.where(np.isnan(reward_K), rewards_K, after_K)

    def _shares_SK(self, signals: Signals) -> Array:
        """Each domain's share of a stretch's tokens; only Exp3's sum asks for it."""
        if self.rule != "exp3":
            return np.ones_like(signals.usable("train_losses"))
        tokens_SK = signals.usable("train_tokens")
        return tokens_SK / np.maximum(tokens_SK.sum(axis=1, keepdims=True), 1.0)

    def _exploration_T(self, turns_T: NDArray[np.int64], num_domains: int) -> Array:
        """eps_t; 1 / K before the first turn."""
        falling_T = np.sqrt(np.log(num_domains) / (num_domains * np.maximum(turns_T, 1)))
        least_T = np.maximum(np.where(turns_T > 0, falling_T, np.inf), self.least_exploration)
        return np.minimum(1 / num_domains, least_T)
