"""ArrowRows: rows of tokens read straight from Arrow memory, as views.

In: the training rows of the domains (columns of integer lists). Out: for (domain, row) pairs, one
NumPy view per row and column, without a copy where Arrow holds plain values (memory-mapped files
stay on disk until read). Datasets pickle by their path, views by their content: so a copy of this
object that crosses a process boundary opens its views anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import NDArray


class _Chunk:
    """The rows of one Arrow chunk of one column: `chunk[i]` is a view of row i."""

    def __init__(self, column: Any) -> None:
        if pa.types.is_fixed_size_list(column.type):
            width = column.type.list_size
            self._offsets = np.arange(len(column) + 1) * width
        else:
            offsets = column.offsets.to_numpy()
            self._offsets = offsets - offsets[0]
        values = column.flatten()
        copies = pa.types.is_boolean(values.type)  # bits, not bytes: Arrow has no plain values
        self._values = values.to_numpy(zero_copy_only=not copies)

    def __getitem__(self, row: int) -> NDArray[Any]:
        return self._values[self._offsets[row] : self._offsets[row + 1]]

    def views(self) -> NDArray[Any] | _Chunk:
        """Returns what to index by row: a matrix if all rows are equally long, else self."""
        lengths = np.diff(self._offsets)
        if len(lengths) and (lengths == lengths[0]).all():
            return self._values.reshape(len(lengths), lengths[0])
        return self


class ArrowRows:
    """Random access to the rows of several datasets with the same columns.

    Args:
        datasets: one per domain, without an indices mapping.
    """

    def __init__(self, datasets: list[Dataset]) -> None:
        self._datasets = datasets
        self.columns = tuple(datasets[0].column_names)
        self._open()

    def _open(self) -> None:
        self._chunks: dict[str, list[NDArray[Any] | _Chunk]] = {name: [] for name in self.columns}
        self._starts: list[NDArray[np.int64]] = []  # first row of each chunk, per domain
        self._first_chunk: list[int] = []  # of each domain
        for dataset in self._datasets:
            # Cut where any column's chunks end, without a copy.
            batches = [batch for batch in dataset.data.table.to_batches() if len(batch)]
            self._first_chunk.append(len(self._chunks[self.columns[0]]))
            sizes = [len(batch) for batch in batches]
            self._starts.append(np.concatenate([[0], np.cumsum(sizes)])[:-1])
            for name in self.columns:
                self._chunks[name] += [_Chunk(batch.column(name)).views() for batch in batches]

    def __getstate__(self) -> dict[str, Any]:
        return {"_datasets": self._datasets, "columns": self.columns}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def addresses(
        self, domains_N: NDArray[np.int64], rows_N: NDArray[np.int64]
    ) -> tuple[list[int], list[int]]:
        """Returns for each pair the chunk and the row in it, which `views` takes."""
        chunks_N = np.empty_like(rows_N)
        within_N = np.empty_like(rows_N)
        for domain in np.unique(domains_N):
            mine = domains_N == domain
            chunk = np.searchsorted(self._starts[domain], rows_N[mine], side="right") - 1
            chunks_N[mine] = chunk + self._first_chunk[domain]
            within_N[mine] = rows_N[mine] - self._starts[domain][chunk]
        return chunks_N.tolist(), within_N.tolist()

    def views(self, column: str, chunks: list[int], within: list[int]) -> list[NDArray[Any]]:
        """Returns one view per address: the tokens of that row."""
        table = self._chunks[column]
        return [table[chunk][row] for chunk, row in zip(chunks, within, strict=True)]
