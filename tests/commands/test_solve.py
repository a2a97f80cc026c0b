"""`tikmix solve`: which influence it reads, what it solves, what binds."""

from __future__ import annotations

import dataclasses
import json
from typing import NamedTuple

import numpy as np
import pytest
from command_files import DOMAINS, TARGETS, make_matrix, make_record

from tikmix_hf import Constraints, MixtureSchedule, cli, mixers
from tikmix_hf.commands import measured
from tikmix_hf.commands import solve as solve_command
from tikmix_hf.commands.binding import Binding, binding

VALUES_JK = np.array([[3.0, 1.0], [2.0, 1.5]])


@pytest.fixture
def solve(place, capsys):
    """Runs it; returns its JSON."""

    def solved(*words: str) -> dict:
        assert cli.main(["solve", *words, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return solved


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
