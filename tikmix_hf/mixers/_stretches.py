"""Stretches of training: how many optimizer steps each row of `train_losses` tells of.

In go signals, out comes (S,) whole numbers of steps; a long interval between two updates is told in
rows of several steps each.
"""

# Shape letters: S stretches of steps.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.signals import MixerError, Signals


def steps_of_stretches(signals: Signals) -> NDArray[np.int64]:
    """(S,) optimizer steps in each row of `train_losses`; 1 each where `train_steps` is None.

    Raises:
        MixerError: There are no training losses, or the steps do not fit them.
    """
    num_rows = len(signals.usable("train_losses"))
    if signals.train_steps is None:
        return np.ones(num_rows, dtype=np.int64)
    steps_S = signals.usable("train_steps")
    if len(steps_S) != num_rows or (steps_S < 1).any() or (steps_S % 1).any():
        raise MixerError(
            f"`train_steps` must have a whole number of steps, 1 or more, for each of {num_rows} "
            f"rows of `train_losses`; got {steps_S.tolist()}."
        )
    return steps_S.astype(np.int64)
