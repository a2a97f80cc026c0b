"""PackedCollator: batches that are ready pass through; rows of unequal length are padded.

In: rows of an `InterleavedDomainDataset`, or any list of dicts of 1-d integer tensors or lists.
Out: dict of (B, T) int64 tensors `input_ids`, `labels`, `attention_mask` (only where rows were
padded or brought one). With `remove_unused_columns=False` the Trainer hands a ready batch over
untouched and nothing is copied; otherwise rows arrive one by one and are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tikmix_hf.ready_batch import ReadyBatch

IGNORED = -100  # labels that no loss counts


class PackedBatch(dict[str, torch.Tensor]):
    """A batch that leaves a worker in one small piece.

    Sent tensor by tensor, each crosses in a shared-memory file of its own, which costs more than
    the tokens in it. So the batch is pickled as 32-bit integers, and labels that are the tokens
    themselves are not sent at all.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: value for name, value in self.items() if not self._is_the_tokens(name)}
        if any(value.max() > _INT32.max or value.min() < _INT32.min for value in kept.values()):
            return PackedBatch, (dict(self),)
        arrays = {name: value.to(torch.int32).numpy() for name, value in kept.items()}
        return _unpack, (arrays, tuple(self))

    def _is_the_tokens(self, name: str) -> bool:
        return name == "labels" and self["labels"] is self["input_ids"]


_INT32 = torch.iinfo(torch.int32)


def _unpack(arrays: dict[str, NDArray[np.int32]], names: tuple[str, ...]) -> PackedBatch:
    """The inverse of `PackedBatch.__reduce__`."""
    batch = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    return PackedBatch(
        {name: batch[name] if name in batch else batch["input_ids"] for name in names}
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedCollator:
    """Collator for packed blocks and for examples.

    Args:
        pad_token_id: fills `input_ids` of shorter rows; masked and without label, so any id will
            do.
    """

    pad_token_id: int = 0

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Returns the batch, columns (B, T) with T the longest row."""
        if isinstance(rows, ReadyBatch):
            return PackedBatch(rows.tensors)
        columns = {
            name: [torch.as_tensor(row[name], dtype=torch.int64) for row in rows]
            for name in rows[0]
        }
        columns.setdefault("labels", columns["input_ids"])
        if len({len(row) for row in columns["input_ids"]}) > 1:
            columns.setdefault(
                "attention_mask", [torch.ones_like(row) for row in columns["input_ids"]]
            )
        fills = {"input_ids": self.pad_token_id, "labels": IGNORED}
        return {
            name: torch.nn.utils.rnn.pad_sequence(
                tensors, batch_first=True, padding_value=fills.get(name, 0)
            )
            for name, tensors in columns.items()
        }
