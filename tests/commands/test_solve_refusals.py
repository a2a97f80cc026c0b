"""What `tikmix solve` refuses: one line, and nothing written."""

from __future__ import annotations

import sys

import pytest

from tikmix_hf import cli


def refused(capsys, *words: str) -> str:
    assert cli.main(["solve", *words]) == cli.WRONG
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["no.csv"], "no.csv: No such file or directory."),
        (["runs"], "the folder runs has neither influence.json (of `tikmix influence`) nor"),
        (["constraints.yaml"], "`MATRIX` must be JSON"),
        (["mixture.json"], "must hold influence by target and domain"),
        (["matrix.csv", "--floor", "wbe=0.1"], "has no domain to bind 'wbe' to. Did you mean"),
        (["matrix.csv", "--floor", "web"], "`--floor` must be NAME=VALUE words, such as"),
        (["matrix.csv", "--floor", "web=some"], "`--floor` must be numbers; got 'some'"),
        (["matrix.csv", "--cap", "web=1", "web=0"], "`--cap` must name 'web' once"),
        (["matrix.csv", "--floor", "web=0.7", "code=0.6"], "`floors` must sum to at most 1"),
        (["matrix.csv", "--cap", "web=0.3", "code=0.6"], "cannot hold together. Raise `caps['web"),
        (["matrix.csv", "--floor", "web=0.9", "--max_change", "0.1"], "cannot hold together. Lo"),
        (["matrix.csv", "--mixer", "tikmix_x"], "got 'tikmix_x'. Did you mean"),
        (["matrix.csv", "--mixer", "doge"], "`--mixer` must need influence, and nothing else; d"),
        (["matrix.csv", "--mixer", "static"], "nothing else; static needs none"),
        (["matrix.csv", "--mixer_settings", "gama=1"], "must be settings of TikMixD (constraints"),
        (["matrix.csv", "--mixer_settings", "gamma=x"], "`gamma` must be a number; got 'x'"),
        (["matrix.csv", "--mixer_settings", "{"], "it breaks at line 1, character 2"),
        (["matrix.csv", "--mixer_settings", '{"constraints": {}}'], "give --constraints FILE"),
        (["matrix.csv", "--current", "even"], "must be uniform, shares such as"),
        (["matrix.csv", "--current", "web=0.7"], "`--current` must sum to 1"),
        (["matrix.csv", "--current", "no.json"], "no.json: No such file"),
        (["matrix.csv", "--constraints", "no.yaml"], "no.yaml: No such file"),
        (["matrix.csv", "--constraints", "matrix.csv"], "`--constraints` must be values by name"),
        (["matrix.csv", "--noise_guard", "-1"], "`noise_guard` must be finite and not negative"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_a_line(place, capsys, words, told):
    assert told in refused(capsys, *words, "--output", "never.json")
    assert not (place / "never.json").exists()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.yaml", "caps: {code: [1}", "`--constraints` must be YAML; c.yaml is not"),
        ("c.yaml", "", "`--constraints` must be values by name; got nothing"),
        ("c.yaml", "cap: {code: 1}", "must be settings of Constraints (floors, caps"),
        ("c.yaml", "caps: 0.3", "wrong type: `caps` must be values by name; got 0.3."),
        (
            "c.yaml",
            "{floors: [1, 2], caps: {web: 1}}",
            "`floors` must be values by name; got [1, 2].",
        ),
        ("c.yaml", b"\xff\xfe\x00", "c.yaml must be text in UTF-8; byte 0 is none"),
        ("c.json", b"\xff", "c.json must be text in UTF-8"),
        ("c.yaml", "max_epochs: 2", "`max_epochs` counts the run's tokens"),
        ("c.json", "{", "it breaks at line 1"),
    ],
)
def test_a_wrong_file_of_constraints_is_named(place, capsys, name, text, told):
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert told in refused(capsys, "matrix.csv", "--constraints", name)


def test_a_bound_beside_a_file_of_wrong_bounds_is_no_fault_of_the_bound(place, capsys):
    (place / "c.yaml").write_text("floors: [1, 2]")
    told = refused(capsys, "matrix.csv", "--constraints", "c.yaml", "--floor", "web=0.1")
    assert "`floors` of --constraints must be shares by name; got [1, 2]." in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("m.csv", "target,web\n", "must have a heading such as"),
        ("m.csv", "target,web,web\narc,1,2\n", "distinct names of domains"),
        ("m.csv", "target,web,code\narc,1\n", "m.csv, row 2 must have a number for each of 2"),
        ("m.csv", "target,web,code\narc,1,x\n", "finite numbers; got 'x' in the row of 'arc'"),
        ("m.csv", "target,web,code\narc,1,nan\n", "finite numbers; got 'nan'"),
        ("m.csv", "target,web,code\narc,0,0\n", "`influence` is zero everywhere"),
        ("m.json", '{"arc": {"web": 1}, "math": {"code": 1}}', "the same domains for every target"),
        ("m.json", '{"targets": ["a"], "domains": ["w"], "values": [1]}', "in the row of 'a'"),
        ("m.json", '{"targets": ["a"], "domains": ["w"], "values": []}', "a row for each of 1"),
        ("m.json", '{"targets": [1], "domains": ["w"], "values": [[1]]}', "distinct names of targ"),
        ("m.json", '{"arc": {"web": true}}', "finite numbers; got True"),
        ("m.json", "{}", "must hold influence by target and domain"),
        ("m.json", '{"format": "tikmix-hf influence", "version": 99}', "version 99"),
        ("m.jsonl", '{"step": 1}\n', "is damaged, or none"),
        ("m.jsonl", "{\n", "m.jsonl is damaged: line 1 is not JSON"),
        ("m.jsonl", b"\xff\n", "m.jsonl must be text in UTF-8"),
        ("m.json", b"\xff", "m.json must be text in UTF-8; byte 0"),
        ("m.csv", b"target,web\narc,\xff\n", "m.csv must be text in UTF-8; byte 15"),
        ("m.jsonl", '{"step": 1, "influence": null}\n', "no update of m.jsonl has any"),
    ],
)
def test_a_wrong_matrix_is_named(place, capsys, name, text, told):
    (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert told in refused(capsys, name)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("runs", "runs: Is a directory."),
        ("/proc/a.json", "/proc/a.json: No such file or directory."),
        ("matrix.csv/a.json", "matrix.csv: Not a directory."),
    ],
)
def test_an_output_that_cannot_be_written_is_named_as_given(place, capsys, output, told):
    assert refused(capsys, "matrix.csv", "--output", output) == f"tikmix solve: {told}"


def test_yaml_without_pyyaml_says_what_to_install(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    words = ["solve", "matrix.csv", "--constraints", "constraints.yaml"]
    assert cli.main(words) == cli.FAILED
    assert "pip install tikmix-hf[cli]" in capsys.readouterr().err
