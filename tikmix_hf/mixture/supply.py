"""Supply: the tokens that a run has and has read, and the samples that it is still to read.

In go counts by domain; out comes how much of the rest of the run a domain can give before its rows
were gone through a number of times. A mixture's shares w are shares of tokens, a run's length is
counted in samples, and a sample is one row. With r_k tokens in a mean row of domain k, its *part*
of the samples is

    p_k = (w_k / r_k) / sum_i (w_i / r_i),

and p_k <= c, times the sum, is linear in w. Where all rows are equally long, parts are shares.
"""

# Shape letters: K domains.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixture.simplex import normalise

Array = NDArray[np.float64]


class Supply(NamedTuple):
    """What every domain holds, seen from the sample that a new mixture would start at."""

    prior: Array
    """(K,) the natural mixture."""
    tokens: Array
    """(K,) training tokens that there are."""
    seen: Array
    """(K,) tokens that training has read by then, repeats included."""
    left: float
    """Samples that training reads from then to its end."""
    row_tokens: Array
    """(K,) mean tokens of a domain's rows, above 0."""

    def largest_parts(self, max_epochs: ArrayLike) -> Array:
        """(K,) the parts of the samples at which the run ends after `max_epochs` of each domain.

        Example:
            100 of 300 tokens are read; three epochs of 100 tokens would be 200 more. In rows of 5
            tokens these are 40 of the 80 samples left.

            >>> one = np.ones(1)
            >>> Supply(one, 100 * one, 100 * one, 80.0, 5 * one).largest_parts(3).tolist()
            [0.5]
        """
        room_K = np.asarray(max_epochs, dtype=np.float64) * self.tokens - self.seen
        return np.clip(room_K / self.row_tokens / max(self.left, 1.0), 0.0, 1.0)

    def as_shares(self, parts: ArrayLike) -> Array:
        """(K,) the mixture whose samples come from the domains in these parts, read-only."""
        return normalise(np.asarray(parts, dtype=np.float64) * self.row_tokens)

    def part_row(self, domain: int, most: float) -> Array:
        """(K,) a row with row @ w >= -most for just the mixtures that give a domain's part.

        From w_k <= most * sum_i (r_k / r_i) w_i, less most * sum_i w_i = most on both sides.

        Args:
            domain: The domain's position k.
            most: The largest part of the samples that it may give.

        Example:
            Half of the samples from rows of 30 tokens, half from rows of 10: 3/4 of the tokens.

            >>> supply = Supply(*np.ones((3, 2)), 80.0, np.array([30.0, 10.0]))
            >>> supply.part_row(0, 0.5).tolist()
            [-1.0, 1.0]
            >>> float(supply.part_row(0, 0.5) @ [0.75, 0.25])
            -0.5
        """
        row_K = most * (self.row_tokens[domain] / self.row_tokens - 1)
        row_K[domain] = -1.0
        return row_K
