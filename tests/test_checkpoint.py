"""Checkpoints: damage shows, and partial ones are named."""

from __future__ import annotations

import json
import logging

import pytest

from tikmix_hf.checkpoint import last_complete_checkpoint, mark_complete, seal, unseal


def checkpoint(folder, step, *, complete=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights" * step)
    (path / "trainer_state.json").write_text("{}")
    if complete:
        mark_complete(path)
    return path


def test_what_was_sealed_comes_back_through_json():
    record = {"counters": {"a": 1}, "share": 0.1 + 0.2}
    assert unseal(json.loads(json.dumps(seal(record))), origin="here") == record


def test_a_changed_or_cut_record_is_named():
    sealed = seal({"counters": {"a": 1}})
    with pytest.raises(ValueError, match="in step 5 is corrupt"):
        unseal({**sealed, "counters": {"a": 2}}, origin="step 5")
    for cut in (None, {}, {"counters": {"a": 1}}, []):
        with pytest.raises(ValueError, match="in step 5 is truncated"):
            unseal(cut, origin="step 5")


def test_the_newest_complete_checkpoint_wins_by_number(tmp_path):
    assert last_complete_checkpoint(tmp_path / "absent") is None
    assert last_complete_checkpoint(tmp_path) is None
    for step in (9, 100, 20):
        checkpoint(tmp_path, step)
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda p: (p / "trainer_state.json").unlink(), "no trainer_state.json"),
        (lambda p: (p / "tikmix_manifest.json").unlink(), "no tikmix_manifest.json"),
        (lambda p: (p / "tikmix_manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda p: (p / "model.safetensors").unlink(), "has lost model.safetensors"),
        (lambda p: (p / "model.safetensors").write_bytes(b"we"), "2 bytes of 140"),
    ],
)
def test_a_partial_checkpoint_is_named_and_passed_over(tmp_path, caplog, damage, reason):
    checkpoint(tmp_path, 10)
    damage(checkpoint(tmp_path, 20))
    with caplog.at_level(logging.WARNING):
        assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert "checkpoint-20 is a partial checkpoint" in caplog.text
    assert reason in caplog.text
