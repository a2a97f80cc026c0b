"""The size of a run, which its measurements are planned for.

In: what the user wishes, the dataset, how it is cut into batches, what is measured. Out: a `Plan`,
the same before the first step and after a resume.
"""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.layout import BatchLayout
from tikmix_hf.plan import Part, Plan, RunSize, Wishes


def plan_run(
    wishes: Wishes,
    dataset: InterleavedDomainDataset,
    layout: BatchLayout,
    parts: Sequence[Part],
    *,
    max_steps: int,
    observe: bool,
) -> Plan:
    """Plans a run's measurements.

    Args:
        wishes: of the user.
        dataset: what training reads; its first mixture says how long a row is.
        layout: how a step cuts it.
        parts: the K domains and J targets that are measured.
        max_steps: optimizer steps of the run.
        observe: whether updates are of use even where no sample is left to change.
    """
    shares_K = dataset.schedule.segments[0].mixture
    row_tokens_K = dataset.domains.num_tokens / [domain.num_rows for domain in dataset.domains]
    # Shares are of tokens: a domain of share w has w / row_tokens samples for every token.
    tokens_per_sample = 1 / np.sum(shares_K / row_tokens_K)
    run = RunSize(
        max_steps=max_steps,
        last_step=max_steps if observe else _last_useful_step(layout, max_steps),
        num_tokens=float(layout.samples_before(max_steps) * tokens_per_sample),
        parts=tuple(parts),
    )
    return wishes.plan(run)


def check_room(dataset: InterleavedDomainDataset, num_updates: int) -> None:
    """Refuses a dataset whose schedule has no room, or is not this run's to change.

    Raises:
        ValueError: names `dataset` or `max_updates`.
    """
    last = dataset.schedule.segments[-1].from_sample
    if last:
        raise ValueError(
            f"`dataset` already changes its mixture up to sample {last}, by a replay or by "
            "another run, and the mixer would change it too. Make a new "
            "InterleavedDomainDataset, or pass mixer='static' or observe=True."
        )
    if num_updates > dataset.max_updates:
        raise ValueError(
            f"`max_updates` of the dataset must cover the run's {num_updates} updates; got "
            f"{dataset.max_updates}. Construct the dataset with a larger one."
        )


def _last_useful_step(layout: BatchLayout, max_steps: int) -> int:
    """The last step that leaves samples that no loader has read; 0 where there is none."""
    end = layout.samples_before(max_steps)
    steps = range(max_steps, 0, -1)
    return next((step for step in steps if layout.first_free_sample(step) < end), 0)
