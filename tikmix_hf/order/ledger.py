"""Ledger: the mixtures of a run in memory that the DataLoader's workers share.

In: integer shares and the sample they start at. Out: for any sample, its segment. The process that
trains appends; workers, forked or spawned, read the same memory, so a change reaches them without a
message. That is safe because a change is only ever announced for samples that nobody has asked for
yet.

All rows are made when the ledger is: memory that is shared cannot grow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tikmix_hf.order.quota import TOTAL, QuotaTree

# Shape letters: S segments, K domains.

_NUM_SEGMENTS, _EPOCH, _GENERATION, _HIGH_WATER = range(4)
_MAX_WORKERS = 256
_NUM_CACHED_TREES = 8  # training reads one or two; a look-back over all would keep thousands


class Ledger:
    """Segments of a run: where each starts, its shares, and what was served and owed by then.

    Args:
        num_domains: K.
        max_segments: rows to reserve; 24 * K bytes each.
    """

    def __init__(self, num_domains: int, *, max_segments: int) -> None:
        shapes = ((_HIGH_WATER + _MAX_WORKERS,), (max_segments,), (max_segments, 3, num_domains))
        self._shared = [torch.zeros(shape, dtype=torch.int64).share_memory_() for shape in shapes]
        self._open()

    def _open(self) -> None:
        """Views of the shared memory; NumPy reads single numbers ten times faster than torch."""
        self._header, self._starts, self._table = (tensor.numpy() for tensor in self._shared)
        self._trees: dict[int, QuotaTree] = {}
        self._trees_generation = self.generation

    def __getstate__(self) -> dict[str, Any]:
        return {"_shared": self._shared}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return int(self._header[_NUM_SEGMENTS])

    @property
    def max_segments(self) -> int:
        """Segments that fit."""
        return len(self._starts)

    @property
    def epoch(self) -> int:
        """Epoch of the Trainer: how often the dataset's length has been run through."""
        return int(self._header[_EPOCH])

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._header[_EPOCH] = epoch

    @property
    def generation(self) -> int:
        """Grows when segments are taken back; whoever cached anything of them starts anew."""
        return int(self._header[_GENERATION])

    @property
    def high_water(self) -> int:
        """First sample that no loader has asked for yet, over all workers of this rank."""
        return int(self._header[_HIGH_WATER:].max())

    def note_served(self, sample: int, *, worker: int) -> None:
        """Records that a loader asked for `sample`; each worker has a place of its own."""
        place = _HIGH_WATER + worker % _MAX_WORKERS
        if sample >= int(self._header[place]):
            self._header[place] = sample + 1

    def clear(self) -> None:
        """Forgets all segments and what was served."""
        self._header[_NUM_SEGMENTS] = 0
        self._header[_EPOCH] = 0
        self._header[_GENERATION] += 1
        self._header[_HIGH_WATER:] = 0

    def append(self, from_sample: int, shares_K: NDArray[np.int64]) -> None:
        """Adds a segment; the one before ends there, and its counts and debts are carried over."""
        index = len(self)
        assert int(shares_K.sum()) == TOTAL
        counts_K, debts_K = np.zeros((2, len(shares_K)), dtype=np.int64)
        if index:
            length = from_sample - self.start(index - 1)
            served_K = self.tree(index - 1).counts(length)
            counts_K = self.counts(index - 1) + served_K
            # Python's integers: length * share may pass 2^63, what is left of it may not.
            debts_K = np.array(
                [
                    debt + length * int(share) - int(served) * TOTAL
                    for debt, share, served in zip(
                        self._row(index - 1, 2).tolist(),
                        self._row(index - 1, 0).tolist(),
                        served_K,
                        strict=True,
                    )
                ],
                dtype=np.int64,
            )
        self._starts[index] = from_sample
        self._table[index] = shares_K, counts_K, debts_K
        self._header[_NUM_SEGMENTS] = index + 1  # last: readers see whole rows only

    def segment_at(self, sample: int) -> int:
        """Returns the index of the segment that a sample belongs to."""
        return int(self._starts[: len(self)].searchsorted(sample, side="right")) - 1

    def start(self, index: int) -> int:
        """Returns the first sample of a segment."""
        return int(self._starts[index])

    def counts(self, index: int) -> NDArray[np.int64]:
        """Returns the samples of each domain before a segment, (K,)."""
        return self._row(index, 1)

    def tree(self, index: int) -> QuotaTree:
        """Returns the order of the domains in a segment."""
        if self._trees_generation != self.generation:
            self._trees, self._trees_generation = {}, self.generation
        if index not in self._trees:
            while len(self._trees) >= _NUM_CACHED_TREES:
                del self._trees[next(iter(self._trees))]
            self._trees[index] = QuotaTree(
                self._row(index, 0).tolist(), self._row(index, 2).tolist()
            )
        return self._trees[index]

    def _row(self, index: int, column: int) -> NDArray[np.int64]:
        return self._table[index, column].copy()
