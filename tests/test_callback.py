"""TikMixCallback on the stock Trainer: when, what, recorded how, and what it refuses."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import (
    RecordingLlama,
    addresses,
    assert_same_bits,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
    parameters,
    rows,
)

from tikmix_hf import MixtureSchedule, PackedCollator, TikMixCallback
from tikmix_hf.files import read_records
from tikmix_hf.mixers.base import Mixer, MixerError, State
from tikmix_hf.signals import preconditioners
from tikmix_hf.updates.measurement import Measurement


def make_callback(dataset, **options) -> TikMixCallback:
    # Without the guard: on so little text it would keep the mixture, and nothing were to be seen.
    defaults = {"targets": make_targets(), "every_steps": 4, "num_rows": 8}
    defaults |= {"measurement": Measurement(num_rounds=2), "noise_guard": 0.0, "progress": False}
    return TikMixCallback(dataset, **{**defaults, **options})


def train(folder, *, dataset=None, extra=(), model=None, callback=None, **options):
    dataset = dataset or make_dataset()
    names = ("mixer", "every_steps", "at_steps", "observe", "targets", "preconditioner", "on_error")
    settings = {name: options.pop(name) for name in names if name in options}
    callback = callback or make_callback(dataset, **settings)
    trainer = make_trainer(dataset, callback, make_arguments(folder, **options), model, extra)
    trainer.train()
    return trainer, callback


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 3},
        {"dataloader_num_workers": 2},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True, "num_train_epochs": 3},
        {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 4},
        {"remove_unused_columns": True},
    ],
    ids=str,
)
def test_training_reads_what_the_published_schedule_says(tmp_path, options):
    trainer, _ = train(tmp_path, **options)
    schedule = MixtureSchedule.load(tmp_path / "schedule.json")
    assert len(schedule.segments) >= 2
    replay = make_dataset(mixture=schedule)
    assert trainer.model.read == addresses(replay, len(trainer.model.read))
    assert len(trainer.model.read) == 96 * options.get("num_train_epochs", 1)


def test_updates_are_at_every_n_steps_or_at_the_steps_named(tmp_path):
    _, callback = train(tmp_path / "a", every_steps=5)
    assert [record.step for record in callback.updates] == [5, 10, 15, 20]
    _, callback = train(tmp_path / "b", at_steps=[3, 7])
    assert [record.step for record in callback.updates] == [3, 7]


def test_no_update_is_made_where_no_sample_is_left_for_it(tmp_path):
    # 24 steps; at step 23 the loader has handed out the last batch already.
    _, callback = train(tmp_path, at_steps=[22, 23, 24])
    assert [record.step for record in callback.updates] == [22]


def test_the_mixture_moves_to_the_domain_that_helps(tmp_path):
    # The one target is text of domain 2 itself.
    _, callback = train(tmp_path, targets={"like2": rows(2, 24)}, max_steps=24)
    final = callback.dataset.schedule.segments[-1].mixture
    assert final.argmax() == 2
    assert final[2] > 0.3  # from 0.25


@pytest.mark.parametrize("checkpointing", [False, True])
def test_observing_leaves_training_as_it_is_to_the_last_bit(tmp_path, checkpointing):
    options = {"gradient_accumulation_steps": 2, "activation_checkpointing": checkpointing}
    runs = []
    for observe in (False, True):
        dataset = make_dataset()
        model = make_model(dropout=0.2)
        callback = make_callback(dataset, observe=True, at_steps=[1, 5, 6]) if observe else None
        arguments = make_arguments(
            tmp_path / str(observe), train_sampling_strategy="sequential", **options
        )
        make_trainer(dataset, callback, arguments, model).train()
        runs.append(model)
        if callback:
            assert [record.step for record in callback.updates] == [1, 5, 6]
            assert all("observed only" in record.notes for record in callback.updates)
            assert len(dataset.schedule.segments) == 1
    assert runs[0].read == runs[1].read
    assert_same_bits(parameters(runs[0]), parameters(runs[1]))


def test_dropout_and_checkpointing_were_on_in_the_test_above():
    # The identity above would be empty if neither did anything.
    model = make_model(dropout=0.2).train()
    ids = torch.randint(0, 100, (2, 12))
    torch.manual_seed(0)
    first = model(input_ids=ids, labels=ids).loss
    assert first.item() != model(input_ids=ids, labels=ids).loss.item()


def test_every_change_is_accounted_for(tmp_path):
    _, callback = train(tmp_path)
    lines = read_records(tmp_path / "influence.jsonl")
    assert [line["step"] for line in lines] == [4, 8, 12, 16, 20]
    dataset = callback.dataset
    start, previous = 0, None
    for line, record in zip(lines, callback.updates, strict=True):
        stop = line["step"] * 4
        names = [dataset.domain_of(sample) for sample in range(start, stop)]
        expected = {name: 12 * names.count(name) for name in dataset.domains.names}
        assert line["realised_tokens"] == expected
        assert sum(line["requested_tokens"].values()) == pytest.approx(12 * (stop - start))
        requested = sum(
            np.array(list(dataset.schedule.mixture_at(sample).values())) * 12
            for sample in range(start, stop)
        )
        assert list(line["requested_tokens"].values()) == pytest.approx(requested.tolist())
        if line["change"]:
            assert line["from_sample"] == stop + 4
            assert dataset.schedule.mixture_at(stop + 4) == line["proposed"]
        difference = np.array(list(line["proposed"].values())) - list(line["mixture"].values())
        assert line["change"] == pytest.approx(np.abs(difference).sum() / 2)
        assert line["seconds"] > 0
        assert 0 < line["time_share"] < 1
        # Four rows in each of up to two rounds, of which kfac reads half of the first round's
        # domains once more; then the targets once more, forward, for a third.
        own = 12 * 4 * 4 / 2
        assert record.influence.num_tokens == 12 * (4 + 2) * 4 * record.num_rounds + own
        audited = 12 * 2 * 4 * previous.num_rounds / 3 if previous else 0
        assert line["tokens"] == round(record.influence.num_tokens + audited)
        assert line["planned_tokens"] == 12 * (4 * 8 + 2 * 8) + own + 12 * 2 * 8 / 3
        previous = record
        start = stop
    measured = sum(line["tokens"] for line in lines)
    assert lines[-1]["token_share"] == pytest.approx(measured / (20 * 4 * 12))
    assert callback.influence is callback.updates[-1].influence


def test_tensorboard_and_the_history_show_the_mixture(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer, callback = train(tmp_path, report_to=["tensorboard"])
    (folder,) = (tmp_path / "runs").iterdir()
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    for k, name in enumerate(callback.dataset.domains.names):
        series = events.Scalars(f"train/tikmix/mixture/{name}")
        assert [event.step for event in series] == [4, 8, 12, 16, 20]
        proposed = [record.proposed[k] for record in callback.updates]
        assert [event.value for event in series] == pytest.approx(proposed, abs=1e-6)
        assert events.Scalars(f"train/tikmix/influence/near0/{name}")
    history = [entry for entry in trainer.state.log_history if "tikmix/mixture/d0" in entry]
    assert [entry["step"] for entry in history] == [4, 8, 12, 16, 20]
    assert (
        "train/loss" in events.Tags()["scalars"] or "train/train_loss" in events.Tags()["scalars"]
    )


def test_the_line_of_an_update_can_be_read(tmp_path, capsys):
    dataset = make_dataset()
    train(tmp_path, dataset=dataset, callback=make_callback(dataset, progress=True))
    out = capsys.readouterr().out
    assert "[tikmix] step 4: from sample 20 on d" in out
    assert "of tokens moved" in out


@dataclass(frozen=True, kw_only=True)
class _Fails(Mixer):
    requires: ClassVar[frozenset[str]] = frozenset({"influence"})

    def init(self, prior):
        return State()

    def propose(self, state, signals):
        raise MixerError("no feasible mixture, says the test")


class _PoisonedLlama(RecordingLlama):
    """Gives NaN wherever it is only measured."""

    def forward(self, *args, **kwargs):
        outputs = super().forward(*args, **kwargs)
        if not self.training and outputs.loss is not None:
            outputs.loss = outputs.loss * float("nan")
        return outputs


@pytest.mark.parametrize("cause", ["mixer", "loss"])
def test_a_failed_update_keeps_the_mixture_says_so_and_training_goes_on(tmp_path, caplog, cause):
    torch.manual_seed(0)
    model = _PoisonedLlama(make_model().config) if cause == "loss" else make_model()
    mixer = _Fails() if cause == "mixer" else "tikmix_d"
    trainer, callback = train(tmp_path, mixer=mixer, model=model)
    assert trainer.state.global_step == 24
    assert len(callback.dataset.schedule.segments) == 1
    reason = "no feasible mixture" if cause == "mixer" else "finite"
    for line in read_records(tmp_path / "influence.jsonl"):
        assert line["from_sample"] is None
        assert "update failed: " in line["notes"][0]
        assert reason in line["notes"][0]
    assert reason in caplog.text


def test_a_failed_update_stops_training_where_the_user_asked_for_it(tmp_path):
    with pytest.raises(MixerError, match="says the test"):
        train(tmp_path, mixer=_Fails(), on_error="raise")


def test_a_model_without_any_gradient_keeps_the_mixture(tmp_path):
    # All-zero influence: a constant loss, from a head that is never moved from zero.
    model = make_model(tie_word_embeddings=False)
    torch.nn.init.zeros_(model.lm_head.weight)
    model.lm_head.requires_grad_(False)
    _, callback = train(tmp_path, model=model, at_steps=[2], preconditioner="sign")
    assert "zero everywhere" in callback.updates[0].notes[0]
    assert len(callback.dataset.schedule.segments) == 1


def test_the_static_mixer_measures_nothing_and_changes_nothing(tmp_path):
    trainer, callback = train(tmp_path, mixer="static")
    assert [record.step for record in callback.updates] == [4, 8, 12, 16, 20]
    assert all(record.influence is None for record in callback.updates)
    assert all(record.from_sample is None for record in callback.updates)
    assert len(callback.dataset.schedule.segments) == 1
    assert trainer.model.read == addresses(make_dataset(), 96)


def test_training_once_more_starts_anew(tmp_path):
    dataset = make_dataset()
    callback = make_callback(dataset)
    model = make_model()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(dataset, callback, make_arguments(tmp_path), model)
    trainer.train()
    first, schedule = model.read, dataset.schedule.to_dict()
    model.load_state_dict(start)
    model.read = []
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.train()
    assert model.read == first
    assert dataset.schedule.to_dict() == schedule
    assert [line["step"] for line in read_records(tmp_path / "influence.jsonl")] == [
        4,
        8,
        12,
        16,
        20,
    ]


def test_a_sampler_is_set_to_sequential_and_the_user_need_not_know(tmp_path):
    trainer, _ = train(tmp_path)
    assert trainer.args.train_sampling_strategy == "sequential"


def test_a_callback_that_is_added_later_explains_what_is_missing(tmp_path):
    dataset = make_dataset()
    trainer = make_trainer(dataset, None, make_arguments(tmp_path))
    trainer.add_callback(make_callback(dataset))
    with pytest.raises(
        ValueError, match=r"`train_sampling_strategy` must be 'sequential'.*RandomS"
    ):
        trainer.train()
    arguments = make_arguments(tmp_path, train_sampling_strategy="sequential")
    trainer = make_trainer(dataset, None, arguments)
    trainer.add_callback(make_callback(dataset))
    trainer.train()
    assert len(dataset.schedule.segments) >= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"accelerator_config": {"split_batches": True}},
            r"split_batches` must be False.*got True",
        ),
        ({"accelerator_config": {"dispatch_batches": True}}, "dispatch_batches` must be None"),
        ({"ignore_data_skip": True}, "`ignore_data_skip` must be False"),
        ({"auto_find_batch_size": True}, "`auto_find_batch_size` must be False"),
        (
            {"restore_callback_states_from_checkpoint": True},
            "`restore_callback_states_from_checkpoint` must be False",
        ),
        (
            {"train_sampling_strategy": "group_by_length"},
            "`train_sampling_strategy` must be 'sequential'.*got 'group_by_length'",
        ),
        ({"dataloader_in_order": False}, "`dataloader_in_order` must be True"),
    ],
    ids=str,
)
def test_arguments_that_would_break_the_order_are_refused_at_once(tmp_path, options, message):
    dataset = make_dataset()
    with pytest.raises(ValueError, match=message):
        make_trainer(dataset, make_callback(dataset), make_arguments(tmp_path, **options))


def test_a_dataset_that_is_shorter_than_the_run_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`num_samples` must cover the run: max_steps=25.*are 100; got 96"
    ):
        train(tmp_path, max_steps=25)


def test_another_dataset_than_the_trainers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`train_dataset` of the Trainer must be the dataset of"):
        train(tmp_path, callback=make_callback(make_dataset()))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": {}}, ValueError, r"`targets` must map names.*at least one.*got \{\}"),
        ({"targets": None}, ValueError, "`targets` must map names"),
        (
            {"targets": {"arc": "arc.jsonl"}},
            TypeError,
            r"`targets\['arc'\]` must be a datasets.Dataset",
        ),
        (
            {"targets": {"arc": rows(0, 3).select([])}},
            ValueError,
            r"targets\['arc'\]` must have rows",
        ),
        (
            {"targets": {"arc": Dataset.from_dict({"text": ["a"]})}},
            ValueError,
            r"targets\['arc'\]` must have a column 'input_ids'.*tokenize_and_pack",
        ),
        (
            {"targets": {"arc": rows(0, 3).add_column("answer", ["a"] * 3)}},
            ValueError,
            r"targets\['arc'\]` may have the columns .*got also answer",
        ),
        ({"mixer": "tikmix_dd"}, ValueError, "tikmix_d"),
        ({"every_steps": 0}, ValueError, "`every_steps` must be whole and at least 1; got 0"),
        ({"every_steps": 2.5}, ValueError, "`every_steps` must be whole and at least 1; got 2.5"),
        ({"at_steps": [0]}, ValueError, "`at_steps` must be whole and at least 1; got 0"),
        ({"at_steps": []}, ValueError, "`at_steps` must name a step"),
        ({"budget": 0}, ValueError, r"`budget` must be a share of the run's tokens .* got 0"),
        (
            {"noise_guard": -1.0},
            ValueError,
            "`noise_guard` must be finite and not negative; got -1",
        ),
        ({"num_rows": 0}, ValueError, "`num_rows` must be whole and at least 1"),
        ({"on_error": "ignore"}, ValueError, "`on_error` must be 'keep' or 'raise'"),
        ({"preconditioner": "adamw"}, ValueError, "adam"),
    ],
    ids=str,
)
def test_bad_arguments_are_named_with_their_mend(options, error, message):
    with pytest.raises(error, match=message):
        make_callback(make_dataset(), **options)


def test_the_dataset_must_be_ours():
    with pytest.raises(TypeError, match="`dataset` must be the InterleavedDomainDataset"):
        TikMixCallback(rows(0, 5), targets=make_targets())


def test_the_state_is_json(tmp_path):
    _, callback = train(tmp_path)
    assert json.loads(json.dumps(callback.state())) == callback.state()


class _Count(NamedTuple):
    notes: tuple[str, ...] = ()
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class _Rotates(Mixer):
    """Needs no signal: one domain after the other, counted in its state."""

    state_type: ClassVar[type] = _Count

    def init(self, prior):
        return _Count()

    def propose(self, state, signals):
        assert signals.influence is None
        return np.eye(4)[state.steps % 4], _Count((f"turn {state.steps}",), state.steps + 1)


def test_a_mixer_without_signals_is_asked_and_its_state_goes_on(tmp_path):
    dataset = make_dataset()
    callback = make_callback(dataset, mixer=_Rotates())
    arguments = make_arguments(tmp_path, save_strategy="steps", save_steps=9)
    make_trainer(dataset, callback, arguments).train()
    chosen = [segment.mixture.argmax() for segment in dataset.schedule.segments[1:]]
    assert chosen == [0, 1, 2, 3, 0]
    assert [record.influence for record in callback.updates] == [None] * 5

    dataset = make_dataset()
    callback = make_callback(dataset, mixer=_Rotates())
    trainer = make_trainer(dataset, callback, arguments)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    assert [segment.mixture.argmax() for segment in dataset.schedule.segments[1:]] == chosen
    assert [record.notes for record in callback.updates] == [("turn 2",), ("turn 3",), ("turn 4",)]


@dataclass(frozen=True, kw_only=True)
class _Answers(Mixer):
    answer: tuple[float, ...]

    def init(self, prior):
        return State()

    def propose(self, state, signals):
        return np.array(self.answer), State()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((float("nan"), 1, 0, 0), "finite"),
        ((1.5, -0.5, 0, 0), "not negative"),
        ((0.5, 0.5), "one share per domain"),
        ((0.5, 0.1, 0.1, 0.1), "sum to 1"),
    ],
)
def test_a_mixer_that_answers_nonsense_changes_nothing(tmp_path, answer, reason):
    trainer, callback = train(tmp_path, mixer=_Answers(answer=answer), at_steps=[3])
    assert trainer.state.global_step == 24
    assert reason in callback.updates[0].notes[0]
    assert len(callback.dataset.schedule.segments) == 1


def test_a_dataset_that_another_run_or_a_replay_changes_is_refused(tmp_path):
    trainer, callback = train(tmp_path)
    used = callback.dataset
    with pytest.raises(ValueError, match="`dataset` already changes its mixture up to sample"):
        train(tmp_path, dataset=used)
    replay = make_dataset(mixture=used.schedule)
    trainer, callback = train(tmp_path, dataset=replay, mixer="static")
    assert trainer.model.read == addresses(replay, 96)
    assert replay.schedule.to_dict()["segments"] == used.schedule.to_dict()["segments"]


def test_more_updates_than_there_is_room_for_are_refused_at_once(tmp_path):
    with pytest.raises(
        ValueError, match=r"`max_updates` of the dataset must cover the run's 5 .*got 2"
    ):
        train(tmp_path, dataset=make_dataset(max_updates=2))


@pytest.mark.parametrize("options", [{"at_steps": [23, 24]}, {"every_steps": 23}], ids=str)
def test_steps_that_all_come_too_late_are_refused_unless_the_mixer_never_changes(
    tmp_path, caplog, options
):
    (argument,) = options
    with pytest.raises(ValueError, match=f"`{argument}` must leave an update by step 22 of 24"):
        train(tmp_path, **options)
    train(tmp_path, mixer="static", **options)
    assert f"`{argument}` must leave an update by step 22" in caplog.text


def test_a_resumed_run_needs_room_for_the_changes_made_and_the_updates_left(tmp_path):
    dataset = make_dataset()
    arguments = make_arguments(tmp_path, save_strategy="steps", save_steps=9)
    make_trainer(dataset, make_callback(dataset, mixer=_Rotates()), arguments).train()
    for room, refused in ((4, True), (5, False)):  # two changes by step 9, three updates after it
        dataset = make_dataset(max_updates=room)
        callback = make_callback(dataset, mixer=_Rotates())
        trainer = make_trainer(dataset, callback, arguments)
        message = r"`max_updates` .* the run's 3 updates left, after 2 changes; got 4"
        with pytest.raises(ValueError, match=message) if refused else nullcontext():
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_evaluating_on_the_dataset_that_is_trained_on_is_refused(tmp_path):
    dataset = make_dataset()
    arguments = make_arguments(tmp_path, eval_strategy="steps", eval_steps=3)
    trainer = make_trainer(dataset, make_callback(dataset), arguments, eval_dataset=dataset)
    with pytest.raises(
        ValueError, match="`eval_dataset` must not be the dataset that training reads"
    ):
        trainer.train()


def test_evaluating_on_held_out_rows_changes_nothing_in_what_is_read(tmp_path):
    dataset = make_dataset(num_samples=48)
    arguments = make_arguments(tmp_path, eval_strategy="steps", eval_steps=3, num_train_epochs=2)
    heldout = dataset.domains["d0"].heldout
    trainer = make_trainer(dataset, make_callback(dataset), arguments, eval_dataset=heldout)
    trainer.train()
    assert trainer.model.read == addresses(dataset, 96)
    assert dataset[0]["input_ids"][:3].tolist() == addresses(dataset, 1)[0]  # epoch 0 again


def test_measured_rows_go_through_the_collator_that_was_given(tmp_path):
    seen = []

    def collate(features):
        seen.append(len(features))
        return PackedCollator()(features)

    dataset = make_dataset()
    callback = make_callback(
        dataset,
        measurement=Measurement(data_collator=collate, batch_size=3, num_rounds=1),
        preconditioner="sign",  # kfac would read some of them twice
        at_steps=[2],
    )
    train(tmp_path, dataset=dataset, callback=callback)
    assert seen == [3, 3, 2] * 6  # eight rows of each of two targets and four domains


def test_the_preconditioner_and_its_damping_are_the_ones_asked_for(tmp_path):
    matrices = []
    for number, damping in enumerate((0.1, 10.0)):
        dataset = make_dataset()
        callback = make_callback(
            dataset,
            preconditioner=preconditioners.load("adam")(damping=damping),
            at_steps=[2],
            observe=True,
        )
        train(tmp_path / str(number), dataset=dataset, callback=callback)
        assert callback.influence.preconditioner == "adam"
        matrices.append(callback.influence.values)
    # A hundredfold damping of a denominator shrinks every entry.
    assert (np.abs(matrices[1]) < np.abs(matrices[0])).all()


def test_an_update_waits_behind_a_change_that_was_announced_with_more_workers(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 8}
    workers = {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4}
    dataset = make_dataset()
    arguments = make_arguments(tmp_path, **options, **workers)
    make_trainer(dataset, make_callback(dataset, at_steps=[8]), arguments).train()
    assert dataset.schedule.segments[-1].from_sample == 4 * (8 + 9)
    dataset = make_dataset()
    callback = make_callback(dataset, at_steps=[8, 9])
    trainer = make_trainer(dataset, callback, make_arguments(tmp_path, **options))
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert [segment.from_sample for segment in dataset.schedule.segments] == [0, 68, 72]
    assert trainer.model.read == addresses(dataset, 96)[32:]


def test_a_partial_checkpoint_in_the_output_folder_is_named_when_the_trainer_is_made(
    tmp_path, caplog
):
    (tmp_path / "checkpoint-8").mkdir()
    dataset = make_dataset()
    make_trainer(dataset, make_callback(dataset), make_arguments(tmp_path))
    assert "checkpoint-8 is a partial checkpoint" in caplog.text
    assert "last_complete_checkpoint" in caplog.text


def test_trackers_that_cannot_join_are_named(tmp_path, caplog, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", TrainerCallback)
    train(tmp_path, report_to=["mlflow"], at_steps=[2])
    assert "['TrainerCallback'] cannot be given the mixture" in caplog.text


def test_a_change_that_the_user_plans_before_training_is_kept(tmp_path):
    dataset = make_dataset()
    callback = make_callback(dataset, mixer="static", output_dir=tmp_path / "elsewhere")
    dataset.set_mixture({"d1": 1.0}, from_sample=50)
    trainer, _ = train(tmp_path, dataset=dataset, callback=callback)
    assert {address[0] for address in trainer.model.read[50:]} == {1}
    saved = MixtureSchedule.load(tmp_path / "elsewhere" / "schedule.json")
    assert saved.to_dict() == dataset.schedule.to_dict()
