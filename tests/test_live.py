"""What TensorBoard, W&B and trackio hold after a training, and that none can disturb it."""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny import (
    assert_same_bits,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
    parameters,
)

from tikmix_hf import TikMixCallback, live

KINDS = ("tensorboard", "wandb", "trackio")
IMAGE = "train/tikmix/update"
SCRIPT = Path(__file__).with_name("live_run.py")
# By hand; a name that goes or comes is seen by people's dashboards.
NAMES = {
    *("mixture/D", "proposed/D", "requested_share/D", "realised_share/D", "epochs/D", "change"),
    *("rounds", "proposal_change", "tokens", "planned_tokens", "seconds", "planned_seconds"),
    *("time_share", "token_share", "influence/T/D", "target_loss/T", "audit/predicted/T"),
    *("audit/realised/T", "audit/spearman", "audit/correlation"),
    *("cost/influence/tokens", "cost/influence/seconds", "cost/mixer/tokens", "cost/mixer/seconds"),
    *("cost/audit/tokens", "cost/audit/seconds"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a training with all trackers that are installed, and their names."""
    folder = tmp_path_factory.mktemp("live")
    kinds = [kind for kind in KINDS if find_spec(kind)]
    offline = {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"}
    offline |= {"TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), str(folder), ",".join(kinds) or "none"]
    subprocess.run(command, check=True, env={**os.environ, **offline}, stdout=subprocess.DEVNULL)
    return folder, kinds


def expected(folder):
    scalars = json.loads((folder / "scalars.json").read_text())
    return {
        int(step): {f"train/{name}": value for name, value in of_step.items()}
        for step, of_step in scalars.items()
    }


def is_picture(data):
    with pytest.importorskip("PIL.Image").open(io.BytesIO(data)) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
        return picture.width > 500 and picture.height > 200 and len(colours) > 50


def events_of(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (events_folder,) = (folder / "runs").iterdir()
    events = accumulator.EventAccumulator(str(events_folder))
    events.Reload()
    return events


def test_tensorboard_holds_every_number_and_one_image_at_each_updates_step(run):
    events, ours = events_of(run[0]), expected(run[0])
    for name in ours[4]:
        told = {event.step: event.value for event in events.Scalars(name)}
        assert told == pytest.approx(
            {step: ours[step][name] for step in ours if name in ours[step]}
        )
    images = events.Images(IMAGE)
    assert [image.step for image in images] == [2, 4]
    assert all(is_picture(image.encoded_image_string) for image in images)
    assert events.Tags()["images"] == [IMAGE]


def wandb_rows(path):
    """Rows of a run's history, from its log: LevelDB's format, blocks of 32 KiB, of Records."""
    proto = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or not kind:
            at += left
            continue
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = proto.Record.FromString(parts)
            parts = b""
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                yield {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}


def test_wandb_holds_every_number_and_one_image_in_the_trainers_run(run):
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder, ours = run[0], expected(run[0])
    (log,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows = list(wandb_rows(log))
    assert any("train/loss" in row for row in rows), "the Trainer's own"
    path = f"{IMAGE}.path"
    updates = {row["train/global_step"]: row for row in rows if path in row}
    assert list(updates) == [2, 4]
    for step, row in updates.items():
        assert {name: row[name] for name in ours[step]} == pytest.approx(ours[step])
        assert is_picture((log.parent / "files" / row[path]).read_bytes())


def test_trackio_holds_every_number_and_one_image_in_the_trainers_run(run):
    pytest.importorskip("trackio", reason="trackio is not installed")
    folder, ours = run[0], expected(run[0])
    (path,) = folder.glob("trackio/*.db")
    connection = sqlite3.connect(path)
    rows = [
        (name, json.loads(metrics))
        for name, metrics in connection.execute(
            "select run_name, metrics from metrics order by step"
        )
    ]
    connection.close()
    assert {name for name, _ in rows} == {"tiny"}
    assert any("train/loss" in row for _, row in rows), "the Trainer's own"
    updates = {row["train/global_step"]: row for _, row in rows if IMAGE in row}
    assert list(updates) == [2, 4]
    for step, row in updates.items():
        assert {name: row[name] for name in ours[step]} == pytest.approx(ours[step])
        assert is_picture((folder / "trackio" / "media" / row[IMAGE]["file_path"]).read_bytes())


def test_the_names_are_those_that_are_documented(run):
    patterns = {
        re.sub(r"\bnear\d\b", "T", re.sub(r"\bd\d\b", "D", name.removeprefix("train/tikmix/")))
        for name in expected(run[0])[4]
    }
    assert patterns == NAMES
    text = live.__doc__ or ""
    for name in NAMES:
        assert all(part in text for part in name.split("/") if part not in ("D", "T")), name


def test_drawing_leaves_matplotlibs_global_state_alone(run):
    assert "matplotlib.pyplot" not in json.loads((run[0] / "modules.json").read_text())


def train(folder, callback_settings=None, **options):
    """A training with dropout, the generator's state at its end, and its callback."""
    dataset = make_dataset(32)
    callback = None
    if callback_settings is None:
        options["train_sampling_strategy"] = "sequential"
    else:
        settings = {"targets": make_targets(), "at_steps": [2, 4], "num_rows": 8, "progress": False}
        callback = TikMixCallback(dataset, **{**settings, **callback_settings})
    model = make_model(dropout=0.1)
    make_trainer(dataset, callback, make_arguments(folder, **options), model).train()
    return parameters(model), torch.get_rng_state()


def test_training_is_the_same_to_the_last_bit_with_and_without_a_live_view(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("matplotlib")
    plain, plain_state = train(tmp_path / "plain")
    seen, seen_state = train(tmp_path / "seen", {"observe": True}, report_to=["tensorboard"])
    assert len(events_of(tmp_path / "seen").Images(IMAGE)) == 2
    assert_same_bits(plain, seen)
    assert torch.equal(plain_state, seen_state)


def test_a_failure_of_tensorboards_own_does_not_stop_training(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tikmix_hf.trackers.TensorBoard.log", full)
    monkeypatch.setattr("tikmix_hf.trackers.TensorBoard.close", full)
    train(tmp_path, {"on_error": "raise"}, report_to=["tensorboard"])
    assert len([line for line in caplog.messages if "TensorBoard could not be given" in line]) == 1
