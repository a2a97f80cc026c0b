"""The mixture of the first sample, where a mixer or its constraints have a say in it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import addresses, make_arguments, make_dataset, make_targets, make_trainer

from tikmix_hf import Constraints, MixtureSchedule, TikMixCallback, mixers
from tikmix_hf.mixers.base import About, Mixer, State


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
    assert (
        "start: Natural moved 12.3% of tokens from sample 0 on: d0 0.340" in capsys.readouterr().out
    )
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
    assert "start: constraints moved 15.0% of tokens from sample 0 on" in capsys.readouterr().out


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


def test_new_constraints_hold_from_where_a_run_goes_on(tmp_path, capsys):
    mixer = mixers.load("static")
    run(tmp_path, mixer())
    dataset = make_dataset(num_samples=192)
    capped = mixer(constraints=Constraints(caps={"d0": 0.1}))
    callback = TikMixCallback(dataset, targets=make_targets(), mixer=capped, at_steps=(8,))
    trainer = make_trainer(dataset, callback, make_arguments(tmp_path, num_train_epochs=1))
    whole = make_dataset(num_samples=192)
    make_trainer(
        whole,
        TikMixCallback(whole, targets=make_targets(), mixer=mixer(), at_steps=(8,)),
        make_arguments(tmp_path / "whole", save_steps=8, save_strategy="steps"),
    ).train()
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-8"))
    second = dataset.schedule.segments[1]
    assert second.from_sample == 36  # one batch was read ahead of step 8
    np.testing.assert_allclose(second.mixture, [0.1, 0.3, 0.3, 0.3], atol=1e-12)
    assert "constraints moved 15.0% of tokens from sample 36 on" in capsys.readouterr().out


def test_constraints_that_cannot_hold_stop_a_run_that_goes_on(tmp_path):
    run(tmp_path, "static")
    none = Constraints(caps=dict.fromkeys(("d0", "d1", "d2", "d3"), 0.1))
    with pytest.raises(ValueError, match="caps"):
        run(
            tmp_path, mixers.load("static")(constraints=none),
            resume=str(tmp_path / "checkpoint-24"),
        )  # fmt: skip


def test_a_change_of_constraints_does_not_make_a_mixer_forget(tmp_path, caplog):
    def train(folder, constraints, resume=None):
        dataset = make_dataset(num_samples=96)
        mixer = mixers.load("odm")(constraints=constraints)
        callback = TikMixCallback(
            dataset, targets=make_targets(), mixer=mixer, at_steps=(4, 12), progress=False
        )
        arguments = make_arguments(folder, save_steps=8, save_strategy="steps")
        make_trainer(dataset, callback, arguments).train(resume_from_checkpoint=resume)
        return callback

    train(tmp_path, None)
    capped = Constraints(caps={"d0": 0.5})
    callback = train(tmp_path, capped, resume=str(tmp_path / "checkpoint-8"))
    assert "starts anew" not in caplog.text
    assert callback._updater.mixer_state.num_steps == 12


def test_a_replay_that_constraints_forbid_is_refused(tmp_path):
    replay, _ = run(tmp_path, mixers.load("tikmix_d")(), noise_guard=0.0)
    most = max(share for segment in replay.schedule.segments for share in segment.mixture)
    below = dict.fromkeys(replay.domains.names, float(most) - 0.01)
    static = mixers.load("static")
    with pytest.raises(ValueError, match=r"`constraints` forbid the mixture .* from sample 36 on"):
        run(tmp_path, static(constraints=Constraints(caps=below)), mixture=replay.schedule)
    above = dict.fromkeys(replay.domains.names, float(most) + 0.01)
    again, _ = run(tmp_path, static(constraints=Constraints(caps=above)), mixture=replay.schedule)
    assert again.schedule.to_dict() == replay.schedule.to_dict()


def test_trust_regions_and_smoothing_are_for_updates(tmp_path):
    slow = Constraints(max_change=0.01, smoothing=0.5, max_kl_change=1e-4)
    dataset, _ = run(tmp_path, mixers.load("natural")(constraints=slow))
    np.testing.assert_allclose(dataset.schedule.segments[0].mixture, dataset.domains.prior)


class _Remembers(Mixer):
    """Notes every mixture that it was told training starts with."""

    about = About("", "", "")
    priors: list = []  # noqa: RUF012 - a mixer has no other way to tell

    def init(self, prior):
        self.priors.append(prior)
        return State()

    def propose(self, state, signals):
        return signals.mixture, state


def test_a_mixer_is_told_the_mixture_that_its_constraints_made_of_the_first(tmp_path):
    _Remembers.priors.clear()
    run(tmp_path, _Remembers(constraints=Constraints(floors={"d3": 0.4})))
    np.testing.assert_allclose(_Remembers.priors[-1], [0.2, 0.2, 0.2, 0.4], atol=1e-12)
