"""What a suite or its file fails of stops neither the other tasks nor training."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import benchmarks
import pytest
import torch
from eval_runs import ARC, lines, make_callback, train
from tiny import (
    make_model,
)
from transformers import TrainerCallback

from tikmix_hf.harness import Harness, Suite
from tikmix_hf.harness.evaluations import EVALUATIONS


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
