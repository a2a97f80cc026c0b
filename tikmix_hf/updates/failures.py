"""Failures: what an update may fail of without taking training along.

In: blocks of code, one by one. Out: a note for the log of each that failed; training goes on with
the mixture in force, unless the user wants the failure raised.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tikmix_hf import distributed

logger = logging.getLogger(__name__)

# MixerError is a ValueError.
FORGIVEN = (ValueError, FloatingPointError, torch.OutOfMemoryError, distributed.OtherRankFailed)


class Failures:
    """Notes them.

    Args:
        mixer: its name, for the log.
        raises: whether a failure is raised.
    """

    def __init__(self, mixer: str, *, raises: bool) -> None:
        self._mixer, self._raises = mixer, raises

    @contextmanager
    def noted(self, step: int, what: str, notes: list[str]) -> Iterator[None]:
        """Adds a note if the block fails.

        Args:
            step: optimizer steps done.
            what: the note's first words.
            notes: of the update.
        """
        try:
            yield
        except FORGIVEN as err:
            if self._raises:
                raise
            notes.append(f"{what}: {err}")
            logger.warning("step %d, mixer %s: %s", step, self._mixer, notes[-1])
