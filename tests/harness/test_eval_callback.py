"""EvalCallback on the stock Trainer: when it asks, what it writes, what it refuses."""

from __future__ import annotations

import json

import benchmarks
import pytest
import torch
from eval_runs import ARC, BATCH, lines, make_callback, make_updates, train
from tiny import (
    LENGTH,
    make_arguments,
    make_dataset,
    make_model,
    make_trainer,
    rows,
)
from transformers import TrainerCallback

from tikmix_hf.harness import EvalCallback, Harness, Suite

# When


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"every_steps": 2}, [2, 4, 6]),
        ({"every_steps": 4}, [4, 6]),
        ({"every_steps": 4, "at_end": False}, [4]),
        ({}, [6]),
    ],
    ids=str,
)
def test_it_evaluates_every_n_steps_and_at_the_end(tmp_path, data_dir, options, steps):
    callback = make_callback(data_dir, **options)
    train(tmp_path, [callback])
    assert [line["step"] for line in lines(tmp_path)] == steps
    assert [evaluation.step for evaluation in callback.evaluations] == steps


@pytest.mark.parametrize("is_first", [False, True])
def test_it_evaluates_at_updates_wherever_it_stands(tmp_path, data_dir, is_first):
    dataset = make_dataset()
    updates = make_updates(dataset)
    callback = make_callback(data_dir, at_updates=True, at_end=False)
    weights = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            weights[state.global_step] = model.lm_head.weight.sum().item()

    seen = []
    score = callback._harness.score
    callback._harness.score = lambda model, tokenizer: (
        seen.append(model.lm_head.weight.sum().item()) or score(model, tokenizer)
    )
    order = [callback, updates] if is_first else [updates, callback]
    train(tmp_path, [Watch(), *order], dataset=dataset, max_steps=9)
    changed = [record.step for record in updates.updates if record.from_sample is not None]
    assert len(changed) >= 2
    assert [line["step"] for line in lines(tmp_path)] == changed
    assert seen == [weights[step] for step in changed]


# What


def test_a_line_joins_scores_to_what_was_read_and_to_the_mixture(tmp_path, data_dir):
    dataset = make_dataset()
    callback = make_callback(data_dir, every_steps=3)
    train(
        tmp_path,
        [make_updates(dataset), callback],
        dataset=dataset,
        max_steps=12,
        gradient_accumulation_steps=2,
    )
    schedule = dataset.schedule
    assert len(schedule.segments) >= 3
    for line, evaluation in zip(lines(tmp_path), callback.evaluations, strict=True):
        num_samples = line["step"] * BATCH * 2
        names = [dataset.domain_of(sample) for sample in range(num_samples)]
        assert line["num_samples"] == num_samples
        assert line["num_tokens"] == num_samples * LENGTH
        assert line["tokens"] == {
            name: LENGTH * names.count(name) for name in dataset.domains.names
        }
        assert line["mixture"] == schedule.mixture_at(num_samples - 1)
        starts = [segment.from_sample for segment in schedule.segments]
        assert line["segment"] == max(n for n, start in enumerate(starts) if start < num_samples)
        assert line["seconds"] > 0
        assert line["suite"] == "arc_only"
        assert line["tasks"] == evaluation.scores.to_dict()["tasks"]
        assert line["tasks"]["arc_easy"]["num_questions"] == 7
    assert len({line["segment"] for line in lines(tmp_path)}) >= 3


