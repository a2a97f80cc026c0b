"""ADO: more of the domains whose loss a scaling law says will fall fastest.

In go the training losses and loss tokens of the stretches of steps since the last update, (S, K),
and how many optimizer steps each stretch is; out comes the mixture of Jiang et al., "Adaptive Data
Optimization" (arXiv 2410.11820, 2024). Per domain a law L_k(n) = E_k + B_k n^-alpha_k is fitted to
the run's own losses, and with the prior q and the share h_k that training gave the domain lately

    slope_k = alpha_k (L_k(n) - E_k) / n
    preferred_k  proportional to  q_k slope_k h_k^credit
    mean <- running mean of the preferred
    p = (1 - pace) mean + pace preferred, at least `floor` each.

n counts the tokens of all domains, as in the paper's code, so that slopes compare.

Where this differs from the paper:
* A point of a law is the token-weighted mean of a few steps' losses (`steps_per_point`); the paper
  smooths with a Savitzky-Golay filter and takes every tenth step. `skipped` leaves out the start as
  a fraction of the tokens so far; the paper its first 1,000 steps. A step without text of a domain
  gives it no point; there the last value is repeated.
* The history is bounded: neighbours are merged where a domain has more than 500 points.
* The fit is the least squares of relative residuals by variable projection, not a Huber loss of log
  losses from 512 starts of L-BFGS. alpha is fitted within [0.05, 0.8]; the paper fits within
  [0.001, 0.8] and multiplies by at least 0.05 then, which inflates a slope whose exponent came out
  smaller. Its bound E >= 1.65 nats, which presumes its tokenizer, is E >= 0.
* The law is refitted at every update and the mixture changes there alone; the running mean counts
  updates and starts from the prior. h is a moving average over optimizer steps, of realised shares;
  those of a stretch of n steps count as the same in each of the n.
* The floor is reached by projection, so that it holds; dividing by the sum afterwards, as the code
  does, undercuts it. A domain without a prior share gets none.
"""

# Shape letters: K domains, S stretches of steps, M points.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers import _power_law
from tikmix_hf.mixers._exponentiated import running_mean
from tikmix_hf.mixers._loss_curve import LossCurve, extended
from tikmix_hf.mixers._stretches import steps_of_stretches
from tikmix_hf.mixers.base import About, Mixer, check_settings, normalised
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import project

Array = NDArray[np.float64]


