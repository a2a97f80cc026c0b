"""Supply: the tokens that a run has, has read, and is still to read.

In go counts by domain; out comes how large a share of the tokens to come a domain can give before
its rows were gone through a number of times.
"""

# Shape letters: K domains.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class Supply(NamedTuple):
    """Tokens of every domain, seen from the sample that a new mixture would start at."""

    prior: Array
    """(K,) the natural mixture."""
    tokens: Array
    """(K,) training tokens that there are."""
    seen: Array
    """(K,) tokens that training has read by then, repeats included."""
    left: float
    """Tokens that training reads from then to its end."""

    def largest_shares(self, max_epochs: ArrayLike) -> Array:
        """(K,) the shares at which the rest of the run ends after `max_epochs` of each domain.

        Example:
            100 of 300 tokens are read; three epochs of 100 tokens would be 200 more, of 400 left.

            >>> supply = Supply(np.ones(1), np.array([100.0]), np.array([100.0]), 400.0)
            >>> supply.largest_shares(3).tolist()
            [0.5]
        """
        room_K = np.asarray(max_epochs, dtype=np.float64) * self.tokens - self.seen
        return np.clip(room_K / max(self.left, 1.0), 0.0, 1.0)
