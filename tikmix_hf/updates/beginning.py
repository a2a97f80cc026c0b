"""Beginning: the mixture of the first sample, where a mixer or its constraints have a say in it.

In: a mixer, the mixture that the dataset was made with, what is known before the first step. Out:
the segment to start with, and what was done, in words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tikmix_hf import distributed
from tikmix_hf.mixers import Mixer, Signals
from tikmix_hf.mixers.static import Static
from tikmix_hf.mixture import total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment
from tikmix_hf.updates.decision import propose
from tikmix_hf.updates.schedule_entries import update_record


def beginning(mixer: Mixer[Any], signals: Signals) -> tuple[Segment | None, str]:
    """Asks a mixer for the mixture that training begins with, or keeps its constraints there.

    How far a mixture may move from the one in force (`max_change`, `max_kl_change`, `smoothing`)
    is for updates; nobody has trained yet, or the constraints are new.

    Args:
        mixer: the run's.
        signals: what is known without measuring: before the first step, or where a run goes on.

    Returns:
        The segment to begin with, None where the mixture in force stays; what was done.

    Raises:
        ValueError: the mixer cannot say, or no mixture obeys the constraints.
    """
    asks = mixer.at_start and signals.step == 0
    if not (asks or mixer.constraints):
        return None, ""
    constraints = mixer.constraints and replace(
        mixer.constraints, max_change=None, max_kl_change=None, smoothing=0.0
    )
    first: Mixer[Any] = replace(mixer) if asks else Static()
    first = replace(first, constraints=constraints)
    mixture_K, state = distributed.solve_on_rank_0(
        lambda: propose(first, first.init(signals.mixture), signals), (ValueError,)
    )
    if np.array_equal(mixture_K, signals.mixture):
        return None, ""
    about = update_record(signals.step, mixer, state.notes)
    segment = Segment(from_sample=signals.sample, mixture=mixture_K, update=about)
    moved = total_variation(mixture_K, signals.mixture)
    shares = ", ".join(
        f"{name} {share:.3f}" for name, share in zip(signals.domains, mixture_K, strict=True)
    )
    notes = "".join(f"; {note}" for note in state.notes)
    who = type(first).__name__ if asks else "constraints"
    said = (
        f"[tikmix] start: {who} moved {moved:.1%} of tokens from sample {signals.sample:,} on: "
        f"{shares}{notes}"
    )
    return segment, said


def check_replay(mixer: Mixer[Any], schedule: MixtureSchedule, signals: Signals) -> None:
    """Refuses to replay a schedule that the constraints forbid.

    Raises:
        ValueError: names the sample from which on it does.
    """
    if len(schedule.segments) == 1 or mixer.constraints is None:
        return
    for segment in schedule.segments:
        if not mixer.allows(segment.mixture, replace(signals, mixture=segment.mixture)):
            raise ValueError(
                f"`constraints` forbid the mixture that the dataset's schedule has from sample "
                f"{segment.from_sample:,} on. A replay is not altered: leave them out, or mend the "
                "schedule."
            )
