"""The control: the mixture in force, for ever.

In goes the mixture in force, out comes the same. Every other mixer is compared with this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.mixers.signals import Signals


@dataclass(frozen=True, kw_only=True, slots=True)
class Static(Mixer[State]):
    """Keeps the mixture; asks for no signal."""

    about: ClassVar[About] = About(paper="", cost="nothing", deviations="none")
    at_start: ClassVar[bool] = True
    at_updates: ClassVar[bool] = False

    def propose(self, state: State, signals: Signals) -> tuple[NDArray[np.float64], State]:
        """The mixture in force and the same state."""
        return signals.mixture, state
