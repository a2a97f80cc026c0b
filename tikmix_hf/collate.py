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

import torch

from tikmix_hf.dataset import ReadyBatch

IGNORED = -100  # labels that no loss counts


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
        if isinstance(rows, ReadyBatch) and rows.tensors is not None:
            return dict(rows.tensors)
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
