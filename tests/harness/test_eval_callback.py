"""EvalCallback on the stock Trainer: when it asks, what it writes, and that it leaves no trace."""

from __future__ import annotations

import errno
import itertools
import logging
import random
from pathlib import Path

import benchmarks
import numpy as np
import pytest
import torch
from tiny import (
    LENGTH,
    assert_same_bits,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
    parameters,
    rows,
)
from transformers import TrainerCallback

from tikmix_hf import TikMixCallback
from tikmix_hf.files import read_records
from tikmix_hf.harness import EvalCallback, Harness, Suite
from tikmix_hf.harness.evaluations import EVALUATIONS
from tikmix_hf.updates.measurement import Measurement

ARC = Suite(name="arc_only", tasks=(benchmarks.ARC,))
BATCH = 4


def make_callback(data_dir, suite=ARC, **options) -> EvalCallback:
    harness = Harness(suite, data_dir=data_dir, progress=options.pop("progress", False))
    return EvalCallback(harness, tokenizer=benchmarks.make_tokenizer(), **options)


def make_updates(dataset, **options) -> TikMixCallback:
    settings = {"targets": make_targets(), "every_steps": 2, "num_rows": 8, "noise_guard": 0.0}
    measurement = Measurement(num_rounds=2)
    return TikMixCallback(
        dataset, measurement=measurement, progress=False, **{**settings, **options}
    )


def train(folder, callbacks, *, dataset=None, model=None, resume=None, **options):
    options = {"max_steps": 6, "train_sampling_strategy": "sequential", **options}
    dataset = dataset or make_dataset()
    arguments = make_arguments(folder, **options)
    trainer = make_trainer(dataset, None, arguments, model, callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder) -> list[dict]:
    return list(read_records(folder / EVALUATIONS))


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
    harness = Harness(benchmarks.SUITE, data_dir=data_dir, progress=False)
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


# Training is left as it is


class _Probe(TrainerCallback):
    """Writes down the random states at the start of every step."""

    def __init__(self):
        self.states = []

    def on_step_begin(self, args, state, control, **kwargs):
        numpy = np.random.get_state()  # noqa: NPY002 - the generator that training may use
        self.states.append((random.getstate(), numpy[1].tolist(), torch.get_rng_state().tolist()))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation_checkpointing": True},
        {"dataloader_num_workers": 1},
    ],
    ids=str,
)
def test_evaluating_leaves_training_as_it_is_to_the_last_bit(tmp_path, data_dir, options):
    runs = []
    for evaluates in (False, True):
        dataset, model, probe = make_dataset(), make_model(dropout=0.2), _Probe()
        callback = make_callback(data_dir, benchmarks.SUITE, every_steps=2, at_updates=True)
        train(
            tmp_path / str(evaluates),
            [make_updates(dataset), *([callback] if evaluates else []), probe],
            dataset=dataset,
            model=model,
            gradient_accumulation_steps=2,
            **options,
        )
        runs.append((model, probe, dataset))
    assert [line["step"] for line in lines(tmp_path / "True")] == [2, 4, 6]
    assert not any(evaluation.scores.failures for evaluation in callback.evaluations)
    (plain, states, schedule), (asked, asked_states, asked_schedule) = runs
    assert plain.read == asked.read
    assert schedule.schedule.to_dict() == asked_schedule.schedule.to_dict()
    assert states.states == asked_states.states
    assert_same_bits(parameters(plain), parameters(asked))


def test_the_model_and_all_around_it_are_as_they_were(data_dir):
    import datasets

    model, tokenizer = make_model(dropout=0.2), benchmarks.make_tokenizer()
    model.activation_checkpointing_enable()
    model.config.use_cache = False
    model.train()
    model.model.layers[0].eval()
    model.model.norm.weight.requires_grad_(False)
    ids = torch.randint(0, 100, (2, 12))
    model(input_ids=ids, labels=ids).loss.backward()
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets", "transformers", "")]

    def everything():
        return {
            "tokenizer": (tokenizer.pad_token, tokenizer.padding_side, len(tokenizer)),
            "backend": tokenizer.backend_tokenizer.to_str(),
            "config": model.config.to_dict(),
            "generation": (id(model.generation_config), model.generation_config.to_dict()),
            "modes": [module.training for module in model.modules()],
            "parameters": [(name, id(p), p.requires_grad) for name, p in model.named_parameters()],
            "values": [p.detach().tolist() for p in model.parameters()],
            "gradients": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
            "checkpointing": [
                module.gradient_checkpointing for module in model.modules()
                if "gradient_checkpointing" in vars(module)
            ],
            "hooks": [len(module._forward_hooks) for module in model.modules()],
            "attributes": [sorted(vars(module)) for module in model.modules()],
            "grad": torch.is_grad_enabled(),
            "levels": [logger.level for logger in loggers],
            "handlers": [len(logger.handlers) for logger in loggers],
            "bars": datasets.are_progress_bars_disabled(),
            "random": (random.getstate(), torch.get_rng_state().tolist()),
        }  # fmt: skip

    before = everything()
    assert before["tokenizer"][0] is None
    assert any(before["checkpointing"])
    scores = Harness(benchmarks.SUITE, data_dir=data_dir).score(model, tokenizer)
    assert not scores.failures
    after = everything()
    for name, value in before.items():
        assert after[name] == value, name


