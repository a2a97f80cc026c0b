"""The uniform mixture: the same share for every domain.

In go the domains' names, out comes 1 / K for each, once, before the first sample. A control, also
called stratified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import About, Mixer, State, normalised
from tikmix_hf.mixers.signals import Signals


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform(Mixer[State]):
    """1 / K for each of K domains."""

    about: ClassVar[About] = About(paper="", cost="nothing", deviations="none")
    at_start: ClassVar[bool] = True
    at_updates: ClassVar[bool] = False

    def propose(self, state: State, signals: Signals) -> tuple[NDArray[np.float64], State]:
        """The uniform mixture and the same state."""
        return normalised(np.ones(len(signals.domains)), signals), state
