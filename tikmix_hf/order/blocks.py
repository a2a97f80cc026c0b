"""Blocks: where samples are found, worked out some thousands at a time.

In: the ledger of a run's mixtures, a permutation of each domain's rows. Out: for any sample its
domain, its row in this epoch over the domain's rows, and where that row lies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.order.ledger import Ledger
from tikmix_hf.order.permutation import RowPermutation

# Shape letters: K domains, N samples.

BLOCK_SIZE = 8192
"""Samples whose domains and rows are worked out at once."""
_NUM_CACHED_BLOCKS = 4

Addresses = Callable[[NDArray[np.int64], NDArray[np.int64]], tuple[list[int], list[int]]]


class Block(NamedTuple):
    """Where samples `start ... stop - 1` are found."""

    start: int
    stop: int
    domains: NDArray[np.int64]
    rows: NDArray[np.int64]
    chunks: list[int]
    within: list[int]


class Blocks:
    """The blocks of a run, the last few of them kept.

    Args:
        ledger: the mixtures.
        permutations: of each domain's rows, K of them.
        addresses: tells the chunks, and the places within them, of rows (N,) of domains (N,).
    """

    def __init__(
        self, ledger: Ledger, permutations: Sequence[RowPermutation], addresses: Addresses
    ) -> None:
        self._ledger, self._permutations, self._addresses = ledger, permutations, addresses
        self._num_rows_K = np.array([own.num_rows for own in permutations], dtype=np.int64)
        self._blocks: OrderedDict[tuple[int, int, int], Block] = OrderedDict()

    def runs(self, samples: list[int]) -> list[tuple[Block, int, int]]:
        """Cuts a list of ordinals into runs (block, start, stop) that one block covers each."""
        runs: list[tuple[Block, int, int]] = []
        start = 0
        while start < len(samples):
            block = self.at(samples[start])
            stop = start + 1
            while stop < len(samples) and block.start <= samples[stop] < block.stop:
                stop += 1
            runs.append((block, start, stop))
            start = stop
        return runs

    def at(self, sample: int) -> Block:
        """Returns the block that a sample is in, from the cache or worked out."""
        ledger = self._ledger
        segment = ledger.segment_at(sample)
        number = (sample - ledger.start(segment)) // BLOCK_SIZE
        key = (ledger.generation, segment, number)
        # A later segment may have cut this one short: its samples are the later one's now.
        ends = ledger.start(segment + 1) if segment + 1 < len(ledger) else None
        block = self._blocks.get(key)
        if block is None:
            block = self._work_out(segment, number)
            self._blocks[key] = block
            if len(self._blocks) > _NUM_CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        if ends is not None and ends < block.stop:
            return block._replace(stop=ends)
        return block

    def _work_out(self, segment: int, number: int) -> Block:
        first = number * BLOCK_SIZE
        domains_N, counts_N = self._ledger.tree(segment).block(first, BLOCK_SIZE)
        counts_N += self._ledger.counts(segment)[domains_N]
        epochs_N, positions_N = np.divmod(counts_N, self._num_rows_K[domains_N])
        rows_N = np.empty_like(counts_N)
        for domain in np.unique(domains_N):
            mine = domains_N == domain
            rows_N[mine] = self._permutations[domain].rows(positions_N[mine], epochs_N[mine])
        start = self._ledger.start(segment) + first
        chunks, within = self._addresses(domains_N, rows_N)
        return Block(start, start + BLOCK_SIZE, domains_N, rows_N, chunks, within)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_blocks": OrderedDict()}
