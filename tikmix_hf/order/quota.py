"""Which domain gets the n-th sample of a segment, by quota instead of dice.

In: the domains' integer shares (their sum is `TOTAL`) and the debts that earlier segments left.
Out: for any n, by random access, the domain of sample n and how many samples of that domain came
before it.

A binary tree halves the counting: the leaves are the domains, and of the first `m` samples that
reach a node with children of weight `a` and `b`, the left child has received

    left(m) = floor((m * a + offset) / (a + b)),        0 <= offset < a + b,

which grows by 0 or 1 when m grows by 1, and sums exactly. So each n leads to one leaf, counts never
go negative, and a look-up costs the depth of the tree. With `offset = (a + b) / 2` a split is
within 1/2 of its share. On a Huffman tree an ancestor's weight doubles at least every second level,
so the errors that a leaf inherits form a convergent series: less than 1.7 in all.

Segments may be short (a share of 1e-4 is due once in ten segments of 1,000 samples), so the offsets
carry what each domain is still owed; where a leaf could then be more than `MAX_DEVIATION` from its
share in some prefix, the offsets on its path are pulled back, and the rest of the debt waits for
the next segment. Weights are integers and all divisions are exact: 10^12 samples are as exact as
ten.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TOTAL = 1 << 31  # shares are multiples of 4.7e-10; products of two shares fit in 64 bits
MAX_DEVIATION = 2.0  # samples, in every prefix of a segment


class _Split(NamedTuple):
    """An inner node: of `weight` samples in the long run, `left_weight` go left."""

    left: int
    right: int
    weight: int
    left_weight: int
    offset: int

    def count_left(self, num_samples: int) -> int:
        """Returns how many of the first `num_samples` samples of this node go left."""
        return (num_samples * self.left_weight + self.offset) // self.weight


class QuotaTree:
    """The order of the domains in one segment.

    Args:
        shares: (K,) integers that sum to `TOTAL`; a share of 0 is never served.
        debts: (K,) what each domain is owed from before, in 1 / `TOTAL` samples; sums to 0.

    Example:
        >>> tree = QuotaTree([TOTAL // 4, 3 * (TOTAL // 4)])
        >>> [tree.locate(n)[0] for n in range(8)]
        [1, 0, 1, 1, 1, 0, 1, 1]
    """

    def __init__(self, shares: Sequence[int], debts: Sequence[int] | None = None) -> None:
        assert sum(shares) == TOTAL
        assert min(shares) >= 0
        self.num_domains = len(shares)
        self._splits, self._root = _huffman([int(share) for share in shares])
        if debts is not None and any(debts):
            self._carry([int(debt) for debt in debts])

    def locate(self, sample: int) -> tuple[int, int]:
        """Returns the domain of a sample, and how many samples of that domain came before."""
        node, count = self._root, sample
        while node >= self.num_domains:
            split = self._splits[node]
            before, after = split.count_left(count), split.count_left(count + 1)
            node, count = (split.left, before) if after > before else (split.right, count - before)
        return node, count

    def counts(self, num_samples: int) -> NDArray[np.int64]:
        """Returns how many of the first `num_samples` samples each domain gets, shape (K,)."""
        counts_K = np.zeros(self.num_domains, dtype=np.int64)
        pending = [(self._root, num_samples)]
        while pending:
            node, count = pending.pop()
            if node < self.num_domains:
                counts_K[node] = count
            else:
                split = self._splits[node]
                left = split.count_left(count)
                pending += [(split.left, left), (split.right, count - left)]
        return counts_K

    def block(self, start: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns `locate` of samples `start ... start + length - 1`, as two arrays."""
        domains_N = np.empty(length, dtype=np.int64)
        counts_N = np.empty(length, dtype=np.int64)
        pending = [(self._root, np.arange(length), start)]
        while pending:
            node, places, count = pending.pop()
            if not places.size:
                continue
            if node < self.num_domains:
                domains_N[places] = node
                counts_N[places] = np.arange(count, count + places.size)
                continue
            split = self._splits[node]
            # The large product is taken once, in Python's integers; the rest stays below 2^63.
            before, remainder = divmod(count * split.left_weight + split.offset, split.weight)
            steps = np.arange(places.size + 1, dtype=np.int64)
            goes_left = np.diff((remainder + steps * split.left_weight) // split.weight) > 0
            pending.append((split.left, places[goes_left], before))
            pending.append((split.right, places[~goes_left], count - before))
        return domains_N, counts_N

    def _carry(self, debts: list[int]) -> None:
        """Shifts every split's offset by what its children are owed."""
        owed = dict(enumerate(debts))
        for node, split in self._splits.items():  # children come before their parents
            left, right = owed[split.left], owed[split.right]
            owed[node] = left + right
            right_weight = split.weight - split.left_weight
            shift = (right_weight * left - split.left_weight * right) // TOTAL
            offset = min(max(split.offset + shift, 0), split.weight - 1)
            self._splits[node] = split._replace(offset=offset)
        self._bound_deviation()

    def _bound_deviation(self) -> None:
        """Pulls offsets back to the middle where a leaf could leave `MAX_DEVIATION`.

        A split errs by at most 1/2 + |shift|, and a leaf inherits the error of a child on its path
        in proportion to its share of that child. The splits farther up yield first: the last one is
        what serves a tiny domain that is owed a sample.
        """
        pending = [(self._root, [])]
        while pending:
            node, path = pending.pop()  # path: (split's node, weight of the child taken)
            if node >= self.num_domains:
                split = self._splits[node]
                right_weight = split.weight - split.left_weight
                pending.append((split.left, [*path, (node, split.left_weight)]))
                pending.append((split.right, [*path, (node, right_weight)]))
            elif path:
                parts = [(parent, path[-1][1] / weight) for parent, weight in path]
                excess = sum(part * (0.5 + self._shift(parent)) for parent, part in parts)
                excess -= MAX_DEVIATION
                for parent, part in parts:
                    if excess > 0 and self._shift(parent) > 0:
                        yielded = min(1.0, excess / (part * self._shift(parent)))
                        excess -= part * self._shift(parent) * yielded
                        self._pull(parent, yielded)

    def _shift(self, node: int) -> float:
        """How far the offset of a split is from the middle, as a fraction of its weight."""
        split = self._splits[node]
        return abs(split.offset - split.weight // 2) / split.weight

    def _pull(self, node: int, fraction: float) -> None:
        """Moves the offset of a split towards the middle by a fraction of its distance."""
        split = self._splits[node]
        middle = split.weight // 2
        offset = middle + int((split.offset - middle) * (1.0 - fraction))
        self._splits[node] = split._replace(offset=offset)


def _huffman(shares: list[int]) -> tuple[dict[int, _Split], int]:
    """Returns the inner nodes, children before parents, and the root; ties go by position."""
    heap = [(share, domain) for domain, share in enumerate(shares) if share > 0]
    heapq.heapify(heap)
    splits: dict[int, _Split] = {}
    node = len(shares)
    while len(heap) > 1:
        (left_weight, left), (right_weight, right) = heapq.heappop(heap), heapq.heappop(heap)
        weight = left_weight + right_weight
        splits[node] = _Split(left, right, weight, left_weight, offset=weight // 2)
        heapq.heappush(heap, (weight, node))
        node += 1
    return splits, heap[0][1]
