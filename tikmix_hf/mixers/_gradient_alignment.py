"""What the gradient-alignment mixers DoGE, DGA and GRAPE share: checked signals and rates.

In go `Signals` with `alignment` <f_j, g_k> (J, K) and what comes with it; out come the same
numbers, known to be usable, and the optimizer's progress that one update stands for.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.signals import MixerError, Signals

Array = NDArray[np.float64]


def mean_gradient_norm(signals: Signals) -> float:
    """The mean over domains of the norm of a batch's gradient, > 0.

    Raises:
        MixerError: The norms are missing or not finite, or all are zero.
    """
    norm = float(signals.usable("gradient_norms").mean())
    if norm <= 0:
        raise MixerError("`gradient_norms` must not all be zero: alignment has no scale.")
    return norm


def log_loss_alignment(signals: Signals) -> Array:
    """(J, K) dot products of the gradient of log f_j with g_k: `alignment` over the target's loss.

    Raises:
        MixerError: Alignment or target losses are missing or not finite, or a loss is not positive.
    """
    losses_J = signals.usable("target_losses")
    for j in np.flatnonzero(losses_J <= 0)[:1]:
        raise MixerError(
            f"`target_losses` must be above 0 for their logarithm; got {losses_J[j]} on target "
            f"{signals.targets[j]!r}."
        )
    return signals.usable("alignment") / losses_J[:, None]


def progress(since_step: int, signals: Signals) -> float:
    """Learning rate times optimizer steps since `since_step`: what per-step updates add up to.

    Raises:
        MixerError: The learning rate is not known.
    """
    if not np.isfinite(signals.learning_rate):
        raise MixerError(
            f"`learning_rate` must be known to this mixer; got {signals.learning_rate}."
        )
    return signals.learning_rate * max(signals.step - since_step, 0)
