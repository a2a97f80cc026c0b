"""Keyed permutations of the rows of a domain, one per epoch, without storing any of them.

In: a key (seed and domain name), an epoch and positions in `[0, num_rows)`. Out: the rows at those
positions, a bijection for every (key, epoch), by random access and in O(1) memory.

The construction is a Feistel network on a grid `[a] x [b]` with `a * b >= num_rows`: each round
adds a keyed hash of one coordinate to the other, modulo its side, which is invertible whatever the
hash (Luby and Rackoff 1988; Black and Rogaway 2002 for arbitrary domains). The few grid points past
`num_rows` are walked along their cycle until they fall inside.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

_NUM_ROUNDS = 6  # pairs of half rounds: four leave the orders of 3 to 5 rows visibly unequal
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive_key(*parts: object) -> int:
    """Returns a 64-bit key that depends on every part (and not on the process or machine)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijective 64-bit hash."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class RowPermutation:
    """The order in which a domain's rows are served, epoch after epoch.

    Args:
        num_rows: rows in the domain, at least 1.
        key: 64-bit key; another key gives unrelated orders.

    Example:
        >>> sorted(RowPermutation(5, key=1).rows(np.arange(5), epoch=np.zeros(5, dtype=np.int64)))
        [0, 1, 2, 3, 4]
    """

    def __init__(self, num_rows: int, *, key: int) -> None:
        assert num_rows >= 1
        self.num_rows = num_rows
        self._key = np.uint64(key)
        self._height = np.uint64(math.isqrt(num_rows - 1) + 1)
        self._width = np.uint64(-(-num_rows // int(self._height)))

    def rows(self, position: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the row at each position of each epoch; both arguments have the shape (N,)."""
        # Unsigned arithmetic on arrays wraps around silently, which is what a hash wants.
        keys_N = _mix(self._key + (epoch.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        values = self._shuffle(position.astype(np.uint64), keys_N)
        outside = np.flatnonzero(values >= np.uint64(self.num_rows))
        while outside.size:
            values[outside] = self._shuffle(values[outside], keys_N[outside])
            outside = outside[values[outside] >= np.uint64(self.num_rows)]
        return values.astype(np.int64)

    def _shuffle(
        self, values: NDArray[np.uint64], keys_N: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """One pass over the grid: a bijection of `[0, height * width)` for every key."""
        y, x = values // self._width, values % self._width
        for _ in range(_NUM_ROUNDS):
            keys_N = _mix(keys_N + _GOLDEN)
            x = (x + _mix(y ^ keys_N) % self._width) % self._width
            y = (y + _mix(x + keys_N) % self._height) % self._height
        return y * self._width + x
