"""Exponentiated gradient: weights on the simplex, each multiplied by the exponential of its gain.

In go weights (K,) and gains (K,) in nats; out comes w_k exp(gain_k) / sum_i w_i exp(gain_i), the
mirror step of Kivinen and Warmuth (1997) that DoReMi, DoGE, DGA, GRAPE and Aioli share. A weight of
zero stays zero.
"""

# Shape letters: K domains.

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixers.base import normalised
from tikmix_hf.mixers.signals import Signals

Array = NDArray[np.float64]


def multiplied(weights: ArrayLike, gains: ArrayLike, signals: Signals) -> Array:
    """The weights after one step, (K,); the largest gain is taken off all, so none overflows.

    Raises:
        MixerError: A gain is not finite.
    """
    weights_K = np.asarray(weights, dtype=np.float64)
    gains_K = np.asarray(gains, dtype=np.float64)
    largest = gains_K[weights_K > 0].max()
    return normalised(weights_K * np.exp(np.minimum(gains_K - largest, 0.0)), signals)


def running_mean(mean: ArrayLike, value: ArrayLike, count: int) -> Array:
    """The mean of `count` values, the last of which is `value` and the others have mean `mean`."""
    mean_K = np.asarray(mean, dtype=np.float64)
    return mean_K + (np.asarray(value) - mean_K) / count
