"""What a run writes of itself into its schedule."""

from __future__ import annotations

import json_schema
import numpy as np
import tiny
import torch

from tikmix_hf import MixtureSchedule, TikMixCallback
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.schedule import DomainCard, Segment, counted, schema
from tikmix_hf.signals import InfluenceMatrix
from tikmix_hf.updates import schedule_entries


def test_a_run_says_what_it_its_domains_and_its_updates_were(tmp_path):
    dataset = tiny.make_dataset(num_samples=96)
    callback = TikMixCallback(
        dataset,
        targets=tiny.make_targets(),
        at_steps=(8,),
        num_rows=8,
        noise_guard=0,
        progress=False,
    )
    trainer = tiny.make_trainer(dataset, callback, tiny.make_arguments(tmp_path))
    trainer.train()
    schedule = MixtureSchedule.load(tmp_path / "schedule.json")
    assert json_schema.faults(schedule.to_dict(), schema(), schema()) == []
    assert schedule == dataset.schedule
    run = schedule.run
    assert (run.num_samples, run.num_tokens, run.samples_per_step) == (96, 96 * tiny.LENGTH, 4)
    assert (run.seed, run.model) == (0, "RecordingLlama")
    assert run.num_parameters == sum(p.numel() for p in trainer.model.parameters())
    domain = dataset.domains["d1"]
    assert schedule.cards["d1"] == DomainCard(
        num_tokens=60 * tiny.LENGTH, num_rows=60, fingerprint=domain.fingerprint()
    )
    assert sum(s.num_tokens or 0 for s in schedule.segments) == run.num_tokens
    update = schedule.segments[1].update
    assert (update["step"], update["targets"]) == (8, ["near0", "near2"])
    assert update["mixer"]["mixer"].endswith("TikMixD")
    assert callback.influence is not None
    assert update["influence"]["values"] == callback.influence.values.tolist()
    assert np.shape(update["influence"]["stderr"]) == (2, 4)
    assert update["cost"]["tokens"]["influence"] > 0
    assert update["versions"] == schedule.provenance["versions"]
    # So large a matrix would fill checkpoints.
    kept_out = schedule_entries.measured(("a",), _NoCosts(), callback.influence, 20_000)  # type: ignore[arg-type]
    assert "influence" not in kept_out
    assert "in influence.jsonl" in kept_out["influence_left_out"]


def test_a_step_of_several_batches_counts_all_their_samples(tmp_path):
    dataset = tiny.make_dataset(num_samples=32)
    callback = TikMixCallback(
        dataset, targets=tiny.make_targets(), mixer="static", every_steps=2, num_rows=4
    )
    arguments = tiny.make_arguments(tmp_path, gradient_accumulation_steps=2, max_steps=4)
    tiny.make_trainer(dataset, callback, arguments).train()
    run = MixtureSchedule.load(tmp_path / "schedule.json").run
    assert (run.samples_per_step, run.num_samples) == (2 * 4, 4 * 2 * 4)


def test_an_error_that_is_not_known_is_none_in_a_schedule_that_saves_and_loads(tmp_path):
    unknown = np.full((1, 2), np.nan)
    influence = InfluenceMatrix(
        values=np.array([[1.0, 2.0]]),
        targets=("t",),
        domains=("a", "b"),
        domain_stderr=unknown,
        target_stderr=unknown,
        preconditioner="sign",
        seconds=0.0,
        num_tokens=1,
        domain_losses=np.ones(2),
        target_losses=np.ones(1),
    )
    update = schedule_entries.measured(("t",), _NoCosts(), influence, 1)  # type: ignore[arg-type]
    assert update["influence"]["stderr"] == [[None, None]]
    mixture = np.array([0.5, 0.5])
    segments = (
        Segment(from_sample=0, mixture=mixture),
        Segment(from_sample=4, mixture=mixture[::-1], update=update),
    )
    path = MixtureSchedule(("a", "b"), segments).save(tmp_path / "schedule.json")
    assert MixtureSchedule.load(path).segments[1].update == update


def test_a_parameter_of_which_a_rank_holds_a_shard_counts_whole():
    layout = BatchLayout(num_samples=8, per_device=1, world_size=1, accumulation=1)
    model = torch.nn.Linear(3, 2)
    model.bias.ds_numel = 10  # as ZeRO-3 marks it  # type: ignore[attr-defined]
    assert schedule_entries.run_of(layout, 2, model).num_parameters == 6 + 10


class _NoCosts:
    def to_dict(self):
        return {}


def test_a_sample_of_longer_rows_counts_for_more_tokens():
    dataset = tiny.make_dataset(num_samples=96)
    schedule = MixtureSchedule(
        ("long", "short"),
        (
            Segment(from_sample=0, mixture=np.array([0.5, 0.5])),
            Segment(from_sample=48, mixture=np.array([0.0, 1.0])),
        ),
        run=dataset.schedule.run,
    )
    # Half the tokens in rows of 30 and half in rows of 10: three short rows to a long one, 60 / 4.
    tokens = [s.num_tokens for s in counted(schedule, np.array([30.0, 10.0])).segments]
    assert tokens == [48 * 15, 48 * 10]


def test_a_dataset_that_changes_beyond_an_epoch_does_not_know_the_length_of_its_run():
    dataset = tiny.make_dataset(num_samples=20)
    assert dataset.schedule.run.num_samples == 20
    dataset.set_mixture("natural", from_sample=40)
    assert dataset.schedule.run.num_samples is None
    assert dataset.schedule.to_dict()["segments"][1]["from_sample"] == 40


def test_a_replay_keeps_what_is_known_of_the_schedule_it_replays():
    used = tiny.make_dataset(num_samples=96)
    used.set_mixture({"d1": 1.0}, from_sample=50)
    replay = tiny.make_dataset(num_samples=48, mixture=used.schedule.rescale(num_samples=48))
    (note,) = replay.schedule.provenance["operations"]
    assert note["rescale"]["run"]["num_samples"] == 96
    assert replay.schedule.run.num_samples == 48
    assert replay.schedule.provenance["versions"]["numpy"] == np.__version__
