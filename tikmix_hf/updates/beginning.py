"""Beginning: the mixture of the first sample, where a mixer or its constraints have a say in it.

In: a mixer, the mixture that the dataset was made with, what is known before the first step. Out:
the schedule to start with, and what was done, in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tikmix_hf import distributed
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixers.static import Static
from tikmix_hf.mixture import total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment
from tikmix_hf.updates.decision import propose


def beginning(mixer: Mixer[Any], signals: Signals) -> tuple[MixtureSchedule | None, str]:
    """Asks a mixer for the mixture of the first sample, or keeps its constraints there.

    Args:
        mixer: the run's.
        signals: what is known before the first step.

    Returns:
        The schedule, None where the dataset's own mixture stays; what was done.

    Raises:
        ValueError: the mixer cannot say, or no mixture obeys the constraints.
    """
    if not (mixer.at_start or mixer.constraints):
        return None, ""
    first: Mixer[Any] = mixer if mixer.at_start else Static(constraints=mixer.constraints)
    mixture_K, state = distributed.solve_on_rank_0(
        lambda: propose(first, first.init(signals.mixture), signals), (ValueError,)
    )
    if np.array_equal(mixture_K, signals.mixture):
        return None, ""
    about = {"step": 0, "mixer": mixer.describe(), "notes": list(state.notes)}
    segment = Segment(from_sample=0, mixture=mixture_K, update=about)
    moved = total_variation(mixture_K, signals.mixture)
    shares = ", ".join(
        f"{name} {share:.3f}" for name, share in zip(signals.domains, mixture_K, strict=True)
    )
    notes = "".join(f"; {note}" for note in state.notes)
    said = f"[tikmix] start: {type(first).__name__} moved {moved:.1%} of tokens: {shares}{notes}"
    return MixtureSchedule(signals.domains, (segment,)), said
