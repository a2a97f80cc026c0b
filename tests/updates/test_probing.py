"""Probes: announced ahead, trained on, judged by the targets' losses, and back again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import addresses, make_arguments, make_dataset, make_model, make_targets, make_trainer
from transformers import TrainerCallback

from tikmix_hf import Constraints, MixtureSchedule, TikMixCallback, mixers
from tikmix_hf.mixers.base import About, Mixer, State
from tikmix_hf.signals.losses import mean_losses
from tikmix_hf.updates.heldout import Portion, in_batches
from tikmix_hf.updates.measurement import Measurement
from tikmix_hf.updates.probing import Probing

CORNERS = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]])


class Corners(Mixer):
    """Probes two corners for two and three steps, then takes the one that lowered losses more."""

    about = About("", "", "")
    requires = frozenset({"probe_losses"})

    def probe_steps(self, num_domains):
        return 2, 3

    def probe_mixtures(self, state, signals):
        return CORNERS

    def init(self, prior):
        return State()

    def propose(self, state, signals):
        drops = -np.diff(signals.usable("probe_losses").mean(axis=1)) / [2, 3]
        return CORNERS[drops.argmax()], State((f"drops {drops.tolist()}",))


class _Reads(TrainerCallback):
    """The targets' losses after every step, by the engine that the project tests elsewhere."""

    def __init__(self):
        self.losses = {}

    def on_step_end(self, args, state, control, **kwargs):
        portion = Portion(0, 8)
        batches = in_batches(
            make_targets(), portion, most_rows=4, least_batches=2,
            collate=Measurement().data_collator, seed=0,
        )  # fmt: skip
        self.losses[state.global_step] = mean_losses(kwargs["model"], batches).means


