"""schedule.json while a run goes on: when it is written, and what happens beyond its limits."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf.schedule import MixtureSchedule, Segment, format
from tikmix_hf.updates.schedule_file import ScheduleFile


def schedule(num_segments: int) -> MixtureSchedule:
    mixture = np.array([0.25, 0.75])
    segments = (Segment(from_sample=n, mixture=mixture) for n in range(num_segments))
    return MixtureSchedule(("web", "code"), tuple(segments))


def test_early_changes_are_each_written_and_later_ones_now_and_then(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(MixtureSchedule, "save", lambda own, _: written.append(len(own.segments)))
    file = ScheduleFile(tmp_path, is_writer=True)
    for number in range(1, 311):
        file.update(schedule(number))
    every_second, every_third = range(100, 200, 2), range(201, 300, 3)
    assert written == [*range(1, 100), *every_second, *every_third, 300, 304, 308]


def test_who_does_not_write_leaves_nothing(tmp_path):
    ScheduleFile(tmp_path, is_writer=False).write(schedule(1))
    assert not any(tmp_path.iterdir())


def test_beyond_what_a_file_may_hold_the_last_one_stays(tmp_path, monkeypatch, caplog):
    file = ScheduleFile(tmp_path, is_writer=True)
    file.write(schedule(3))
    monkeypatch.setattr(format, "MAX_VALUES", 9)
    file.write(schedule(5))
    file.write(schedule(6))
    assert len(MixtureSchedule.load(tmp_path / "schedule.json").segments) == 3
    (said,) = caplog.messages
    assert said.startswith("schedule.json stays as it was last written: A schedule's file has at")


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_domain_without_a_share_is_left_out_of_the_file(share):
    segment = Segment(from_sample=0, mixture=np.array([share, 1 - share]))
    own = MixtureSchedule(("web", "code"), (segment,))
    assert len(own.to_dict()["segments"][0]["mixture"]) == 1
    assert MixtureSchedule.from_dict(own.to_dict()) == own
