"""What is read of a run's folder: whole, cut short, missing, and wrong."""

from __future__ import annotations

import copy
import json
import math
import random

import numpy as np
import pytest
from report_runs import write_lines, write_run

from tikmix_hf.report import read_run, read_runs
from tikmix_hf.report.page import page
from tikmix_hf.signals.matrix import InfluenceMatrix


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def lines(folder):
    return [json.loads(line) for line in (folder / "influence.jsonl").read_text().splitlines()]


def test_a_whole_run_is_read_as_it_was_written(folder):
    run = read_run(folder)
    assert run.faults == []
    assert run.domains == ("web", "code", "books")
    for update, line in zip(run.updates, lines(folder), strict=True):
        assert (update.step, update.from_sample) == (line["step"], line["from_sample"])
        assert update.realised == line["realised_tokens"]
        assert update.costs == line["costs"]
        assert update.influence is not None
        assert update.influence.values.tolist() == line["influence"]["values"]
    assert run.updates[0].audit is None
    assert run.updates[1].audit is not None
    assert [(s.task, s.step, s.error) for s in run.scores[:3]] == [
        ("arc_easy", 0, 0.025),
        ("cloze", 0, 0.025),
        ("arc_easy", 10, 0.025),
    ]
    assert [own.label for own in run.results] == ["tikmix_d", "static"]
    assert run.losses[0] == (5, 6.0 / 2**0.3)
    assert run.max_steps == 100
    assert run.model["model_type"] == "llama"


@pytest.mark.parametrize("has_targets_errors", [False, True])
def test_standard_errors_are_those_of_the_measurement(folder, has_targets_errors):
    (line, *_) = lines(folder)
    if has_targets_errors:
        line["influence"]["target_stderr"] = [[30.0] * 3] * 3
    write_lines(folder / "influence.jsonl", [line])
    influence = read_run(folder).updates[0].influence
    assert influence is not None
    expected_JK = InfluenceMatrix.from_dict(line["influence"]).stderr
    np.testing.assert_allclose(influence.stderr, expected_JK, rtol=1e-12)


def test_the_runs_length_comes_from_its_metrics_or_from_its_pace(folder):
    assert read_run(folder).num_samples == 168
    (folder / "metrics.json").unlink()
    # Announced from 48 and 128 on at steps 10 and 30: four samples a step, 100 steps.
    assert read_run(folder).num_samples == 400
    (folder / "checkpoint-100" / "trainer_state.json").unlink()
    assert read_run(folder).num_samples is None


def test_the_log_is_that_of_the_last_checkpoint(folder):
    older = folder / "checkpoint-20"
    older.mkdir()
    (older / "trainer_state.json").write_text(json.dumps({"max_steps": 7, "log_history": []}))
    (folder / "checkpoint-best").mkdir()
    assert read_run(folder).max_steps == 100


@pytest.mark.parametrize("cut", [1, 30, 1000])
def test_a_line_cut_short_is_left_out_and_said(folder, cut):
    path = folder / "influence.jsonl"
    text = path.read_text().rstrip("\n")
    path.write_text(text[:-cut])
    run = read_run(folder)
    assert [update.step for update in run.updates] == [10, 20]
    assert run.faults == ["Line 3 of influence.jsonl is cut short and is left out."]


def test_a_line_cut_within_a_letter_is_left_out(folder):
    path = folder / "influence.jsonl"
    path.write_bytes(path.read_bytes() + '{"step": "é'.encode()[:-1])
    run = read_run(folder)
    assert len(run.updates) == 3
    assert "Line 4" in run.faults[0]


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("mixture", {"web": "much"}, "`mixture.web` must be a number; got 'much'"),
        ("mixture", [0.5, 0.5], "`mixture` must be an object"),
        ("seconds", True, "`seconds` must be a number"),
        pytest.param("seconds", 10**400, "`seconds` must be finite", id="huge"),
        ("step", None, "`step` must be a number"),
        ("tokens", -1, "`tokens` must be at least 0; got -1"),
        ("planned_seconds", -0.5, "`planned_seconds` must be at least 0"),
        ("realised_tokens", {"web": -3}, "`realised_tokens.web` must be at least 0"),
        ("influence", {"targets": ["a"], "domains": ["b"], "values": [[1, 2]]}, "shape (1, 1)"),
        ("influence", {"targets": [], "domains": []}, "must name its targets"),
        ("influence", {"targets": 1, "domains": ["b"]}, "`influence.targets` must be a list"),
        ("audit", {"predicted": {"a": 1}, "realised": {"b": 1}}, "the same targets"),
    ],
)
def test_a_wrong_line_is_left_out_and_the_fault_named(folder, key, value, why):
    first, second, third = lines(folder)
    write_lines(folder / "influence.jsonl", [first, {**second, key: value}, third])
    run = read_run(folder)
    assert [update.step for update in run.updates] == [10, 30]
    assert "Line 2 of influence.jsonl cannot be read" in run.faults[0]
    assert why in run.faults[0]


