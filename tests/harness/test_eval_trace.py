"""Evaluating leaves no trace: in training, in the model, around it, or on the screen."""

from __future__ import annotations

import logging
import random

import benchmarks
import datasets
import numpy as np
import pytest
import torch
from eval_runs import lines, make_callback, make_updates, train
from tiny import (
    assert_same_bits,
    make_dataset,
    make_model,
    parameters,
)
from transformers import TrainerCallback

from tikmix_hf.harness import Harness

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
        updates = make_updates(dataset, every_steps=None, at_steps=[1])
        callback = make_callback(data_dir, benchmarks.SUITE, every_steps=2, at_updates=True)
        train(
            tmp_path / str(evaluates),
            [updates, *([callback] if evaluates else []), probe],
            dataset=dataset,
            model=model,
            max_steps=4,
            gradient_accumulation_steps=2,
            **options,
        )
        runs.append((model, probe, dataset))
    assert [line["step"] for line in lines(tmp_path / "True")] == [1, 2, 4]
    assert not any(evaluation.scores.failures for evaluation in callback.evaluations)
    (plain, states, schedule), (asked, asked_states, asked_schedule) = runs
    assert plain.read == asked.read
    assert schedule.schedule.to_dict() == asked_schedule.schedule.to_dict()
    assert states.states == asked_states.states
    assert_same_bits(parameters(plain), parameters(asked))


def test_the_model_and_all_around_it_are_as_they_were(data_dir):
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
