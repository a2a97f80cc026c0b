"""EvalCallback in runs that end early or go on: each evaluation is there once, on right weights."""

from __future__ import annotations

import pytest
from eval_runs import lines, make_callback, make_updates, train
from tiny import make_dataset
from transformers import TrainerCallback

from tikmix_hf.harness.evaluations import EVALUATIONS

# Ending early


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
