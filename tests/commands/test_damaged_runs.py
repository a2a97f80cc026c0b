"""A run's folder with a damaged or missing file: one line that names it, and nothing printed."""

from __future__ import annotations

import json

import pytest
from command_files import make_record, make_schedule

from tikmix_hf import cli


def refused(capsys, *words: str, status: int = 2) -> str:
    assert cli.main(words) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{nonsense", "line 1 is not JSON"),
        ("[3]", "line 1 must be an object; got '[3]'"),
        ('{"step": 3}', "line 1: `mixture` must be an object; got 'None'"),
        (json.dumps({**make_record(3, None), "tokens": "many"}), "`tokens` must be a number; got"),
        (json.dumps({**make_record(3, None), "influence": {"targets": 1}}), "line 1: "),
    ],
)
@pytest.mark.parametrize(
    "words",
    [
        ["show", "runs/quickstart"],
        ["plot", "runs/quickstart", "--what", "influence"],
        ["plot", "runs/quickstart", "--what", "audit"],
    ],
    ids=" ".join,
)
def test_a_damaged_record_is_named_and_nothing_is_printed(place, capsys, words, line, told):
    path = place / "runs/quickstart/influence.jsonl"
    path.write_text(f"{line}\n" + json.dumps(make_record(1, None)) + "\n")
    assert cli.main(words) == cli.WRONG
    printed = capsys.readouterr()
    assert printed.out == ""
    (said,) = printed.err.splitlines()
    assert "runs/quickstart/influence.jsonl is damaged: line 1" in said
    assert told in said


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"runs": {', "it breaks at line 1, character 11"),
        ('{"runs": [1]}', "`runs` must hold results by name; got '[1]'"),
        ('{"runs": {"a": 1}}', "`runs` must hold results by name"),
        ('{"runs": {"a": {"num_samples": "many"}}}', "a whole number, at least 1; got 'many'"),
        ('{"runs": {"a": {"num_samples": 0}}}', "a whole number, at least 1; got '0'"),
        ('{"runs": {"a": {"num_samples": true}}}', "a whole number, at least 1; got 'True'"),
        (b"\xff\xfe", "must be text in UTF-8; byte 0 is none"),
    ],
)
@pytest.mark.parametrize("words", [["show"], ["plot"], ["diff", "mixture.json"]], ids=" ".join)
def test_damaged_metrics_are_named(place, capsys, words, text, told):
    make_schedule(0.5, num_samples=None).save(place / "runs/other/schedule.json")
    content = text if isinstance(text, bytes) else text.encode()
    (place / "runs/other/metrics.json").write_bytes(content)
    said = refused(capsys, *words, "runs/other")
    assert "runs/other/metrics.json" in said
    assert told in said


def test_a_folder_of_other_schedules_suggests_one(place, capsys):
    make_schedule(0.5).save(place / "runs/dry/schedule-tikmix_d.json")
    told = refused(capsys, "show", "runs/dry")
    assert "Did you mean runs/dry/schedule-tikmix_d.json?" in told
