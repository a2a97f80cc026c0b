"""Costs: what each signal of an update took, in tokens and seconds.

In: names, tokens as they are read, blocks of code as they run. Out: the table that the log keeps.
A token that was only read forward counts as the third of a pass that it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Costs:
    """Adds up, by name; seconds are of this process."""

    def __init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def add(self, name: str, *, tokens: float = 0.0, seconds: float = 0.0) -> None:
        """Books tokens and seconds under a name."""
        self._tokens[name] = self._tokens.get(name, 0.0) + tokens
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Books the seconds of a block, also of one that fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, seconds=time.perf_counter() - started)

    @property
    def num_tokens(self) -> int:
        """All names together."""
        return round(sum(self._tokens.values()))

    @property
    def seconds(self) -> dict[str, float]:
        """By name."""
        return dict(self._seconds)

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Returns tokens and seconds by name."""
        return {
            name: {"tokens": round(tokens), "seconds": self._seconds[name]}
            for name, tokens in self._tokens.items()
        }