# Failures


def spoil(folder: Path, cause: str) -> str:
    """Makes arc_easy's rows unfit; returns what the report must say."""
    test = folder / "arc_easy" / "test.jsonl.gz"
    good = [benchmarks.arc(number) for number in range(7)]
    test.unlink()
    if cause == "missing":
        return "Add test.jsonl beside them"
    plain = test.with_name("test.jsonl")
    if cause == "not json":
        benchmarks.write_rows(plain, good)
        plain.write_text(plain.read_text()[:-30])
        return "test.jsonl must be JSON lines"
    if cause == "no column":
        benchmarks.write_rows(
            plain, [{k: v for k, v in row.items() if k != "choices"} for row in good]
        )
        return (
            "rows of arc_easy (arc_easy/train.jsonl, arc_easy/test.jsonl) do not fit it: Undefined"
        )
    if cause == "empty field":
        good[2].pop("question")
        expected = "question 3 of its test: its field 'question' is empty"
    elif cause == "wrong label":
        good[4]["answerKey"] = "Z"
        expected = "question 5 of its test: 'Z' is not in list"
    else:
        good[0]["answerKey"] = "Z"
        expected = "do not fit it: 'Z' is not in list"
    benchmarks.write_rows(plain, good)
    return expected


CAUSES = ["missing", "not json", "no column", "empty field", "wrong label", "first label wrong"]


@pytest.mark.parametrize("cause", CAUSES)
def test_a_failing_task_is_reported_and_stops_nothing(tmp_path, caplog, cause):
    folder = benchmarks.write(tmp_path / "data")
    expected = spoil(folder, cause)
    suite = Suite(name="two", tasks=(benchmarks.ARC, benchmarks.PIQA))
    callback = make_callback(folder, suite, every_steps=1)
    trainer = train(tmp_path / "run", [callback], max_steps=2)
    assert trainer.state.global_step == 2
    for line in lines(tmp_path / "run"):
        failure = line["tasks"]["arc_easy"]["failure"]
        assert expected in failure
        assert "arc_easy" in failure
        assert "\n" not in failure
        assert line["tasks"]["arc_easy"]["values"] == {}
        assert line["tasks"]["piqa"]["failure"] is None
        assert line["tasks"]["piqa"]["values"]["acc"] >= 0
    reports = [
        record.getMessage() for record in caplog.records if "arc_easy" in record.getMessage()
    ]
    assert len(reports) == 2
    assert expected in reports[0]
    assert "step 1, suite two, arc_easy: " in reports[0]


def test_a_label_that_no_choice_has_is_no_wrong_answer(tmp_path):
    # lm-eval scores such a row 0, whatever the model says.
    folder = benchmarks.write(tmp_path / "data")
    for label, message in (
        (2, "right answer 2 is not among its 2"),
        (-1, "right answer -1 is not"),
    ):
        wrong = [{**benchmarks.piqa(number), "label": label} for number in range(3)]
        good = [benchmarks.piqa(number) for number in range(3)]
        benchmarks.write_rows(folder / "piqa" / "validation.jsonl", good + wrong)
        suite = Suite(name="piqa", tasks=(benchmarks.PIQA,))
        harness = Harness(suite, data_dir=folder, progress=False)
        failure = harness.score(make_model(), benchmarks.make_tokenizer()).failures["piqa"]
        assert f"question 4 of its validation: its {message}" in failure
        assert "piqa/validation.jsonl" in failure


def test_a_solved_example_must_be_solved_and_an_answer_given(tmp_path):
    folder = benchmarks.write(tmp_path / "data")
    wrong = [{**benchmarks.piqa(number), "label": -1} for number in range(9)]
    benchmarks.write_rows(folder / "piqa" / "train.jsonl", wrong)
    unanswered = benchmarks.triviaqa(1)
    unanswered["answer"]["aliases"] = None
    asked = [benchmarks.triviaqa(0), unanswered]
    (folder / "triviaqa" / "validation_7.jsonl.gz").unlink()
    benchmarks.write_rows(folder / "triviaqa" / "validation.jsonl", asked)
    harness = Harness(benchmarks.SUITE, data_dir=folder, progress=False)
    failures = harness.score(make_model(), benchmarks.make_tokenizer()).failures
    assert "right answer -1 of a solved example" in failures["piqa"]
    assert "question 2 of its validation: its right answers must be a list" in failures["triviaqa"]
    assert "arc_easy" not in failures