class ADOState(NamedTuple):
    """The history that laws are fitted to, and the averages."""

    prior: tuple[float, ...]
    """(K,) q."""
    mean: tuple[float, ...]
    """(K,) running mean of the preferred mixtures, the prior the first of them."""
    credit: tuple[float, ...]
    """(K,) h, moving average of realised shares."""
    tokens: tuple[tuple[float, ...], ...]
    """Per domain, tokens of all domains that training had read at each of its points."""
    losses: tuple[tuple[float, ...], ...]
    """Per domain, loss at each of its points, nats per token."""
    counts: tuple[tuple[int, ...], ...]
    """Per domain, how many points were merged into each of them."""
    num_tokens: float = 0.0
    """Loss tokens of all domains so far."""
    num_means: int = 1
    """Mixtures in `mean`."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ADO(Mixer[ADOState]):
    """Scaling laws fitted while training; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Jiang et al., ADO (arXiv 2410.11820, 2024)",
        cost="nothing: the losses are those of training",
        deviations="least squares by variable projection; refit and change at updates alone",
    )
    state_type: ClassVar[type[ADOState]] = ADOState

    credit_power: float = 0.5
    """Power of h in the preferred mixture, >= 0. 0.5 in the paper."""
    credit_memory: float = 0.9
    """What h keeps at an optimizer step, in [0, 1). 0.9 in the paper's code."""
    pace: float = 0.1
    """Share of the preferred mixture of now, beside its running mean, in [0, 1]. 0.1 in the
    paper."""
    floor: float = 0.01
    """Least share of a domain that the prior has, in [0, 1]; at most 1 / K is used. 0.01 in the
    paper."""
    steps_per_point: int = 5
    """Optimizer steps whose mean loss is a point, >= 1; more where a stretch has more."""
    skipped: float = 0.1
    """Points from the first tokens are left out of the fit, as a fraction of all tokens so far, in
    [0, 1)."""
    least_points: int = 5
    """Points of a domain that its fit needs, >= 3. With no domain that has as many the prior is the
    answer."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(credit_power=self.credit_power)
        check_settings(0.0, 1.0, pace=self.pace, floor=self.floor)
        below_one = {"credit_memory": self.credit_memory, "skipped": self.skipped}
        check_settings(0.0, 1.0, **below_one)
        for name, value in below_one.items():
            if value == 1:
                raise ValueError(f"`{name}` must be below 1; got 1.")
        check_settings(1.0, steps_per_point=self.steps_per_point)
        check_settings(3.0, least_points=self.least_points)

    @property
    def requires(self) -> frozenset[str]:
        """The losses of training."""
        return frozenset({"train_losses"})

    def init(self, prior: Array) -> ADOState:
        """No point yet; all averages are the prior."""
        prior_K, none_yet = tuple(prior.tolist()), ((),) * len(prior)
        return ADOState(prior_K, prior_K, prior_K, none_yet, none_yet, none_yet)

    def propose(self, state: ADOState, signals: Signals) -> tuple[Array, ADOState]:
        """The mixture that the laws prefer, with its running mean.

        Raises:
            MixerError: Training losses or tokens are missing, or say nothing, a loss is not
                positive, or `train_steps` do not fit.
        """
        losses_SK, tokens_SK = _checked(signals)
        state = self._with_points(state, losses_SK, tokens_SK, steps_of_stretches(signals))
        prior_K = np.array(state.prior)
        slopes_K = self._slopes(state)
        if not np.nansum(slopes_K) > 0:
            return normalised(prior_K, signals), state._replace(
                notes=(f"no law has {self.least_points} points and falls: the prior",)
            )
        # A domain that no law is known of keeps its place in the prior among the others.
        known_K = np.isfinite(slopes_K)
        slopes_K[~known_K] = np.average(slopes_K[known_K], weights=prior_K[known_K] + 1e-12)
        credit_K = np.array(state.credit) ** self.credit_power
        preferred_K = normalised(prior_K * slopes_K * credit_K, signals)
        num_means = state.num_means + 1
        mean_K = running_mean(state.mean, preferred_K, num_means)
        floors_K = np.where(prior_K > 0, min(self.floor, 1 / len(prior_K)), 0.0)
        mixed_K = (1 - self.pace) * mean_K + self.pace * preferred_K
        return project(mixed_K, floors_K, np.ones(len(prior_K))), state._replace(
            mean=tuple(mean_K.tolist()), num_means=num_means, notes=()
        )

    def _slopes(self, state: ADOState) -> Array:
        """(K,) slopes of the fitted laws at the tokens so far; NaN where points are too few."""
        slopes_K = np.full(len(state.prior), np.nan)
        for k, curve in enumerate(_curves(state)):
            tokens_M, losses_M, counts_M = map(np.array, curve)
            used_M = tokens_M > self.skipped * state.num_tokens
            if used_M.sum() >= self.least_points:
                law = _power_law.fit(tokens_M[used_M], losses_M[used_M], counts=counts_M[used_M])
                slopes_K[k] = law.slope(state.num_tokens)
        return slopes_K

    def _with_points(
        self, state: ADOState, losses_SK: Array, tokens_SK: Array, steps_S: NDArray[np.int64]
    ) -> ADOState:
        """The state with what came since the last update in its history and in its credit."""
        credit_K = np.array(state.credit)
        for tokens_K, num_steps in zip(tokens_SK, steps_S, strict=True):
            if tokens_K.any():
                kept = self.credit_memory**num_steps
                credit_K = kept * credit_K + (1 - kept) * tokens_K / tokens_K.sum()
        points: list[list[tuple[float, float]]] = [[] for _ in credit_K]
        num_tokens = state.num_tokens
        # A stretch belongs to the point that its first step is of.
        point_S = (np.cumsum(steps_S) - steps_S) // self.steps_per_point
        for rows in np.split(np.arange(len(steps_S)), np.flatnonzero(np.diff(point_S)) + 1):
            num_tokens += float(tokens_SK[rows].sum())
            for k in np.flatnonzero(tokens_SK[rows].any(axis=0)):
                heard = rows[tokens_SK[rows, k] > 0]
                mean = np.average(losses_SK[heard, k], weights=tokens_SK[heard, k])
                points[k].append((num_tokens, float(mean)))
        curves = map(extended, _curves(state), points)
        tokens, losses, counts = zip(*curves, strict=True)
        return state._replace(
            credit=tuple(credit_K.tolist()),
            tokens=tokens,
            losses=losses,
            counts=counts,
            num_tokens=num_tokens,
        )


def _curves(state: ADOState) -> list[LossCurve]:
    """Each domain's history."""
    histories = zip(state.tokens, state.losses, state.counts, strict=True)
    return [LossCurve(*history) for history in histories]


def _checked(signals: Signals) -> tuple[Array, Array]:
    """Losses and the tokens they are means of, (S, K) each."""
    losses_SK, tokens_SK = signals.usable("train_losses"), signals.usable("train_tokens")
    if not tokens_SK.any():
        raise MixerError("`train_losses` has no loss of any domain since the last update.")
    for s, k in np.argwhere((tokens_SK > 0) & (losses_SK <= 0))[:1]:
        raise MixerError(
            f"`train_losses` must be above 0 for a scaling law; got {losses_SK[s, k]} of domain "
            f"{signals.domains[k]!r}."
        )
    return losses_SK, tokens_SK