@pytest.mark.parametrize("text", ["[" * 200_000, '{"step": NaN}', "null", "\x00", '{"a": 1e999}'])
def test_no_line_stops_the_reader(folder, text):
    for name in ("influence.jsonl", "evaluations.jsonl"):
        path = folder / name
        path.write_text(text + "\n" + path.read_text())
    run = read_run(folder)
    assert len(run.updates) == 3
    assert len(run.faults) == 2


def test_of_many_faults_three_are_told(folder):
    write_lines(folder / "influence.jsonl", [{} for _ in range(9)])
    faults = read_run(folder).faults
    assert len(faults) == 4
    assert faults[3] == "6 more lines of influence.jsonl are left out."


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`RUN` must be a folder with schedule.json"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match=r"`RUN` must be the folder of a run; .* is none"):
        read_run(tmp_path / "no")


def test_runs_of_one_name_get_names_that_tell_them_apart(tmp_path):
    folders = [write_run(tmp_path / parent / "run") for parent in ("a", "b")]
    folders += [write_run(tmp_path / "c"), write_run(tmp_path / "deeper" / "a" / "run")]
    labels = [run.label for run in read_runs(folders)]
    assert labels == ["a/run", "b/run", "c", "a/run (4)"]


def test_a_run_is_not_compared_with_itself(folder):
    with pytest.raises(ValueError, match=r"`RUN` must be different folders; .*run is given twice"):
        read_runs([folder, folder.parent / "." / "run"])


def test_what_diverged_is_left_out_of_the_log_and_the_results(folder):
    path = folder / "checkpoint-100" / "trainer_state.json"
    state = json.loads(path.read_text())
    state["log_history"][3] |= {"loss": math.nan, "grad_norm": math.inf}
    path.write_text(json.dumps(state))
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["runs"]["static"]["losses"]["arc"] = metrics["runs"]["static"]["mean_loss"] = math.nan
    (folder / "metrics.json").write_text(json.dumps(metrics))
    run = read_run(folder)
    assert run.faults == []
    assert [step for step, _ in run.losses][:4] == [5, 10, 15, 25]
    own, static = run.results
    assert (list(own.losses), list(static.losses)) == (["arc", "piqa", "boolq"], ["piqa", "boolq"])
    assert static.mean_loss is None
    page([run])


def test_whatever_a_file_holds_a_page_is_made(tmp_path):
    """Every leaf and branch of the files may be anything."""
    folder = write_run(tmp_path / "run", num_updates=2)
    rng = random.Random(0)
    files = {path: path.read_text() for path in folder.rglob("*.json*")}
    wrong = [None, True, -1, 1e300, -0.0, "text", [], {}, [[]], {"a": {}}, math.pi, "\ud800"]
    num_pages, num_runs = 0, 80
    for _ in range(num_runs):
        path = rng.choice(list(files))
        parsed = [json.loads(line) for line in files[path].splitlines()] if (
            path.suffix == ".jsonl") else json.loads(files[path])  # fmt: skip
        changed = _changed(parsed, rng, wrong)
        is_lines = path.suffix == ".jsonl" and isinstance(changed, list)
        written = "\n".join(map(json.dumps, changed)) + "\n" if is_lines else json.dumps(changed)
        path.write_text(written)
        page([read_run(folder)]).encode("utf-8")
        num_pages += 1
        path.write_text(files[path])
    assert num_pages == num_runs


def _changed(value, rng, wrong):
    """A copy with something in it replaced, or taken out."""
    value = copy.deepcopy(value)
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(wrong))
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if rng.random() < 0.1:
        del value[key]
    else:
        value[key] = _changed(value[key], rng, wrong)
    return value
