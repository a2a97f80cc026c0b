"""The natural mixture: every domain by the tokens that there are of it.

In goes the supply's prior, out comes the same, once, before the first sample. A control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.mixers.signals import Signals


@dataclass(frozen=True, kw_only=True, slots=True)
class Natural(Mixer[State]):
    """Shares in proportion to tokens, whatever mixture training was started with."""

    about: ClassVar[About] = About(paper="", cost="nothing", deviations="none")
    at_start: ClassVar[bool] = True
    at_updates: ClassVar[bool] = False

    def propose(self, state: State, signals: Signals) -> tuple[NDArray[np.float64], State]:
        """The natural mixture and the same state.

        Raises:
            MixerError: The supply is not known.
        """
        return signals.usable_supply().prior, state
