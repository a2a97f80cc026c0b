"""Exact resume: a run that is killed and taken up again is the run that was never killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from killed_run import run_parts
from tiny import (
    addresses,
    assert_same_bits,
    make_arguments,
    make_dataset,
    make_model,
    make_trainer,
    parameters,
)

from tikmix_hf import MixtureSchedule, last_complete_checkpoint
from tikmix_hf.files import read_records

HERE = Path(__file__).parent


def killed(folder: Path, kill_at: int | str, **options) -> None:
    words = json.dumps({"folder": str(folder), "kill_at": kill_at, **options})
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_run.py"), words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def whole_run(folder: Path, **options):
    dataset, _, trainer = run_parts(dict(options), str(folder), model=make_model(dropout=0.1))
    trainer.train()
    return dataset, trainer


@pytest.mark.parametrize(
    ("kill_at", "options"),
    [
        (13, {}),
        (19, {"dataloader_num_workers": 2}),
        # 1.5 epochs before the kill: epochs go on in the ordinals, workers stay alive between them.
        (
            23,
            {
                "dataloader_num_workers": 2,
                "dataloader_persistent_workers": True,
                "num_samples": 48,
                "num_train_epochs": 2,
            },
        ),
        (11, {"gradient_accumulation_steps": 2, "num_samples": 192}),
    ],
    ids=["0 workers", "2 workers", "2 persistent workers", "accumulation"],
)
def test_a_killed_run_goes_on_as_if_it_had_never_stopped(tmp_path, kill_at, options):
    expected_dataset, expected = whole_run(tmp_path / "whole", **options)
    killed(tmp_path / "killed", kill_at, **options)
    checkpoint = last_complete_checkpoint(tmp_path / "killed")
    step = kill_at // 8 * 8
    assert checkpoint == str(tmp_path / "killed" / f"checkpoint-{step}")

    # The model starts from other weights: everything must come from the checkpoint.
    dataset, _, trainer = run_parts(
        dict(options), str(tmp_path / "killed"), model=make_model(dropout=0.1, seed=9)
    )
    trainer.train(resume_from_checkpoint=checkpoint)

    per_step = 4 * options.get("gradient_accumulation_steps", 1)
    assert trainer.model.read == expected.model.read[step * per_step :]
    assert dataset.schedule.to_dict() == expected_dataset.schedule.to_dict()
    starts = [segment.from_sample for segment in dataset.schedule.segments]
    assert sum(start <= step * per_step for start in starts[1:]) >= 1  # changes before ...
    assert sum(start > step * per_step for start in starts) >= 2  # ... and after the checkpoint
    assert_same_bits(parameters(trainer.model), parameters(expected.model))
    replay = make_dataset(
        num_samples=len(dataset), mixture=MixtureSchedule.load(tmp_path / "killed/schedule.json")
    )
    assert expected.model.read == addresses(replay, len(expected.model.read))
    records = read_records(tmp_path / "killed" / "influence.jsonl")
    for mine, theirs in zip(records, read_records(tmp_path / "whole/influence.jsonl"), strict=True):
        assert (mine["audit"] is None) == (mine["step"] == 4)  # what was predicted goes on, too
        costs = [cost for record in (mine, theirs) for cost in record["costs"].values()]
        for clocked in (mine, theirs, mine["influence"], theirs["influence"], *costs):
            for clock in ("seconds", "planned_seconds", "time_share"):
                clocked.pop(clock, None)
        assert mine == theirs


def test_a_run_killed_inside_a_save_leaves_a_partial_checkpoint_that_is_named(tmp_path, caplog):
    _, expected = whole_run(tmp_path / "whole")
    killed(tmp_path / "killed", "save")
    assert (tmp_path / "killed" / "checkpoint-16" / "model.safetensors").exists()
    checkpoint = last_complete_checkpoint(tmp_path / "killed")
    assert checkpoint == str(tmp_path / "killed" / "checkpoint-8")
    assert "checkpoint-16 is a partial checkpoint" in caplog.text
    _, _, trainer = run_parts({}, str(tmp_path / "killed"), model=make_model(dropout=0.1, seed=9))
    trainer.train(resume_from_checkpoint=checkpoint)
    assert_same_bits(parameters(trainer.model), parameters(expected.model))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    whole_run(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "`seed` must be what the checkpoint of step 8 was made with.* 0, this run 1"),
        ({"per_device_train_batch_size": 2}, "`per_device` must be what"),
        ({"gradient_accumulation_steps": 2}, "`accumulation` must be what"),
        ({"num_samples": 100}, "`num_samples` must be what .* has 96, this run 100"),
    ],
    ids=str,
)
def test_resuming_with_another_seed_or_layout_is_refused(tmp_path, finished, options, message):
    _, _, trainer = run_parts(dict(options), str(tmp_path), model=make_model(dropout=0.1))
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(finished / "checkpoint-8"))


def test_resuming_with_other_domains_is_refused(tmp_path, finished, monkeypatch):
    import tiny

    other = tiny.make_domains((90, 60, 75, 41))
    monkeypatch.setattr(tiny, "make_domains", lambda: other)
    _, _, trainer = run_parts({}, str(tmp_path), model=make_model(dropout=0.1))
    with pytest.raises(ValueError, match="`domains` must be what the checkpoint of step 8"):
        trainer.train(resume_from_checkpoint=str(finished / "checkpoint-8"))


def _edit(folder: Path, change) -> None:
    path = folder / "trainer_state.json"
    state = json.loads(path.read_text())
    change(state["stateful_callbacks"]["TikMixCallback"])
    path.write_text(json.dumps(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["attributes"]["counters"].update(_num_updates=7), "is corrupt"),
        (lambda s: s["attributes"]["schedule"]["segments"].pop(), "is corrupt"),
        (lambda s: s.pop("attributes"), "is truncated"),
        (lambda s: s["attributes"].pop("checksum"), "is truncated"),
    ],
)
def test_a_damaged_state_is_named(tmp_path, finished, change, message):
    folder = tmp_path / "checkpoint-8"
    shutil.copytree(finished / "checkpoint-8", folder)
    _edit(folder, change)
    _, _, trainer = run_parts({}, str(tmp_path), model=make_model(dropout=0.1))
    with pytest.raises(ValueError, match=f"TikMixCallback in the checkpoint of step 8 {message}"):
        trainer.train(resume_from_checkpoint=str(folder))


def test_a_checkpoint_without_our_state_can_be_gone_on_from_with_a_warning(
    tmp_path, finished, caplog
):
    folder = tmp_path / "checkpoint-8"
    shutil.copytree(finished / "checkpoint-8", folder)
    state = json.loads((folder / "trainer_state.json").read_text())
    del state["stateful_callbacks"]["TikMixCallback"]
    (folder / "trainer_state.json").write_text(json.dumps(state))
    dataset, _, trainer = run_parts({}, str(tmp_path), model=make_model(dropout=0.1))
    trainer.train(resume_from_checkpoint=str(folder))
    assert "has no state of TikMixCallback" in caplog.text
    assert trainer.model.read == addresses(dataset, 96)[8 * 4 :]
    assert (tmp_path / "checkpoint-24" / "trainer_state.json").exists()


def test_rebuilding_the_callback_from_json_is_refused_however_it_was_added(tmp_path, finished):
    dataset, callback, _ = run_parts({}, str(tmp_path), model=make_model())
    arguments = make_arguments(
        tmp_path,
        restore_callback_states_from_checkpoint=True,
        train_sampling_strategy="sequential",
    )
    trainer = make_trainer(dataset, None, arguments)
    trainer.add_callback(callback)  # misses the check that is made when a Trainer is made
    with pytest.raises(TypeError, match="If restore_callback_states_from_checkpoint is set, leave"):
        trainer.train(resume_from_checkpoint=str(finished / "checkpoint-8"))