class _StopsAtStep8(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            raise KeyboardInterrupt


def run(folder, *, at_steps=(4,), extra=(), resume=None, seed=0, **options):
    dataset = make_dataset(num_samples=96)
    settings = {"mixer": Corners(), "num_rows": 8, "progress": False, "at_steps": at_steps}
    callback = TikMixCallback(dataset, targets=make_targets(), **settings)
    arguments = make_arguments(folder, **options)
    model = make_model(dropout=0.1, seed=seed)
    trainer = make_trainer(dataset, callback, arguments, model, extra=extra)
    trainer.train(resume_from_checkpoint=resume)
    return dataset, callback, trainer


def test_probes_are_announced_ahead_and_judged_where_they_begin_and_end(tmp_path):
    reads = _Reads()
    dataset, callback, trainer = run(tmp_path, extra=[reads])
    # Asked after 4 steps of 4 samples; one batch is read ahead, so probes begin with step 6.
    starts = [segment.from_sample for segment in dataset.schedule.segments]
    assert starts == [0, 20, 28, 40, 44]
    mixtures = np.array([segment.mixture for segment in dataset.schedule.segments])
    np.testing.assert_allclose(mixtures[1:3], CORNERS, rtol=1e-12)
    np.testing.assert_array_equal(mixtures[3], mixtures[0])
    losses = np.array([reads.losses[step] for step in (5, 7, 10)]).mean(axis=1)
    drops = -np.diff(losses) / [2, 3]
    (record,) = callback.updates
    assert record.step == 10
    assert record.notes == (f"drops {drops.tolist()}",)
    np.testing.assert_allclose(mixtures[4], CORNERS[drops.argmax()], rtol=1e-12)
    # Three readings of 8 rows of 12 tokens of 2 targets, forward alone.
    assert record.costs["probe_losses"]["tokens"] == 3 * 2 * 8 * 12 / 3
    assert callback.plan.tokens_per_update == pytest.approx(3 * 2 * 8 * 12 / 3)
    assert record.seconds > record.costs["probe_losses"]["seconds"] > 0
    assert trainer.model.read == addresses(dataset, 96)


def test_a_run_killed_in_the_middle_of_a_probe_goes_on_with_it(tmp_path):
    whole, callback, expected = run(tmp_path / "whole", save_strategy="steps", save_steps=6)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", extra=[_StopsAtStep8()], save_strategy="steps", save_steps=6)
    dataset, resumed, trainer = run(
        tmp_path / "killed", resume=str(tmp_path / "killed/checkpoint-6"), seed=9,
        save_strategy="steps", save_steps=6,
    )  # fmt: skip
    assert dataset.schedule.to_dict() == whole.schedule.to_dict()
    assert resumed.updates[0].notes == callback.updates[0].notes
    for mine, theirs in zip(trainer.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert MixtureSchedule.load(tmp_path / "killed/schedule.json").to_dict() == (
        whole.schedule.to_dict()
    )


def test_updates_that_leave_no_room_for_their_probes_are_refused(tmp_path):
    # One step ahead and five of probes; the answer at step 10 and a question would be too many.
    with pytest.raises(ValueError, match=r"must be above 6, .*; got 6, from step 4 to 10"):
        run(tmp_path, at_steps=(4, 10))
    assert len(run(tmp_path, at_steps=(4, 11))[1].updates) == 2


def test_a_plan_leaves_room_for_probes(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=Corners(), budget=1.0, num_rows=2, progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    # 24 steps hold pieces of 7; an update of 2 rows would be paid for more often.
    assert len(callback.updates) == len(callback.plan.steps) == 2
    assert callback.plan.share < 0.2


def test_probes_keep_the_constraints_and_the_mixer_is_told(tmp_path):
    class Told(Corners):
        told: list = []  # noqa: RUF012 - a mixer has no other way to tell

        def propose(self, state, signals):
            self.told.append(signals.probe_mixtures)
            return super().propose(state, signals)

    dataset = make_dataset(num_samples=96)
    mixer = Told(constraints=Constraints(caps={"d0": 0.4}, floors={"d3": 0.2}, max_change=0.01))
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=mixer, at_steps=(4,), num_rows=8, progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    shares = np.array([segment.mixture for segment in dataset.schedule.segments])
    assert (shares[:, 0] <= 0.4 + 1e-9).all()
    assert (shares[:, 3] >= 0.2 - 1e-9).all()
    # How far an update may go is no bound on a probe.
    np.testing.assert_allclose(shares[1], [0.4, 0.2, 0.2, 0.2], atol=1e-9)
    np.testing.assert_allclose(Told.told[0], shares[1:3], rtol=1e-12)


class _SecondIsNone(Corners):
    def probe_mixtures(self, state, signals):
        return np.array([CORNERS[0], [0.5, 0.5, 0.5, 0.5]])


def test_no_probe_is_announced_unless_all_are_mixtures(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=_SecondIsNone(), at_steps=(4,), num_rows=8,
        progress=False,
    )  # fmt: skip
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert len(dataset.schedule.segments) == 1
    assert "`a probe` must sum to 1" in callback.updates[0].notes[0]


def test_probes_that_could_not_end_in_time_are_not_begun(tmp_path):
    # Of 24 steps, 22 is the last that could change anything, and the answer comes 6 steps later.
    with pytest.raises(ValueError, match="`at_steps` must leave an update by step 16 of 24"):
        run(tmp_path, at_steps=(17,))
    assert run(tmp_path, at_steps=(16,))[1].updates[0].step == 22


def test_every_probe_needs_room_in_the_schedule(tmp_path):
    dataset = make_dataset(num_samples=96, max_updates=3)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=Corners(), at_steps=(4,), num_rows=8
    )
    with pytest.raises(ValueError, match="`max_updates` of the dataset must cover the run's 4 "):
        make_trainer(dataset, callback, make_arguments(tmp_path)).train()


def test_a_mixer_that_probes_cannot_only_be_watched():
    with pytest.raises(ValueError, match="`observe` must be False with Corners"):
        TikMixCallback(make_dataset(), targets=make_targets(), mixer=Corners(), observe=True)


class _TooFew(Corners):
    def probe_mixtures(self, state, signals):
        return CORNERS[:1]


def test_a_probe_that_fails_keeps_the_mixture_and_says_so(tmp_path):
    dataset = make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=_TooFew(), at_steps=(4,), num_rows=8, progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert len(dataset.schedule.segments) == 1
    assert "must name 2 mixtures to probe; got 1" in callback.updates[0].notes[0]


def test_a_reading_is_due_once_and_probes_survive_json():
    probing = Probing(4, (5, 7), ((0.5, 0.5), (1.0, 0.0)))
    assert [probing.is_due(step) for step in (4, 5, 6)] == [False, True, True]
    one = probing.with_losses(np.array([2.0, 3.0]), 10, 0.5)
    assert [one.is_due(step) for step in (5, 6, 7)] == [False, False, True]
    assert Probing.restore([4, [5, 7], [[0.5, 0.5], [1.0, 0.0]], [[2.0, 3.0]], 10, 0.5]) == one
    assert not one.is_over
    assert one.with_losses(np.array([1.0, 1.0]), 10, 0.5).num_tokens == 20


def test_aioli_runs_on_the_stock_trainer(tmp_path):
    dataset = make_dataset(num_samples=192)
    mixer = mixers.load("aioli")(lp_steps=1, lp_rounds=1)
    callback = TikMixCallback(
        dataset, targets=make_targets(), mixer=mixer, at_steps=(4, 20), num_rows=8, progress=False
    )
    make_trainer(dataset, callback, make_arguments(tmp_path)).train()
    assert [record.step for record in callback.updates] == [9, 25]
    assert all(record.from_sample for record in callback.updates)
