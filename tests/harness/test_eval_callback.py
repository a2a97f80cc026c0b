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
from tikmix_hf.harness.evaluations import EVALUATIONS

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


def test_a_stopped_run_is_evaluated_at_its_end(tmp_path, data_dir):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 3

    train(tmp_path, [make_callback(data_dir), Stop()])
    assert [line["step"] for line in lines(tmp_path)] == [3]


@pytest.mark.parametrize("is_first", [False, True])
def test_a_run_that_is_stopped_at_an_update_evaluates_it(tmp_path, data_dir, is_first):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 4

    dataset = make_dataset()
    callbacks = [make_updates(dataset), make_callback(data_dir, at_updates=True, at_end=False)]
    order = callbacks[::-1] if is_first else callbacks
    train(tmp_path, [*order, Stop()], dataset=dataset, max_steps=9)
    assert dataset.schedule.segments[-1].update["step"] == 4
    assert lines(tmp_path)[-1]["step"] == 4


@pytest.mark.parametrize("is_first", [False, True])
def test_an_update_at_an_epochs_end_is_evaluated(tmp_path, data_dir, is_first):
    dataset = make_dataset(num_samples=16)  # 4 steps
    callbacks = [make_updates(dataset), make_callback(data_dir, at_updates=True, at_end=False)]
    order = callbacks[::-1] if is_first else callbacks
    train(tmp_path, order, dataset=dataset, num_train_epochs=2, max_steps=-1)
    assert any(segment.update.get("step") == 4 for segment in dataset.schedule.segments)
    assert 4 in [line["step"] for line in lines(tmp_path)]


def test_a_stopped_run_is_evaluated_before_the_best_checkpoint_is_brought_back(tmp_path, data_dir):
    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            args.load_best_model_at_end = True  # the Trainer asks for a metric, too, if told before

        def on_step_end(self, args, state, control, model, **kwargs):
            self.last = model.lm_head.weight.sum().item()
            control.should_training_stop = state.global_step == 4

        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 2:
                state.best_model_checkpoint = str(tmp_path / "checkpoint-2")

    callback, stop, seen = make_callback(data_dir), Stop(), []
    score = callback._harness.score
    callback._harness.score = lambda model, tokenizer: (
        seen.append(model.lm_head.weight.sum().item()) or score(model, tokenizer)
    )
    trainer = train(tmp_path, [callback, stop], save_strategy="steps", save_steps=2)
    assert seen == [stop.last]
    assert trainer.model.lm_head.weight.sum().item() != stop.last


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


# Going on


def test_a_resumed_run_takes_back_later_lines_and_makes_the_same_again(tmp_path, data_dir):
    def run(folder, resume=None):
        dataset = make_dataset()
        callbacks = [make_updates(dataset), make_callback(data_dir, every_steps=2)]
        settings = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
        train(folder, callbacks, dataset=dataset, resume=resume, **settings)
        return [{**line, "seconds": 0, "tasks": scores_of(line)} for line in lines(folder)]

    def scores_of(line):
        return {name: {**own, "seconds": 0} for name, own in line["tasks"].items()}

    whole = run(tmp_path)
    assert [line["step"] for line in whole] == [2, 4, 6, 8]
    assert run(tmp_path, resume=str(tmp_path / "checkpoint-4")) == whole


class _Kill(TrainerCallback):
    """Ends a run at a step: right after its checkpoint is saved, or as the next step begins."""

    def __init__(self, hook, step):
        self.hook, self.step = hook, step

    def on_save(self, args, state, control, **kwargs):
        self._maybe("on_save", state)

    def on_step_begin(self, args, state, control, **kwargs):
        self._maybe("on_step_begin", state)

    def _maybe(self, hook, state):
        if (hook, state.global_step) == (self.hook, self.step):
            raise KeyboardInterrupt


@pytest.fixture(scope="module", params=[False, True], ids=["after", "before"])
def run_with_updates(request, data_dir):
    """Runs with updates, each evaluated by a callback that stands after theirs or before it."""

    def run(folder, kill=None, **options):
        dataset = make_dataset()
        callbacks = [make_updates(dataset), make_callback(data_dir, at_updates=True, every_steps=5)]
        settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 7, **options}
        extra = [] if kill is None else [_Kill(*kill)]
        order = callbacks[::-1] if request.param else callbacks
        return train(folder, [*order, *extra], dataset=dataset, **settings)

    return run


def evaluations(folder):
    """What is written of each evaluation, but for its seconds."""
    return [
        {**line, "seconds": 0, "tasks": {n: {**t, "seconds": 0} for n, t in line["tasks"].items()}}
        for line in lines(folder)
    ]


@pytest.fixture(scope="module")
def whole(run_with_updates, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trainer = run_with_updates(folder, save_strategy="no")
    return evaluations(folder), trainer.state.log_history


@pytest.mark.parametrize(
    ("hook", "step", "checkpoint"),
    [
        ("on_save", 4, 4),  # the update of step 4 is announced and saved
        ("on_step_begin", 4, 4),  # ... and evaluated
        ("on_step_begin", 4, 3),
        ("on_save", 5, 5),  # a step without an update
    ],
)
def test_a_killed_run_has_each_evaluation_once_when_it_is_resumed(
    run_with_updates, whole, tmp_path, hook, step, checkpoint
):
    written, history = whole
    assert {4, 5, 7} <= {line["step"] for line in written}
    with pytest.raises(KeyboardInterrupt):
        run_with_updates(tmp_path, kill=(hook, step))
    resumed = run_with_updates(tmp_path, resume=str(tmp_path / f"checkpoint-{checkpoint}"))
    assert evaluations(tmp_path) == written

    def steps(entries):
        return [entry["step"] for entry in entries if "eval/arc_easy/acc" in entry]

    assert steps(resumed.state.log_history) == steps(history) == [line["step"] for line in written]


def test_a_replayed_schedule_announces_nothing_when_it_is_resumed(tmp_path, data_dir):
    made = make_dataset()
    train(tmp_path / "made", [make_updates(made)], dataset=made, max_steps=9)
    at = made.schedule.segments[-1].update["step"]
    assert at
    settings = {"save_strategy": "steps", "save_steps": at, "max_steps": 9}
    for resume in (None, str(tmp_path / f"checkpoint-{at}")):
        dataset = make_dataset(mixture=made.schedule)
        callback = make_callback(data_dir, at_updates=True)
        train(tmp_path, [callback], dataset=dataset, resume=resume, **settings)
        assert [line["step"] for line in lines(tmp_path)] == [9]


def test_a_step_that_was_scored_is_not_scored_again(tmp_path, data_dir):
    # A run of one epoch, and once more from its last checkpoint: no step is left.
    for resume in (None, str(tmp_path / "checkpoint-4")):
        callback = make_callback(data_dir)
        settings = {"save_strategy": "steps", "save_steps": 4, "max_steps": -1}
        train(tmp_path, [callback], dataset=make_dataset(num_samples=16), resume=resume, **settings)
        assert [line["step"] for line in lines(tmp_path)] == [4]
        assert len(callback.evaluations) == (resume is None)


def test_another_runs_file_is_set_aside(tmp_path, data_dir):
    for _ in range(2):
        train(tmp_path, [make_callback(data_dir)], max_steps=1)
    assert [line["step"] for line in lines(tmp_path)] == [1]
    assert (tmp_path / f"previous-{EVALUATIONS}").is_file()


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
