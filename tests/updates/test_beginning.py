"""The mixture of the first sample, where a mixer or its constraints have a say in it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import addresses, make_arguments, make_dataset, make_targets, make_trainer

from tikmix_hf import Constraints, MixtureSchedule, TikMixCallback, mixers


def run(folder, mixer, *, mixture="uniform", resume=None, **options):
    dataset = make_dataset(num_samples=96, mixture=mixture)
    settings = {"mixer": mixer, "at_steps": (8,), "num_rows": 8, "progress": True}
    callback = TikMixCallback(dataset, targets=make_targets(), **{**settings, **options})
    trainer = make_trainer(dataset, callback, make_arguments(folder, save_strategy="epoch"))
    trainer.train(resume_from_checkpoint=resume)
    return dataset, trainer


def test_a_mixer_that_knows_its_mixture_gives_it_to_the_first_sample(tmp_path, capsys):
    dataset, trainer = run(tmp_path, "natural")
    assert trainer.model.read == addresses(make_dataset(num_samples=96, mixture="natural"), 96)
    (segment,) = dataset.schedule.segments
    np.testing.assert_array_equal(segment.mixture, dataset.domains.prior)
    assert "natural" in segment.update["mixer"]["mixer"]
    assert "[tikmix] start: Natural moved 12.3% of tokens: d0 0.340" in capsys.readouterr().out
    saved = MixtureSchedule.load(tmp_path / "schedule.json")
    assert saved.to_dict() == dataset.schedule.to_dict()


def test_a_resumed_run_does_not_begin_again(tmp_path):
    dataset, _ = run(tmp_path, "natural")
    again, _ = run(tmp_path, "natural", resume=str(tmp_path / "checkpoint-24"))
    assert again.schedule.to_dict() == dataset.schedule.to_dict()


def test_training_once_more_begins_with_the_same_mixture(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer="natural", at_steps=(8,), progress=False
    )
    trainer = make_trainer(dataset, callback, make_arguments(tmp_path))
    trainer.train()
    first = trainer.model.read[:]
    trainer.train()
    assert trainer.model.read == first * 2


def test_constraints_hold_from_the_first_sample_on(tmp_path, capsys):
    mixer = mixers.load("tikmix_d")(constraints=Constraints(floors={"d3": 0.4}))
    dataset, _ = run(tmp_path, mixer)
    first, *others = dataset.schedule.segments
    np.testing.assert_allclose(first.mixture, [0.2, 0.2, 0.2, 0.4], atol=1e-12)
    assert all(segment.mixture[3] >= 0.4 - 1e-9 for segment in others)
    assert "[tikmix] start: Static moved 15.0% of tokens" in capsys.readouterr().out


def test_who_only_observes_changes_nothing_from_the_start(tmp_path):
    dataset, trainer = run(tmp_path, "natural", observe=True)
    assert trainer.model.read == addresses(make_dataset(num_samples=96), 96)
    assert len(dataset.schedule.segments) == 1


def test_constraints_that_nothing_can_obey_stop_the_run_before_it_starts(tmp_path):
    mixer = mixers.load("static")(constraints=Constraints(max_epochs=0.1))
    with pytest.raises(ValueError, match="max_epochs"):
        run(tmp_path, mixer)


def test_a_replayed_schedule_is_not_another_mixers_to_begin(tmp_path):
    replay, _ = run(tmp_path, mixers.load("tikmix_d")(), noise_guard=0.0)
    assert len(replay.schedule.segments) == 2
    with pytest.raises(ValueError, match="`dataset` already changes its mixture"):
        run(tmp_path, "natural", mixture=replay.schedule)