def test_trackers_and_the_history_get_scores_and_standard_errors(tmp_path, data_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    callback = make_callback(data_dir, every_steps=3)
    trainer = train(tmp_path, [callback], report_to=["tensorboard"])
    (folder,) = (tmp_path / "runs").iterdir()
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    history = [entry for entry in trainer.state.log_history if "eval/arc_easy/acc_norm" in entry]
    assert [entry["step"] for entry in history] == [3, 6]
    for name in ("bits_per_byte", "bits_per_byte_stderr", "acc", "acc_norm_stderr"):
        values = [
            evaluation.scores.scalars()[f"eval/arc_easy/{name}"]
            for evaluation in callback.evaluations
        ]
        series = events.Scalars(f"eval/arc_easy/{name}")
        assert [event.step for event in series] == [3, 6]
        assert [event.value for event in series] == pytest.approx(values)
        assert [entry[f"eval/arc_easy/{name}"] for entry in history] == values


def test_each_run_has_its_scores_in_a_file_of_its_own(tmp_path, data_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    callback = make_callback(data_dir)
    for name in ("one", "two"):
        # A file that was not closed at the end of a run would get the next one's scores.
        train(tmp_path / name, [callback], report_to=["tensorboard"], max_steps=1)
    for name in ("one", "two"):
        (folder,) = (tmp_path / name / "runs").iterdir()
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("eval/arc_easy/acc")] == [1]


def test_the_last_scores_are_those_of_the_trained_model(tmp_path, data_dir):
    trainer = train(tmp_path, [make_callback(data_dir)])
    harness = Harness(ARC, data_dir=data_dir, progress=False)
    again = harness.score(trainer.model, benchmarks.make_tokenizer())
    assert lines(tmp_path)[-1]["tasks"]["arc_easy"]["values"] == again["arc_easy"].values


def test_asking_twice_gives_the_same_and_a_changed_model_another(data_dir):
    suite = benchmarks.SUITE.only(["arc_easy", "piqa"])
    harness = Harness(suite, data_dir=data_dir, progress=False)
    model, tokenizer = make_model(), benchmarks.make_tokenizer()
    first, second = (harness.score(model, tokenizer).scalars() for _ in range(2))
    assert first == second
    torch.nn.init.normal_(model.lm_head.weight)
    assert harness.score(model, tokenizer).scalars() != first


def test_two_suites_share_a_runs_file(tmp_path, data_dir):
    piqa = Suite(name="piqa_only", tasks=(benchmarks.PIQA,))
    callbacks = [make_callback(data_dir, every_steps=3), make_callback(data_dir, piqa)]
    train(tmp_path, callbacks)
    found = [(line["step"], line["suite"]) for line in lines(tmp_path)]
    assert found == [(3, "arc_only"), (6, "arc_only"), (6, "piqa_only")]


def test_the_last_scores_are_in_the_last_checkpoint(tmp_path, data_dir):
    train(tmp_path, [make_callback(data_dir)], save_strategy="steps", save_steps=2, max_steps=2)
    state = json.loads((tmp_path / "checkpoint-2" / "trainer_state.json").read_text())
    found = [entry["step"] for entry in state["log_history"] if "eval/arc_easy/acc" in entry]
    assert found == [2]


def test_the_trainers_tokenizer_serves(tmp_path, data_dir):
    callback = EvalCallback(Harness(ARC, data_dir=data_dir, progress=False))
    tokenizer = benchmarks.make_tokenizer()
    trainer = make_trainer(
        make_dataset(),
        None,
        make_arguments(tmp_path, max_steps=1),
        extra=[callback],
        processing_class=tokenizer,
    )
    trainer.train()
    assert lines(tmp_path)[0]["tasks"]["arc_easy"]["failure"] is None


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_steps": 0}, "`every_steps` must be whole and at least 1; got 0"),
        ({"at_end": False}, "`every_steps` must be given where"),
        ({"on_error": "ignore"}, "`on_error` must be 'keep' or 'raise'; got 'ignore'"),
    ],
    ids=str,
)
def test_bad_arguments_are_named_with_their_mend(data_dir, options, message):
    with pytest.raises(ValueError, match=message):
        make_callback(data_dir, **options)


def test_a_run_without_a_tokenizer_is_refused(tmp_path, data_dir):
    callback = EvalCallback(Harness(ARC, data_dir=data_dir))
    with pytest.raises(ValueError, match=r"`tokenizer` must be the model's; got None.*processing"):
        train(tmp_path, [callback])


def test_other_datasets_are_scored_without_a_schedule(tmp_path, data_dir):
    train(tmp_path, [make_callback(data_dir)], dataset=rows(0, 40), max_steps=1)
    (line,) = lines(tmp_path)
    assert line["mixture"] is None
    assert line["num_samples"] is None
    assert line["tasks"]["arc_easy"]["failure"] is None
    with pytest.raises(ValueError, match=r"`at_updates` must be False unless .*is a Dataset"):
        train(tmp_path, [make_callback(data_dir, at_updates=True)], dataset=rows(0, 40))


def test_samples_in_another_order_are_not_joined(tmp_path, data_dir, caplog):
    train(tmp_path, [make_callback(data_dir)], max_steps=1, train_sampling_strategy="random")
    assert lines(tmp_path)[0]["mixture"] is None
    assert "not joined to the schedule" in caplog.text
    assert "`train_sampling_strategy` must be 'sequential'" in caplog.text
