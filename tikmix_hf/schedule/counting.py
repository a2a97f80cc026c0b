"""How many tokens a run reads under each mixture.

In: a schedule of a run whose length is known, and the mean tokens of a row of each domain. Out: the
schedule with tokens. Shares are shares of tokens, so a mixture w draws w_k / m_k rows of domain k,
whose rows have m_k tokens on average, for each token, and a sample brings 1 / sum_k (w_k / m_k).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.schedule.operations import lengths

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

# Shape letters: K domains, S segments.


def counted(schedule: MixtureSchedule, row_tokens_K: NDArray[np.float64]) -> MixtureSchedule:
    """The schedule with the tokens of its segments and run, where the run's length is known."""
    if schedule.run.num_samples is None:
        segments = tuple(replace(segment, num_tokens=None) for segment in schedule.segments)
        return replace(schedule, segments=segments, run=replace(schedule.run, num_tokens=None))
    mixtures_SK = np.stack([segment.mixture for segment in schedule.segments])
    per_sample_S = 1.0 / (mixtures_SK @ (1.0 / row_tokens_K))
    samples_S = np.array(lengths(schedule, "counted"), dtype=np.float64)
    tokens = [round(number) for number in (samples_S * per_sample_S).tolist()]
    segments = tuple(
        replace(segment, num_tokens=number)
        for segment, number in zip(schedule.segments, tokens, strict=True)
    )
    return replace(schedule, segments=segments, run=replace(schedule.run, num_tokens=sum(tokens)))
