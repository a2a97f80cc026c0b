"""What a run writes of itself into its schedule."""

from __future__ import annotations

import json_schema
import numpy as np
import tiny

from tikmix_hf import MixtureSchedule, TikMixCallback
from tikmix_hf.schedule import DomainCard, Segment, counted, schema
from tikmix_hf.updates import publishing


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
    kept_out = publishing.measured(("a",), _NoCosts(), callback.influence, 20_000)  # type: ignore[arg-type]
    assert "influence" not in kept_out
    assert "in influence.jsonl" in kept_out["influence_left_out"]


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
