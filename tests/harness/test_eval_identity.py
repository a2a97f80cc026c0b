"""What tells one result of `tikmix eval` from another, and what it averages."""

from __future__ import annotations

import dataclasses

import benchmarks
import pytest
import tiny
import torch

from tikmix_hf.commands import eval as eval_command
from tikmix_hf.commands import eval_identity
from tikmix_hf.harness import Suite, SuiteScores, SuiteTask, TaskScores


def test_questions_of_the_hub_are_not_those_of_a_folder(tmp_path):
    suite = Suite(name="s", tasks=(benchmarks.ARC,), limit=2)
    hub, folder = (eval_identity.of_questions(suite, place) for place in (None, tmp_path))
    assert eval_identity.differing(hub, folder) == ["data (arc_easy)"]
    assert eval_identity.differing(hub, dict(hub)) == []
    assert hub["settings"]["arc_easy"]["limit"] == 2
    grouped = dataclasses.replace(benchmarks.ARC, group="in")
    same = eval_identity.of_questions(dataclasses.replace(suite, tasks=(grouped,)), None)
    assert eval_identity.differing(hub, same) == []


def test_averages_are_of_all_tasks_and_of_each_group():
    groups = {"a": "in", "b": "in", "c": "out", "d": None}
    tasks = tuple(SuiteTask(task=t, metric="acc", group=group) for t, group in groups.items())
    values = {"a": 0.1, "b": 0.3, "c": 0.5, "d": 0.7}
    scores = SuiteScores(
        suite="s",
        tasks=tuple(TaskScores(task=t, metric="acc", values={"acc": v}) for t, v in values.items()),
    )
    found = eval_command.averages(Suite(name="s", tasks=tasks), scores)
    assert found == {"all": pytest.approx(0.4), "in": pytest.approx(0.2), "out": 0.5}


def test_weights_tell_apart_two_checkpoints_of_a_run_in_any_precision():
    model = tiny.make_model()
    before = eval_identity.weights_hash(model)
    assert eval_identity.weights_hash(tiny.make_model()) == before
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert eval_identity.weights_hash(model) != before
    assert eval_identity.weights_hash(model.to(torch.bfloat16)) != before
