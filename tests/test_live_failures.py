"""The live view where trackers fail, matplotlib is missing, or nobody looks."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
from tiny import make_arguments
from transformers import TrainerState

from tikmix_hf import live
from tikmix_hf.reporters import Reporters, _event_folder
from tikmix_hf.trackers import TensorBoard

IMAGE = "train/tikmix/update"


class _Records:
    """A tracker that remembers, and fails where it is told to."""

    def __init__(self, error=None):
        self.error, self.logged, self.closed = error, [], 0

    def log(self, scalars, images, step):
        if self.error:
            raise self.error
        self.logged.append((dict(scalars), dict(images), step))

    def close(self):
        self.closed += 1


@pytest.fixture
def trackers(monkeypatch):
    """What every `Reporters` opens, by name."""
    made = {}
    makers = lambda self, args: {name: lambda t=tracker: t for name, tracker in made.items()}  # noqa: E731
    monkeypatch.setattr(Reporters, "_makers", makers)
    return made


class _Record:
    """Stands for an `UpdateRecord`."""

    def scalars(self):
        return {"tikmix/change": 0.25}

    def to_dict(self):
        shares = {"a": 0.25, "b": 0.75}
        about = {"step": 3, "from_sample": None, "change": 0.0, "influence": None}
        return {**about, "mixture": shares, "proposed": shares}


def show(view, tmp_path, times=1, **state):
    arguments = make_arguments(tmp_path)
    state = TrainerState(global_step=3, **state)
    for _ in range(times):
        view.show(_Record(), arguments, state)
    view.close()


def test_a_tracker_that_fails_is_told_once_and_the_others_get_theirs(tmp_path, trackers, caplog):
    trackers |= {"down": _Records(OSError(28, "No space left on device")), "up": _Records()}
    show(live.LiveView(images=False), tmp_path, times=3)
    assert trackers["up"].logged == [({"train/tikmix/change": 0.25}, {}, 3)] * 3
    (line,) = caplog.messages
    assert "down could not be given the mixture and influence" in line
    assert "No space left on device" in line
    assert "influence.jsonl" in line
    assert trackers["down"].closed == trackers["up"].closed == 1


def test_a_tracker_without_an_open_run_is_told(tmp_path, monkeypatch, caplog):
    from tikmix_hf.trackers import Wandb

    module = type("wandb", (), {"run": None})
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.setattr(Reporters, "_makers", lambda self, args: {"W&B": Wandb})
    show(live.LiveView(images=False), tmp_path)
    assert "W&B could not be given the mixture and influence (RuntimeError: no run" in caplog.text


def test_only_rank_0_opens_anything(tmp_path, trackers, monkeypatch):
    trackers["up"] = _Records()
    monkeypatch.setattr(live, "plot_update", lambda line: pytest.fail("nobody looks at it"))
    show(live.LiveView(images=True), tmp_path, is_world_process_zero=False)
    assert not trackers["up"].logged


def test_nothing_is_drawn_for_nobody(tmp_path, trackers, monkeypatch):
    monkeypatch.setattr(live, "plot_update", lambda line: pytest.fail("nobody looks at it"))
    show(live.LiveView(images=True), tmp_path)


@pytest.mark.parametrize("images", [True, False])
def test_an_image_comes_with_the_numbers_unless_it_is_not_wanted(tmp_path, trackers, images):
    pytest.importorskip("matplotlib")
    trackers["up"] = _Records()
    show(live.LiveView(images=images), tmp_path)
    ((scalars, pictures, step),) = trackers["up"].logged
    assert (scalars, step) == ({"train/tikmix/change": 0.25}, 3)
    assert list(pictures) == ([IMAGE] if images else [])
    for picture_HW3 in pictures.values():
        assert picture_HW3.dtype == np.uint8
        assert picture_HW3.shape[2] == 3


def test_without_matplotlib_one_line_names_the_extra_and_numbers_come(
    tmp_path, trackers, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    trackers["up"] = _Records()
    show(live.LiveView(images=True), tmp_path, times=3)
    assert trackers["up"].logged == [({"train/tikmix/change": 0.25}, {}, 3)] * 3
    assert caplog.messages == [
        "Updates are shown without images: Plots need matplotlib: pip install tikmix-hf[recipes]"
    ]


def test_an_image_that_cannot_be_drawn_is_told_once_and_numbers_come(
    tmp_path, trackers, monkeypatch, caplog
):
    def fail(line):
        raise MemoryError("no room")

    monkeypatch.setattr(live, "plot_update", fail)
    trackers["up"] = _Records()
    show(live.LiveView(images=True), tmp_path, times=2)
    assert trackers["up"].logged == [({"train/tikmix/change": 0.25}, {}, 3)] * 2
    assert caplog.messages == ["Updates are shown without images: MemoryError: no room"]


def test_what_failed_in_one_training_is_tried_anew_in_the_next(
    tmp_path, trackers, monkeypatch, caplog
):
    pytest.importorskip("matplotlib")
    drawn = live.plot_update

    def fail(line):
        raise MemoryError("no room")

    view = live.LiveView(images=True)
    trackers["first"] = _Records()
    monkeypatch.setattr(live, "plot_update", fail)
    show(view, tmp_path)
    monkeypatch.setattr(live, "plot_update", drawn)
    first, trackers["second"] = trackers.pop("first"), _Records()
    show(view, tmp_path)
    assert [list(pictures) for _, pictures, _ in first.logged] == [[]]
    # Opened anew, and with an image again.
    assert [list(pictures) for _, pictures, _ in trackers["second"].logged] == [[IMAGE]]
    assert (first.closed, trackers["second"].closed) == (1, 1)


def test_the_events_go_to_the_folder_that_the_environment_names(tmp_path, monkeypatch):
    (tmp_path / "runs" / "old").mkdir(parents=True)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "chosen"))
    assert _event_folder(make_arguments(tmp_path)) == tmp_path / "chosen"


def test_the_events_go_to_the_newest_folder_and_not_to_that_of_an_earlier_run(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    assert _event_folder(make_arguments(tmp_path)) == tmp_path / "runs" / "tikmix"
    for name, seconds in (("b", 1_000), ("c", 3_000), ("a", 2_000)):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        os.utime(folder, (seconds, seconds))
    assert _event_folder(make_arguments(tmp_path)) == tmp_path / "runs" / "c"


def test_what_was_shown_is_flushed_for_it_is_read_while_training_goes_on(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    tracker, done = TensorBoard(tmp_path), []
    monkeypatch.setattr(tracker._writer, "add_scalar", lambda *given: done.append(given))
    monkeypatch.setattr(tracker._writer, "flush", lambda: done.append("flushed"))
    tracker.log({"train/tikmix/change": 0.25}, {}, 3)
    assert done == [("train/tikmix/change", 0.25, 3), "flushed"]
    monkeypatch.undo()
    tracker.close()
