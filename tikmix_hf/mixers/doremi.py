"""DoReMi: more of the domains in which the model is furthest behind a reference model.

In goes the excess loss lambda (K,), the mean over held-out tokens of max(loss - loss of the
reference, 0); out comes the domain weights' step of Xie et al., "DoReMi" (arXiv 2305.10429, 2023),
algorithm 1, a group-DRO ascent smoothed towards the uniform mixture:

    alpha_k <- alpha_k exp(eta lambda_k) / sum_i alpha_i exp(eta lambda_i)
    alpha <- (1 - c) alpha + c / K.

Where this differs from the paper:
* The paper trains a small proxy under alpha, averages alpha over its steps, and trains the large
  model on that average. Here alpha governs the training that it is measured in (`mode="self"`);
  `mode="average"` answers its mean over the updates so far, the prior not counted. Either way the
  proxy samples by alpha; the paper's samples uniformly and weights the loss.
* A step is taken at every update, not at every optimizer step, so eta weighs more text.
* lambda is of held-out text and of every domain, so none keeps an old value as a domain that a
  batch lacks does in the paper.
* alpha starts from the mixture that training starts with, not from the uniform one.

lambda is per token, for which eta = 1 was made; a loss summed over a sequence would need an eta
smaller by the sequence's length.
"""

# Shape letters: K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._exponentiated import multiplied, running_mean
from tikmix_hf.mixers.base import About, Mixer, check_settings, normalised
from tikmix_hf.mixers.signals import MixerError, Signals

Array = NDArray[np.float64]


class DoReMiState(NamedTuple):
    """The domain weights, whatever the constraints made of them."""

    weights: tuple[float, ...]
    """(K,) alpha."""
    mean: tuple[float, ...]
    """(K,) mean of alpha over the updates; all zero before the first."""
    num_updates: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DoReMi(Mixer[DoReMiState]):
    """Group DRO over domains; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Xie et al., DoReMi (arXiv 2305.10429, 2023), algorithm 1",
        cost="a forward pass over held-out rows of every domain, of the model and the reference",
        deviations="online: alpha governs its own run, one step per update; starts at the prior",
    )
    state_type: ClassVar[type[DoReMiState]] = DoReMiState

    eta: float = 1.0
    """Step size, per nat of excess loss, >= 0. 1 in the paper."""
    smoothing: float = 1e-3
    """c, the share of the uniform mixture in alpha, in [0, 1]. 1e-3 in the paper, 1e-4 in its
    code."""
    mode: Literal["self", "average"] = "self"
    """Whether alpha itself is the answer or its mean over the updates."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(eta=self.eta)
        check_settings(0.0, 1.0, smoothing=self.smoothing)
        if self.mode not in ("self", "average"):
            raise ValueError(f"`mode` must be 'self' or 'average'; got {self.mode!r}.")

    @property
    def requires(self) -> frozenset[str]:
        """Excess losses, for which there must be a reference model."""
        return frozenset({"excess_losses"})

    def init(self, prior: Array) -> DoReMiState:
        """The weights alpha are the prior."""
        return DoReMiState(tuple(prior.tolist()), (0.0,) * len(prior))

    def propose(self, state: DoReMiState, signals: Signals) -> tuple[Array, DoReMiState]:
        """The weights alpha after one step, or its mean.

        Raises:
            MixerError: The excess losses are missing, not finite or negative.
        """
        excess_K = signals.usable("excess_losses")
        for k in np.flatnonzero(excess_K < 0)[:1]:
            raise MixerError(
                f"`excess_losses` must not be negative; got {excess_K[k]} of domain "
                f"{signals.domains[k]!r}. Clip every token's difference at 0."
            )
        stepped_K = multiplied(state.weights, self.eta * excess_K, signals)
        smoothed_K = (1 - self.smoothing) * stepped_K + self.smoothing / len(excess_K)
        weights_K = normalised(smoothed_K, signals)
        num_updates = state.num_updates + 1
        mean_K = running_mean(state.mean, weights_K, num_updates)
        after = DoReMiState(tuple(weights_K.tolist()), tuple(mean_K.tolist()), num_updates)
        if self.mode == "self":
            return weights_K, after
        return normalised(mean_K, signals), after
