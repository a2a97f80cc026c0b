"""schedule.json of a run while it trains.

In: the schedule as it grows. Out: the file, whole at every checkpoint and at the end. A file is
written from its beginning each time, so among very many updates only some write it: of the first
hundred each, then every second, every third ... What a run writes in all grows little faster than
its schedule.
"""

from __future__ import annotations

import logging
from pathlib import Path

from tikmix_hf.schedule import MixtureSchedule, ScheduleError

logger = logging.getLogger(__name__)

EACH = 100
"""Segments of which each writes the file."""


class ScheduleFile:
    """Writes a run's schedule.

    Args:
        folder: of the run.
        is_writer: whether this rank writes; others do nothing.
    """

    def __init__(self, folder: Path, *, is_writer: bool) -> None:
        self._path, self._is_writer = folder / "schedule.json", is_writer
        self._has_failed = False

    def update(self, schedule: MixtureSchedule) -> None:
        """Writes after a change of mixture, if it is this change's turn."""
        num_segments = len(schedule.segments)
        if num_segments % (num_segments // EACH + 1) == 0:
            self.write(schedule)

    def write(self, schedule: MixtureSchedule) -> None:
        """Writes now. Beyond what a file may hold, training goes on with the last one."""
        if not self._is_writer:
            return
        try:
            schedule.save(self._path)
        except ScheduleError as err:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("%s stays as it was last written: %s", self._path.name, err)
