"""Clock: seconds of training and of updates in this process; logged, never decided upon.

In: when an update begins and ends, and how many tokens were trained on by then. Out: what updates
take, and what they would take if a token cost what it costs in training.
"""

from __future__ import annotations

import time


class Clock:
    """Starts when it is made.

    Args:
        trained_tokens: trained on before, by another process.
    """

    def __init__(self, trained_tokens: int) -> None:
        self._began = self._started = time.perf_counter()
        self._in_updates = 0.0
        self._first_token = self._last_token = trained_tokens

    def begin_update(self, trained_tokens: int) -> None:
        """Training stands at so many tokens, and waits from here on."""
        self._started, self._last_token = time.perf_counter(), trained_tokens
        self._training = self._started - self._began - self._in_updates

    def end_update(self) -> float:
        """Seconds of the update that ends."""
        seconds = time.perf_counter() - self._started
        self._in_updates += seconds
        return seconds

    def add_to_updates(self, seconds: float) -> None:
        """Books what an update took before it began, such as reading the losses of its probes."""
        self._in_updates += seconds

    def planned(self, num_tokens: float) -> float | None:
        """Seconds that training would take for so many tokens; None before it read any."""
        read = self._last_token - self._first_token
        return self._training / read * num_tokens if read else None

    @property
    def time_share(self) -> float:
        """Of all updates in the time since training began."""
        return self._in_updates / (time.perf_counter() - self._began)
