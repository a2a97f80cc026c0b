"""`tikmix solve`: which influence it reads, what it solves, what binds, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import NamedTuple

import numpy as np
import pytest
from command_files import DOMAINS, TARGETS, make_files, make_matrix, make_record

from tikmix_hf import Constraints, MixtureSchedule, cli, mixers
from tikmix_hf.commands import measured
from tikmix_hf.commands import solve as solve_command
from tikmix_hf.commands.binding import Binding, binding

VALUES_JK = np.array([[3.0, 1.0], [2.0, 1.5]])


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(make_files(tmp_path))
    return tmp_path


@pytest.fixture
def solve(place, capsys):
    """Runs it; returns its JSON."""

    def solved(*words: str) -> dict:
        assert cli.main(["solve", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return solved


def refused(capsys, *words: str) -> str:
    assert cli.main(["solve", *words]) == cli.WRONG
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    return line


def test_the_mixture_is_the_mixers_own(solve):
    q = np.array([0.7, 0.3])
    found = solve("matrix.csv", "--current", "web=.7", "code=0.3", "--mixer_settings", "gamma=0.5")
    w = mixers.tikmix_d.solve(VALUES_JK, q, gamma=0.5)
    assert w[0] > 0.75
    assert list(found["mixture"]) == list(DOMAINS)
    np.testing.assert_array_equal(list(found["mixture"].values()), w)
    assert found["before"] == {"web": 0.7, "code": 0.3}
    assert found["change"] == pytest.approx(abs(w[0] - 0.7))
    # By hand: on arc, everything to web would gain (3 - (.7*3 + .3*1)) = 0.6, to code lose 1.4.
    assert found["gain"]["arc"] == pytest.approx(2 * (w[0] - 0.7) / 1.4)
    assert found["gain_stderr"] == {"arc": None, "math": None}
    assert (found["binding"], found["mixer"]["gamma"]) == ([], 0.5)


@pytest.mark.parametrize(
    "file",
    [
        ("m.json", {"arc": {"web": 3, "code": 1}, "math": {"code": 1.5, "web": 2}}),
        ("m.json", {"targets": ["arc", "math"], "domains": ["web", "code"],
                    "values": [[3, 1], [2, 1.5]]}),
        ("m.tsv", "target\tweb\tcode\narc\t3\t1\nmath\t2\t1.5\n"),
        ("m.csv", "\ufefftarget, web,code\r\narc,3,1\r\n\r\nmath,2.0,15e-1\r\n"),
    ],
    ids=["nested", "lists", "tsv", "csv of a spreadsheet"],
)  # fmt: skip
def test_a_table_of_ones_own_may_be_csv_tsv_or_json(place, file):
    name, content = file
    text = content if isinstance(content, str) else json.dumps(content)
    (place / name).write_text(text, "utf-8")
    found = measured.read(place / name)
    assert (found.targets, found.domains) == (TARGETS, DOMAINS)
    np.testing.assert_array_equal(found.values, VALUES_JK)
    assert found.mixture is None


def test_a_dry_run_and_a_run_tell_the_mixture_they_were_measured_under(solve, place):
    for words, before in (
        (["runs/dry"], {"web": 0.4, "code": 0.6}),
        (["runs/quickstart"], {"web": 0.75, "code": 0.25}),
        (["runs/quickstart/influence.jsonl"], {"web": 0.75, "code": 0.25}),
        (["runs/dry/influence.json"], {"web": 0.5, "code": 0.5}),
        (["runs/dry", "--current", "uniform"], {"web": 0.5, "code": 0.5}),
        (["runs/dry", "--current", '{"web": 1}'], {"web": 1.0, "code": 0.0}),
        (["runs/dry", "--current", "runs/quickstart/schedule.json"], {"web": 0.75, "code": 0.25}),
    ):
        found = solve(*words)
        assert found["before"] == before, words
        w = mixers.tikmix_d.solve(make_matrix().values, list(before.values()))
        np.testing.assert_array_equal(list(found["mixture"].values()), w)


def test_of_a_runs_updates_the_last_that_measured_counts(solve, place):
    other = {**make_record(7, make_matrix()), "mixture": {"web": 0.25, "code": 0.75}}
    with (place / "runs/quickstart/influence.jsonl").open("a") as file:
        file.write(json.dumps(other) + "\n" + '{"step": 8, "cut sho')
    found = solve("runs/quickstart")
    assert found["before"] == {"web": 0.25, "code": 0.75}
    assert found["influence"].endswith("influence.jsonl, step 7")


def test_bounds_of_the_command_line_win_over_the_file_domain_by_domain(solve, place):
    (place / "c.json").write_text('{"caps": {"web": 0.55}, "floors": {"code": 0.2, "web": 0.1}}')
    words = ["matrix.csv", "--constraints", "c.json", "--cap", "web=0.6", "--floor", "web=0"]
    words += ["--mixer_settings", "gamma=0", "--max_change", "0.5"]
    found = solve(*words)
    bounds = found["mixer"]["constraints"]
    assert bounds["caps"] == {"web": 0.6}
    assert bounds["floors"] == {"code": 0.2, "web": 0.0}
    assert bounds["max_change"] == 0.5


def test_a_bound_may_be_given_in_several_options(solve):
    found = solve("matrix.csv", "--cap", "web=.9", "--cap", "code=.8")
    assert found["mixer"]["constraints"]["caps"] == {"web": 0.9, "code": 0.8}


def test_constraints_that_bind_are_named(solve, capsys):
    found = solve("matrix.csv", "--cap", "web=0.4", "--floor", "web=0.2")
    assert found["mixture"]["web"] == pytest.approx(0.4, abs=1e-6)
    assert found["binding"] == [{"constraint": "caps", "of": "web", "bound": 0.4}]
    assert cli.main(["solve", "matrix.csv", "--cap", "web=0.4"]) == 0
    assert "Constraints that bind: caps of web at 0.4." in capsys.readouterr().out


def test_a_bound_binds_where_no_room_is_left():
    w, q, r = np.array([0.5, 0.3, 0.2]), np.array([0.4, 0.4, 0.2]), np.array([0.2, 0.4, 0.4])
    near = float(np.sum(w * np.log(w / q)))
    far = float(np.sum(w * np.log(w / r)))
    given = Constraints(
        floors={"c": 0.2, "a": 0.4, "b": 0.0},
        caps={"a": 0.5, "b": 0.6, "c": 1.0},
        groups={
            "low": {"domains": ("a", "b"), "at_least": 0.8, "at_most": 0.9},
            "high": {"domains": ("b", "c"), "at_most": 0.5},
        },
        max_change=0.1,
        max_kl_change=near + 1e-3,
        max_kl_prior=far,
    )
    assert binding(given, ("a", "b", "c"), w, q, r) == (
        Binding("floors", "c", 0.2),
        Binding("caps", "a", 0.5),
        Binding("groups.at_least", "low", 0.8),
        Binding("groups.at_most", "high", 0.5),
        Binding("max_change", "", 0.1),
        Binding("max_kl_prior", "", far),
    )
    assert binding(None, ("a", "b", "c"), w, q, r) == ()


def test_the_prior_is_where_max_kl_prior_counts_from(solve, place):
    (place / "c.yaml").write_text("max_kl_prior: 0.001\n")
    near = solve("matrix.csv", "--constraints", "c.yaml", "--prior", "web=0.5", "code=0.5")
    far = solve("matrix.csv", "--constraints", "c.yaml", "--prior", "web=0.2", "code=0.8")
    assert near["mixture"]["web"] > 0.45
    assert far["mixture"]["web"] < 0.25
    assert far["binding"][0]["constraint"] == "max_kl_prior"


@pytest.mark.parametrize(
    ("words", "origin"),
    [
        (["matrix.csv"], "uniform, for none was given"),
        (["matrix.csv", "--current", "uniform"], "as given"),
        (["runs/dry"], "in force when it was measured"),
    ],
    ids=str,
)
def test_what_came_before_says_where_it_comes_from(solve, words, origin):
    assert solve(*words)["before_origin"] == origin


class FromPrior(NamedTuple):
    """What it starts from."""

    mixture: np.ndarray
    notes: tuple[str, ...] = ()


class Halfway(mixers.Mixer[FromPrior]):
    """Answers the mean of where it started and the mixture in force."""

    @property
    def requires(self):
        return frozenset({"influence"})

    def init(self, prior):
        return FromPrior(prior)

    def propose(self, state, signals):
        return (state.mixture + signals.mixture) / 2, state


def test_mixers_start_from_the_prior_and_move_from_the_current_mixture(solve, monkeypatch):
    monkeypatch.setattr(solve_command, "_mixer", lambda options, constraints: Halfway())
    found = solve("matrix.csv", "--prior", "web=0.2", "code=0.8", "--current", "uniform")
    assert found["mixture"] == pytest.approx({"web": 0.35, "code": 0.65})
    assert found["before"] == {"web": 0.5, "code": 0.5}
    found = solve("matrix.csv", "--current", "web=0.7", "code=0.3")  # the prior too
    assert found["mixture"] == pytest.approx({"web": 0.7, "code": 0.3})


def test_what_the_mixer_asked_for_stays_on_record_where_the_guard_takes_less(solve, place):
    # Rounds that agree on web, not on how much.
    rounds_RJK = np.array(
        [[[3, 1], [0, 1.5]], [[3, 1], [3, 1.5]], [[1, 1], [2, 1]], [[2, 1], [2, 1]]]
    )
    matrix = make_matrix()
    matrix = dataclasses.replace(matrix, rounds=rounds_RJK, values=rounds_RJK.mean(axis=0))
    matrix.save(place / "noisy.json")
    plain = solve("noisy.json")
    guarded = solve("noisy.json", "--noise_guard", "1")
    assert guarded["unguarded"] == plain["mixture"] == plain["unguarded"]
    assert guarded["before"]["web"] < guarded["mixture"]["web"] < guarded["unguarded"]["web"]


def test_the_noise_guard_is_asked_for(solve):
    plain = solve("runs/dry")
    guarded = solve("runs/dry", "--noise_guard", "1000")
    assert plain["mixture"] == plain["unguarded"] != plain["before"]
    assert guarded["mixture"] == guarded["before"]
    assert not any("below its noise" in note for note in plain["notes"])
    assert any("below its noise" in note for note in guarded["notes"])


def test_what_is_written_is_a_schedule_of_the_mixture(solve):
    found = solve("runs/dry", "--output", "new/mixture.json")
    schedule = MixtureSchedule.load("new/mixture.json")
    assert schedule.mixture_at(0) == found["mixture"]
    (segment,) = schedule.segments
    assert segment.update["influence"]["values"] == make_matrix().values.tolist()
    assert schedule.provenance["influence"] == "influence.json"
    again = solve("runs/dry", "--current", "new/mixture.json")
    assert again["before"] == found["mixture"]


def test_people_get_shares_before_and_after_with_bars(place, capsys):
    assert cli.main(["solve", "matrix.csv", "--current", "web=0.5", "code=0.5"]) == 0
    shown = capsys.readouterr().out
    w = mixers.tikmix_d.solve(VALUES_JK, [0.5, 0.5])
    web = next(line.split() for line in shown.splitlines() if line.startswith("web"))
    assert web[1:4] == ["0.500", f"{w[0]:.3f}", f"{w[0] - 0.5:+.3f}"]
    assert len(web[4]) == 24
    assert set(web[4]) == {"█", "▓"}


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
