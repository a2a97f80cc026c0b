"""DGA: dynamic gradient alignment, smoothed so that no scarce domain takes everything.

In go alignment <f_j, g_k> (J, K) and gradient norms; out comes the mixture of Fan, Grangier and
Ablin, "Dynamic Gradient Alignment for Online Data Mixing" (arXiv 2410.02498, 2024), with its
exponential moving average:

    a_k = mean_j <f_j, g_k>
    alpha_k <- alpha_k exp(eta a_k) / sum_i alpha_i exp(eta a_i)
    p <- (1 - beta) p + beta alpha.

Where this differs from the paper:
* a is divided by the square of the mean norm of a batch's gradient, which makes it a number without
  unit (between -1 and 1 where all norms are alike) and eta one setting for all models.
* The paper has one specialised target; of several the mean of their gradients is taken.
* The paper's many-domain variant, which mixes a few histograms, is not here.
* alpha and p start from the mixture that training starts with.
* eta and beta are set for ten to twenty updates in a run; the paper makes many more of them.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._exponentiated import multiplied
from tikmix_hf.mixers._gradient_alignment import mean_gradient_norm
from tikmix_hf.mixers.base import About, Mixer, check_settings, normalised
from tikmix_hf.mixers.signals import Signals

Array = NDArray[np.float64]


class DGAState(NamedTuple):
    """The domain weights and their moving average, whatever the constraints made of it."""

    weights: tuple[float, ...]
    """(K,) alpha."""
    mixture: tuple[float, ...]
    """(K,) p."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DGA(Mixer[DGAState]):
    """Gradient alignment with a moving average; a setting out of its range is a ValueError."""

    about: ClassVar[About] = About(
        paper="Fan, Grangier and Ablin, DGA (arXiv 2410.02498, 2024)",
        cost="a gradient pass over rows of every domain and target",
        deviations="alignment without unit, mean over targets, larger steps for fewer updates",
    )
    state_type: ClassVar[type[DGAState]] = DGAState

    eta: float = 10.0
    """Step size, nats per unit of alignment over the squared gradient norm, >= 0."""
    beta: float = 0.5
    """Share of alpha in the moving average at each update, in [0, 1]; 1: no average."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(eta=self.eta)
        check_settings(0.0, 1.0, beta=self.beta)

    @property
    def requires(self) -> frozenset[str]:
        """Alignment."""
        return frozenset({"alignment"})

    def init(self, prior: Array) -> DGAState:
        """Both alpha and p are the prior."""
        return DGAState(tuple(prior.tolist()), tuple(prior.tolist()))

    def propose(self, state: DGAState, signals: Signals) -> tuple[Array, DGAState]:
        """The moving average p after one step of alpha.

        Raises:
            MixerError: Alignment is missing, not finite or zero everywhere, or the gradient norms
                are not known.
        """
        aligned_K = signals.usable("alignment").mean(axis=0) / mean_gradient_norm(signals) ** 2
        weights_K = multiplied(state.weights, self.eta * aligned_K, signals)
        moved_K = (1 - self.beta) * np.array(state.mixture) + self.beta * weights_K
        mixture_K = normalised(moved_K, signals)
        return mixture_K, DGAState(tuple(weights_K.tolist()), tuple(mixture_K.tolist()))
