"""ReadyBatch: the rows of a batch and the batch they are views of.

In: one view of Arrow memory per row and column. Out: a list of rows that any collator takes, and
for rows of equal length the (B, T) tensors that a collator can take instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# Shape letters: B samples of a batch, T tokens of a row.


class ReadyBatch(list[dict[str, torch.Tensor]]):
    """The rows of a batch, as any collator wants them, and the batch they are views of.

    `tensors` maps columns to (B, T) tensors; the rows, dicts of (T,) views, are made when somebody
    looks at them, which a collator that takes `tensors` never does.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def _fill(self) -> None:
        if not super().__len__():
            names = tuple(self.tensors)
            columns = (tensor.unbind(0) for tensor in self.tensors.values())
            self.extend(dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))

    def __len__(self) -> int:
        return len(self.tensors["input_ids"])

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        self._fill()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self._fill()
        return super().__getitem__(index)


def as_rows(columns: dict[str, list[NDArray[Any]]]) -> list[dict[str, torch.Tensor]]:
    """Copies views of unequal length into one int64 tensor each; labels are the collator's."""
    tensors = [
        [torch.from_numpy(view.astype(np.int64)) for view in views] for views in columns.values()
    ]
    return [dict(zip(columns, row, strict=True)) for row in zip(*tensors, strict=True)]


def as_batch(columns: dict[str, list[NDArray[Any]]]) -> ReadyBatch:
    """Gathers views of equal length into one (B, T) int64 tensor a column."""
    batch: dict[str, torch.Tensor] = {}
    for name, views in columns.items():
        gathered = np.empty((len(views), len(views[0])), dtype=np.int64)
        np.concatenate(views, out=gathered.reshape(-1), casting="same_kind")
        batch[name] = torch.from_numpy(gathered)
    # A block of text is its own target; the model shifts.
    batch.setdefault("labels", batch["input_ids"])
    return ReadyBatch(batch)
