"""Account: what a run has trained and measured so far, update by update.

In: when intervals end, what updates decided and cost. Out: an `UpdateRecord` of each, with tokens
requested against realised, and shares of the run's tokens and time.
"""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.updates.clock import Clock
from tikmix_hf.updates.costs import Costs
from tikmix_hf.updates.plan import Plan
from tikmix_hf.updates.record import UpdateRecord

_COUNTERS = ("num_updates", "last_step", "measured_tokens", "trained_tokens")


class Interval(NamedTuple):
    """What was trained on from one update to the next."""

    step: int
    """Optimizer steps done at its end."""
    requested: NDArray[np.float64]
    """(K,) tokens that the mixtures in force asked for."""
    realised: NDArray[np.int64]
    """(K,) tokens that training read."""
    epochs: NDArray[np.float64]
    """(K,) how often the domain's rows were gone through since the run began."""


class Account:
    """Counts.

    Args:
        dataset: what training reads.

    Attributes:
        num_updates: so far.
        clock: of this process.
    """

    def __init__(self, dataset: InterleavedDomainDataset) -> None:
        self.dataset = dataset
        self.start()

    def start(self) -> None:
        """Counts from the first step on."""
        self.num_updates = 0
        self.last_step = 0
        self.measured_tokens = 0
        self.trained_tokens = 0
        self.start_clock()

    def start_clock(self) -> None:
        """Takes this moment for the beginning of training in this process."""
        self.clock = Clock(self.trained_tokens)

    def close_interval(self, step: int, layout: BatchLayout) -> Interval:
        """Counts what was trained on since the last update, which ends as another begins."""
        first, last = map(layout.samples_before, (self.last_step, step))
        realised_K = self.dataset.tokens_between(first, last)
        self.trained_tokens += int(realised_K.sum())
        self.last_step = step
        self.clock.begin_update(self.trained_tokens)
        return Interval(
            step=step,
            requested=self.dataset.schedule.mean_between(first, last) * realised_K.sum(),
            realised=realised_K,
            epochs=np.array(list(self.dataset.epochs_used(last).values())),
        )

    def record(self, interval: Interval, costs: Costs, plan: Plan, **decided: Any) -> UpdateRecord:
        """Books an update, and writes down what was decided and what it cost."""
        self.num_updates += 1
        self.measured_tokens += costs.num_tokens
        # Probes' losses were read before the update began.
        seconds = self.clock.end_update() + costs.seconds.get("probe_losses", 0.0)
        return UpdateRecord(
            domains=self.dataset.domains.names,
            num_tokens=costs.num_tokens,
            costs=costs.to_dict(),
            seconds=seconds,
            planned_tokens=round(plan.tokens_per_update),
            planned_seconds=self.clock.planned(plan.tokens_per_update),
            time_share=self.clock.time_share,
            token_share=self.measured_tokens / max(self.trained_tokens, 1),
            **interval._asdict(),
            **decided,
        )

    def state(self) -> dict[str, int]:
        """Returns what a checkpoint keeps."""
        return {name: getattr(self, name) for name in _COUNTERS}

    def resume(self, saved: Mapping[str, int]) -> None:
        """Takes up what `state` returned."""
        for name in _COUNTERS:
            setattr(self, name, saved[name])
