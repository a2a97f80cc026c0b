"""DoGE: more of the domains whose gradients point where the targets' gradients point.

In go alignment <f_j, g_k> (J, K), gradient norms and the learning rate; out come the domain weights
of Fan et al., "DoGE" (arXiv 2310.15393, 2024), algorithm 1 with the scaling and clipping of its
code:

    score_k = clip(sum_j <f_j, g_k> / mean_i ||g_i||, 0, 5)
    alpha_k <- alpha_k exp(lr score_k / mu) / sum_i alpha_i exp(lr score_i / mu).

The paper's two cases are two choices of targets: its universal generalisation has the domains' own
held-out text as targets (the diagonal <g_k, g_k> counts, as in its equation), its out-of-domain
case has a target's text.

Where this differs from the paper:
* The paper steps at every optimizer step; this at every update, by the learning rate times the
  optimizer steps since the last one, with the score of that update. A run's weights move as far as
  with as many single steps of that score.
* The paper trains a proxy, averages alpha over its steps and trains the model on that average. Here
  alpha governs the training that it is measured in (`mode="self"`); `mode="average"` answers its
  mean over the updates so far, the prior not counted.
* Gradients are means over many held-out batches; the norm is that of single batches, as there.
* alpha starts from the mixture that training starts with, not from the uniform one.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._exponentiated import multiplied, running_mean
from tikmix_hf.mixers._gradient_alignment import mean_gradient_norm, progress
from tikmix_hf.mixers.base import About, Mixer, check_settings, normalised
from tikmix_hf.mixers.signals import Signals

Array = NDArray[np.float64]

# The paper's code clips scores, in units of the gradient norm, to this.
MOST_SCORE = 5.0


class DoGEState(NamedTuple):
    """The domain weights, whatever the constraints made of them."""

    weights: tuple[float, ...]
    """(K,) alpha."""
    mean: tuple[float, ...]
    """(K,) mean of alpha over the updates; all zero before the first."""
    num_updates: int = 0
    step: int = 0
    """Optimizer steps done at the last update."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DoGE(Mixer[DoGEState]):
    """Mirror ascent on gradient alignment; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Fan et al., DoGE (arXiv 2310.15393, 2024), algorithm 1",
        cost="a gradient pass over rows of every domain and target",
        deviations="online: alpha governs its own run; an update stands for the steps before it",
    )
    state_type: ClassVar[type[DoGEState]] = DoGEState

    mu: float = 0.05
    """Price of moving alpha, > 0: it moves by learning rate * score / mu nats per optimizer step.
    0.05 is the default of the paper's code, 0.01 in the configuration that it ships."""
    smoothing: float = 0.0
    """Share of the uniform mixture in alpha, in [0, 1]. 0 in the paper's code."""
    mode: Literal["self", "average"] = "self"
    """Whether alpha itself is the answer or its mean over the updates."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(mu=self.mu)
        check_settings(0.0, 1.0, smoothing=self.smoothing)
        if self.mu == 0:
            raise ValueError("`mu` must be above 0; got 0.")
        if self.mode not in ("self", "average"):
            raise ValueError(f"`mode` must be 'self' or 'average'; got {self.mode!r}.")

    @property
    def requires(self) -> frozenset[str]:
        """Alignment."""
        return frozenset({"alignment"})

    def init(self, prior: Array) -> DoGEState:
        """The weights alpha are the prior."""
        return DoGEState(tuple(prior.tolist()), (0.0,) * len(prior))

    def propose(self, state: DoGEState, signals: Signals) -> tuple[Array, DoGEState]:
        """The weights alpha after the steps since the last update, or its mean.

        Raises:
            MixerError: Alignment is missing, not finite or zero everywhere, or the gradient norms
                or the learning rate are not known.
        """
        score_K = signals.usable("alignment").sum(axis=0) / mean_gradient_norm(signals)
        gains_K = progress(state.step, signals) * np.clip(score_K, 0.0, MOST_SCORE) / self.mu
        stepped_K = multiplied(state.weights, gains_K, signals)
        smoothed_K = (1 - self.smoothing) * stepped_K + self.smoothing / len(score_K)
        weights_K = normalised(smoothed_K, signals)
        num_updates = state.num_updates + 1
        mean_K = running_mean(state.mean, weights_K, num_updates)
        notes = tuple(
            f"domain {signals.domains[k]}: score {score_K[k]:.3g} clipped at {MOST_SCORE:g}"
            for k in np.flatnonzero(score_K > MOST_SCORE)
        )
        after = DoGEState(
            weights=tuple(weights_K.tolist()),
            mean=tuple(mean_K.tolist()),
            num_updates=num_updates,
            step=signals.step,
            notes=notes,
        )
        return (weights_K if self.mode == "self" else normalised(mean_K, signals)), after
