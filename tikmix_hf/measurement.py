"""Measurement: how much held-out text an update measures, and how.

In: the live model, domains and targets. Out: the `InfluenceMatrix` of the next held-out rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
from torch import nn

from tikmix_hf.collate import PackedCollator
from tikmix_hf.domains import Domains
from tikmix_hf.heldout import Collator, HeldoutBatches
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Settings of a measurement.

    Raises:
        ValueError: names the setting, its value and the mend.
    """

    preconditioner: str = "sign"
    """Stand-in for the inverse Hessian, one of `preconditioners.available()`."""
    damping: float = 0.1
    """Of the Adam preconditioners, relative to mean(sqrt(v))."""
    num_rows: int = 64
    """Held-out rows of each domain and of each target."""
    batch_size: int | None = None
    """Rows in a batch; None takes the training's."""
    collate: Collator = field(default_factory=PackedCollator)
    """Collates measured rows."""
    seed: int = 0
    """Decides which held-out rows each update reads."""
    progress: bool = False
    """Whether to show a bar."""

    def __post_init__(self) -> None:
        preconditioners.load(self.preconditioner)
        check_count("num_rows", self.num_rows)
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        if not 0 <= self.damping < float("inf"):
            raise ValueError(f"`damping` must be finite and not negative; got {self.damping}.")

    def measure(
        self,
        model: nn.Module,
        optimizer: Any,
        domains: Domains,
        targets: Mapping[str, datasets.Dataset],
        *,
        update: int,
        batch_size: int,
    ) -> InfluenceMatrix:
        """Measures the rows of one update; the same on every rank.

        Args:
            model: the live model, left as it was.
            optimizer: the live optimizer.
            domains: whose held-out rows are measured.
            targets: tokenised rows by name.
            update: how many updates came before.
            batch_size: rows in a batch where the settings name none.
        """
        settings: dict[str, Any] = {
            "update": update,
            "num_rows": self.num_rows,
            "batch_size": self.batch_size or batch_size,
            "collate": self.collate,
            "seed": self.seed,
        }
        influence = GroupInfluence(
            model, preconditioner=self.preconditioner, optimizer=optimizer, damping=self.damping
        )
        return influence.measure(
            {d.name: HeldoutBatches(d.heldout, d.name, **settings) for d in domains},
            {name: HeldoutBatches(rows, name, **settings) for name, rows in targets.items()},
            progress=self.progress,
        )


def check_count(argument: str, value: Any) -> None:
    """Refuses what is no whole number from 1 on (ValueError)."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{argument}` must be whole and at least 1; got {value!r}.")