def test_a_limit_asks_only_about_its_own_questions(tmp_path):
    folder = benchmarks.write(tmp_path / "data")
    spoil(folder, "wrong label")
    for limit, fails in ((4, False), (5, True)):
        harness = Harness(ARC, data_dir=folder, limit=limit, progress=False)
        scores = harness.score(make_model(), benchmarks.make_tokenizer())
        assert bool(scores.failures) == fails
        assert scores["arc_easy"].num_questions == (0 if fails else limit)


def test_a_failing_task_stops_training_where_the_user_asked_for_it(tmp_path):
    folder = benchmarks.write(tmp_path / "data")
    spoil(folder, "missing")
    with pytest.raises(FileNotFoundError, match=r"Add test.jsonl"):
        train(tmp_path / "run", [make_callback(folder, on_error="raise")])


class _Poisoned(TrainerCallback):
    def on_step_end(self, args, state, control, model, **kwargs):
        torch.nn.init.constant_(model.lm_head.weight, float("nan"))


def test_a_model_that_diverged_is_written_down_as_such(tmp_path, data_dir):
    train(tmp_path, [_Poisoned(), make_callback(data_dir, every_steps=1)], max_steps=2)
    (_, line) = lines(tmp_path)
    assert line["tasks"]["arc_easy"]["values"]["bits_per_byte"] is None
    assert "NaN" not in (tmp_path / EVALUATIONS).read_text()


def test_a_full_disk_loses_no_line_and_stops_nothing(tmp_path, data_dir, monkeypatch, caplog):
    write, is_full = Path.write_text, itertools.cycle([False, True, True, False]).__next__
    contents = []

    def write_half(path, text, *args, **kwargs):
        if EVALUATIONS not in path.name:
            return write(path, text, *args, **kwargs)
        contents.append((tmp_path / EVALUATIONS).read_text() if contents else "")
        if not is_full():
            return write(path, text, *args, **kwargs)
        write(path, text[: len(text) // 2], *args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_half)
    trainer = train(tmp_path, [make_callback(data_dir, every_steps=1)], max_steps=4)
    assert trainer.state.global_step == 4
    assert [len(text.splitlines()) for text in contents] == [0, 1, 1, 1]
    assert contents[1] == contents[2] == contents[3]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    reports = [
        record.getMessage() for record in caplog.records if "No space" in record.getMessage()
    ]
    assert len(reports) == 2
    assert "2 wait for the next evaluation" in reports[1]
    assert [path.name for path in tmp_path.iterdir()] == [EVALUATIONS]


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


def test_another_runs_file_is_set_aside(tmp_path, data_dir):
    for _ in range(2):
        train(tmp_path, [make_callback(data_dir)], max_steps=1)
    assert [line["step"] for line in lines(tmp_path)] == [1]
    assert (tmp_path / f"previous-{EVALUATIONS}").is_file()


# What people see


def test_nothing_is_shown_where_nothing_is_wanted(tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO)
    folder = benchmarks.write(tmp_path / "data", num_questions=3)
    harness = Harness(benchmarks.SUITE, data_dir=folder, progress=False)
    harness.score(make_model(), benchmarks.make_tokenizer())
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("", "")
    assert not [record for record in caplog.records if record.name.startswith("lm_eval")]


def test_one_bar_names_the_task_that_runs(tmp_path, capfd):
    folder = benchmarks.write(tmp_path / "data", num_questions=3)
    harness = Harness(benchmarks.SUITE, data_dir=folder)
    harness.score(make_model(), benchmarks.make_tokenizer())
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "\n" not in shown.err  # of several bars each has a line
    for task in benchmarks.SUITE.tasks:
        assert f"made_up: {task.task}: " in shown.err
    for other in ("Generating", "requests", "Tokenizing"):
        assert other not in shown.err


def test_an_evaluation_is_told_in_one_line(tmp_path, data_dir, capsys):
    train(tmp_path, [make_callback(data_dir, progress=True)], max_steps=1, disable_tqdm=False)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[tikmix]")]
    values = lines(tmp_path)[0]["tasks"]["arc_easy"]
    score = f"{values['values']['acc_norm']:.4f} ± {values['standard_errors']['acc_norm']:.4f}"
    assert len(told) == 1
    assert f"step 1, suite arc_only: arc_easy acc_norm {score} (" in told[0]


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
