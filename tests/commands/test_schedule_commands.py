"""`tikmix show`, `diff`, `plot`, `push`, `pull`: schedules read, compared, drawn, published."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
from command_files import make_schedule

from tikmix_hf import MixtureSchedule, cli, plots
from tikmix_hf.commands import schedules


@pytest.fixture
def tikmix(place, capsys):
    """Runs a command that succeeds; returns what it printed."""

    def ran(*words: str) -> str:
        assert cli.main(words) == 0
        return capsys.readouterr().out

    return ran


def refused(capsys, *words: str, status: int = 2) -> str:
    assert cli.main(words) == status
    (line,) = capsys.readouterr().err.splitlines()
    return line


class Hub:
    """Stands in for the Hub: keeps what is pushed."""

    def __init__(self) -> None:
        self.kept: dict[str, MixtureSchedule] = {}
        self.asked: list[dict] = []
        self.failure: Exception | None = None

    def push(self, schedule: MixtureSchedule, repo: str, **given) -> str:
        self.asked.append(given)
        self.kept[repo] = schedule
        return f"https://hub.test/{repo}"

    def pull(self, repo: str, **given) -> MixtureSchedule:
        self.asked.append(given)
        if self.failure is not None:
            raise self.failure
        return self.kept[repo]


@pytest.fixture
def hub(monkeypatch) -> Hub:
    made = Hub()

    def push_to_hub(self, repo_id, **given):
        return made.push(self, repo_id, **given)

    monkeypatch.setattr(MixtureSchedule, "push_to_hub", push_to_hub, raising=False)
    monkeypatch.setattr(MixtureSchedule, "from_pretrained", made.pull, raising=False)
    return made


def test_show_tells_segments_domains_and_cost(tikmix):
    shown = tikmix("show", "runs/quickstart")
    lines = [line.split() for line in shown.splitlines()]
    assert ["100", "10.0%", "25.0%", "web", "+0.250,", "code", "-0.250", "tikmix_d"] in lines
    # Mean of web: 100 samples of 0.5 and 900 of 0.75.
    (web,) = [line for line in lines if line[:1] == ["web"]]
    assert web[1:5] == ["5,000", "0.500", "0.750", "0.725"]
    assert web[-1] == "pages"
    cost = "2 updates cost 80 tokens and 3.0 s: 2.0% of the tokens trained, and 4.0% of the time, "
    assert shown.splitlines()[-1] == f"{cost}until the last of them."


def test_show_as_json_has_the_whole_schedule(tikmix, place):
    found = json.loads(tikmix("show", "runs/quickstart", "--json"))
    kept = MixtureSchedule.load(place / "runs/quickstart/schedule.json")
    assert MixtureSchedule.from_dict(found["schedule"]).to_dict() == kept.to_dict()
    assert found["mean"] == pytest.approx({"web": 0.725, "code": 0.275})
    assert found["cost"]["tokens"] == 80
    assert found["num_samples"] == 1000


def test_without_a_runs_records_the_schedules_own_tell_the_cost(tikmix, place):
    update = {
        "mixer": {"mixer": "tikmix_hf.mixers.doge.DoGe"},
        "cost": {"tokens": {"a": 30, "b": 20}},
    }
    schedule = make_schedule(0.5, 0.75)
    segments = (schedule.segments[0], dataclasses.replace(schedule.segments[1], update=update))
    run = dataclasses.replace(schedule.run, num_tokens=1000)
    dataclasses.replace(schedule, segments=segments, run=run).save(place / "own.json")
    shown = tikmix("show", "own.json")
    cost = "1 change of mixture cost 50 tokens, 5.0% of those of the whole run; updates that kept "
    assert shown.splitlines()[-1] == f"{cost}it are not on record."
    assert "doge" in shown
    shown = tikmix("show", "mixture.json")
    assert shown.splitlines()[-1] == "0 changes of mixture; the cost is not on record."


def test_the_length_of_an_old_run_is_in_its_metrics(tikmix, place):
    make_schedule(0.5, num_samples=None).save(place / "runs/other/schedule.json")
    assert json.loads(tikmix("show", "runs/other", "--json"))["num_samples"] is None
    assert "unknown length" in tikmix("show", "runs/other")
    metrics = {"runs": {"tikmix_d": {"num_samples": 640}}}
    (place / "runs/other/metrics.json").write_text(json.dumps(metrics))
    assert json.loads(tikmix("show", "runs/other", "--json"))["num_samples"] == 640


def test_diff_names_the_intervals_that_differ(tikmix):
    shown = tikmix("diff", "runs/quickstart", "runs/other")
    rows = [line.split() for line in shown.splitlines() if "->" in line]
    assert rows[0][:3] == ["100", "200", "25.0%"]  # 0.75 against 0.5
    assert rows[1][:3] == ["200", "1,000", "50.0%"]  # 0.75 against 0.25
    assert rows[1][3:7] == ["web", "0.750", "->", "0.250,"]
    found = json.loads(tikmix("diff", "runs/quickstart", "runs/other", "--json"))
    assert found["mean_distance"] == pytest.approx((100 * 0.25 + 800 * 0.5) / 1000)


def test_diff_by_fraction_compares_runs_of_other_lengths(tikmix, place, capsys):
    make_schedule(0.5, 0.75).rescale(num_samples=500).save(place / "short.json")
    shown = tikmix("diff", "runs/quickstart", "short.json", "--by", "fraction")
    assert shown == "No difference: the same domains have the same shares all along.\n"
    assert "25.0%" in tikmix("diff", "runs/quickstart", "short.json")


def test_diff_ends_with_1_only_where_that_is_asked_for(place, capsys):
    words = ["diff", "runs/quickstart", "runs/other"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--exit-code"]) == 1
    assert cli.main(["diff", "runs/other", "runs/other", "--exit-code"]) == 0


def test_diff_names_domains_that_came_and_went(tikmix, place):
    make_schedule(0.5).rename({"code": "books"}).save(place / "books.json")
    shown = tikmix("diff", "mixture.json", "books.json")
    assert "Domains that went: code" in shown
    assert "Domains that came: books" in shown
    assert "books 0.000 -> 0.500" in shown


@pytest.mark.parametrize(
    ("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_suffix_says_what_is_drawn(tikmix, place, suffix, head):
    path = place / "pictures" / f"mixture.{suffix}"
    assert tikmix("plot", "runs/quickstart", "-o", str(path)) == f"Written to {path}\n"
    assert path.read_bytes().startswith(head)


def test_plot_draws_what_a_run_measured(tikmix, place):
    tikmix("plot", "runs/quickstart", "--what", "influence", "-o", "influence.svg")
    assert "<svg" in (place / "influence.svg").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "no.json"], "no.json: No such file or directory."),
        (["show", "matrix.csv"], "matrix.csv is not JSON"),
        (["show", "runs"], "the folder runs has no schedule.json or mixture_schedule.json."),
        (["show", "runs/dry/influence.json"], "is not a mixture schedule"),
        (["show", "mixture.json", "--revision", "v1"], "`--revision` is of the Hub"),
        (["diff", "mixture.json", "no.json"], "no.json: No such file"),
        (["plot", "mixture.json", "-o", "x.gif"], "`--output` must end in .png, .svg, .pdf; got"),
        (["plot", "mixture.json", "--num_samples", "0"], "`--num_samples` must be at least 1; got"),
        (["plot", "mixture.json", "--num_samples", "-5"], "must be at least 1; got -5"),
        (["plot", "mixture.json", "-o", "matrix.csv/x.svg"], "matrix.csv: Not a directory."),
        (["plot", "mixture.json", "--what", "influence"], "no update that measured influence, nei"),
        (
            ["plot", "mixture.json", "--what", "audit"],
            "audited. Name the folder of a run, with its",
        ),
        (["plot", "runs/other", "--what", "audit"], "audited. An audit compares a measurement wit"),
        (["push", "no.json", "a/b"], "no.json: No such file"),
        (["pull", "a/b", "mixture.json"], "mixture.json is there already. Name another file, or"),
        (["pull", "a/b", "runs"], "`FILE` must be a file; runs is a folder"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_a_line(place, hub, capsys, words, told):
    assert told in refused(capsys, *words)


def test_a_run_of_unknown_length_is_drawn_once_its_length_is_given(tikmix, place, capsys):
    make_schedule(0.5, 0.75, num_samples=None).save(place / "long.json")
    assert "Give --num_samples N." in refused(capsys, "plot", "long.json")
    tikmix("plot", "long.json", "--num_samples", "150")
    tikmix("plot", "long.json", "--num_samples", "80")  # over before the second segment
    assert (place / "mixture.png").is_file()


def test_without_matplotlib_plot_says_what_to_install(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "Plots need matplotlib: pip install" in refused(
        capsys, "plot", "mixture.json", status=cli.FAILED
    )


def test_diff_by_fraction_reads_the_length_that_plot_reads_and_names_who_has_none(
    tikmix, place, capsys
):
    make_schedule(0.5, 0.75, num_samples=None).save(place / "runs/other/schedule.json")
    words = ["diff", "runs/quickstart", "runs/other", "--by", "fraction"]
    told = refused(capsys, *words)
    assert "`--by fraction` needs the length of both runs, and runs/other does not say" in told
    metrics = {"runs": {"tikmix_d": {"num_samples": 200}}}
    (place / "runs/other/metrics.json").write_text(json.dumps(metrics))
    # The second segment begins after a tenth of the one run, and after half of the other.
    rows = [line.split() for line in tikmix(*words).splitlines() if "->" in line]
    assert [row[:3] for row in rows] == [["10.0%", "50.0%", "25.0%"]]


def with_influence(schedule: MixtureSchedule) -> MixtureSchedule:
    """The second segment keeps what was measured at step 7."""
    first, second = schedule.segments
    kept = {"targets": ["arc"], "domains": ["web", "code"], "values": [[3.0, 1.0]]}
    second = dataclasses.replace(second, update={"step": 7, "influence": kept})
    return dataclasses.replace(schedule, segments=(first, second))


def test_what_a_schedule_keeps_of_its_measurements_is_drawn(tikmix, place, hub, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "plot_influence", lambda records, path: drawn.append(records))
    hub.kept["me/mix"] = with_influence(make_schedule(0.25, 0.75))
    assert tikmix("plot", "me/mix", "--what", "influence") == "Written to influence.png\n"
    ((record,),) = drawn
    assert (record["step"], record["targets"]) == (7, ["arc"])
    # Under the mixture that was in force, which is the segment's before.
    assert record["mixture"] == {"web": 0.25, "code": 0.75}
    assert record["values"] == [[3.0, 1.0]]
    hub.kept["me/mix"].rename({"code": "books"}).save(place / "renamed.json")
    tikmix("plot", "renamed.json", "--what", "influence")
    assert drawn[-1][0]["mixture"] is None


def test_a_matrix_of_the_first_segment_is_drawn_too(tikmix, place):
    tikmix("solve", "matrix.csv", "--output", "solved.json")
    tikmix("plot", "solved.json", "--what", "influence")
    assert (place / "influence.png").read_bytes().startswith(b"\x89PNG")


def test_push_and_pull_carry_the_schedule(tikmix, hub, place):
    words = ["push", "runs/quickstart", "me/mix", "--private", "--license", "mit"]
    assert tikmix(*words) == "Published: https://hub.test/me/mix\n"
    assert hub.asked[-1] == {"private": True, "license": "mit"}
    tikmix("push", "mixture.json", "me/other", "--revision", "v2")
    assert hub.asked[-1] == {"revision": "v2"}
    assert "mix.json" in tikmix("pull", "me/mix")
    kept = MixtureSchedule.load(place / "runs/quickstart/schedule.json")
    assert MixtureSchedule.load(place / "mix.json") == kept
    tikmix("pull", "me/other", "mix.json", "--revision", "v2", "--force")
    assert hub.asked[-1] == {"revision": "v2"}
    assert MixtureSchedule.load(place / "mix.json").mixture_at(0)["web"] == 0.625


def test_no_command_takes_a_token(capsys):
    for command in ("push", "pull", "show"):
        with pytest.raises(SystemExit):
            cli.main([command, "a", "b", "--token", "secret"])


def test_what_is_not_here_is_looked_up_on_the_hub(tikmix, hub, place, capsys):
    hub.kept["me/mix"] = make_schedule(0.5)
    assert tikmix("show", "me/mix", "--revision", "main").startswith("me/mix: ")
    assert hub.asked == [{"revision": "main"}]
    assert schedules.find("runs/quickstart").folder is not None
    assert len(hub.asked) == 1
    hub.failure = OSError("nobody answers")
    told = refused(capsys, "show", "runs/quickstrat", status=cli.FAILED)
    assert "no file or folder runs/quickstrat here, and on the Hub: nobody answers" in told


def test_what_the_hub_has_not_got_is_a_failure_in_every_command(hub, place, capsys, monkeypatch):
    hub.failure = FileNotFoundError("the Hub has no user/mix")

    def push_to_hub(self, repo_id, **given):
        raise hub.failure

    monkeypatch.setattr(MixtureSchedule, "push_to_hub", push_to_hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for words in (["show"], ["plot"], ["pull"], ["diff", "mixture.json"], ["push", "mixture.json"]):
        told = refused(capsys, *words, "user/mix", status=cli.FAILED)
        assert "the Hub has no user/mix" in told
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    told = refused(capsys, "push", "mixture.json", "user/mix", status=cli.FAILED)
    assert "nothing was pushed to user/mix: HF_HUB_OFFLINE is set" in told
