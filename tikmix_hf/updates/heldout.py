"""HeldoutBatches: the rows that an update measures, as batches made when they are asked for.

In: tokenised rows of one domain or target. Out: a sequence of collated batches. Update u reads the
next rows of a keyed permutation, each of its rounds a piece of them, so updates and rounds see
fresh text until all rows were seen once, and every rank can make any batch without talking to the
others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from tikmix_hf.collate import IGNORED
from tikmix_hf.order.permutation import RowPermutation, derive_key
from tikmix_hf.rows import check_rows

Collator = Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]


def check_targets(targets: Any) -> None:
    """Refuses targets that cannot be measured.

    Raises:
        ValueError: no mapping, empty, or rows with missing or unknown columns.
        TypeError: an entry is no `datasets.Dataset`.
    """
    if not isinstance(targets, Mapping) or not targets:
        raise ValueError(
            "`targets` must map names to tokenised datasets, at least one, such as "
            f"{{'arc': arc_train}}; got {targets!r}."
        )
    for name, rows in targets.items():
        check_rows(rows, f"`targets[{name!r}]`")


class Portion(NamedTuple):
    """Which rows of a part are meant: one round of one update."""

    update: int
    """How many updates came before."""
    num_rows: int
    """Rows an update measures; all of the part if it has fewer."""
    round: int = 0
    """How many rounds of this update came before."""
    num_rounds: int = 1
    """Rounds an update is planned to have."""

    def served(self, available: int) -> NDArray[np.int64]:
        """Places in the endless sequence of a part's rows, epoch after epoch.

        Args:
            available: rows that the part has.
        """
        num_rows = min(self.num_rows, available)
        start, stop = (
            self.update * num_rows + num_rows * number // self.num_rounds
            for number in (self.round, self.round + 1)
        )
        return np.arange(start, stop, dtype=np.int64)


def in_batches(
    parts: Mapping[str, Dataset],
    portion: Portion,
    *,
    most_rows: int,
    least_batches: int,
    collate: Collator,
    seed: int,
) -> dict[str, HeldoutBatches]:
    """A portion of every part, by name.

    Args:
        parts: tokenised rows by name.
        portion: which of them.
        most_rows: rows in a batch, at most.
        least_batches: batches of each part, where it has rows enough; a standard error takes two.
        collate: turns a list of rows into a batch.
        seed: part of the key of the order.
    """
    return {
        name: HeldoutBatches(
            rows,
            name,
            portion=portion,
            batch_size=min(most_rows, max(1, len(portion.served(len(rows))) // least_batches)),
            collate=collate,
            seed=seed,
        )
        for name, rows in parts.items()
    }


class HeldoutBatches(Sequence[Mapping[str, torch.Tensor]]):
    """Batches of one domain or target for one update.

    Args:
        rows: tokenised rows.
        name: of the domain or target; part of the key of the order.
        portion: which of them.
        batch_size: rows in a batch.
        collate: turns a list of rows into a batch.
        seed: part of the key of the order.
    """

    def __init__(
        self,
        rows: Dataset,
        name: str,
        *,
        portion: Portion,
        batch_size: int,
        collate: Collator,
        seed: int,
    ) -> None:
        self._rows, self._batch_size, self._collate = rows, batch_size, collate
        epochs, positions = np.divmod(portion.served(len(rows)), len(rows))
        order = RowPermutation(len(rows), key=derive_key(seed, "heldout", name))
        self._order = order.rows(positions, epochs).tolist()

    def __len__(self) -> int:
        return -(-len(self._order) // self._batch_size)

    def __getitem__(self, index: int) -> Mapping[str, torch.Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        start = index * self._batch_size
        columns = self._rows[self._order[start : start + self._batch_size]]
        rows = [
            dict(zip(columns, map(torch.as_tensor, row), strict=True))
            for row in zip(*columns.values(), strict=True)
        ]
        batch = dict(self._collate(rows))
        if "labels" not in batch:
            labels = batch["input_ids"].clone()
            if "attention_mask" in batch:
                labels[batch["attention_mask"] == 0] = IGNORED
            batch["labels"] = labels
        return batch
