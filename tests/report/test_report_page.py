"""The page holds the numbers of the run's files, and says what is missing."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from parsed import Element, parse
from report_runs import write_lines, write_run

from tikmix_hf.report import charts, colours, formats, read_run, read_runs
from tikmix_hf.report.page import page
from tikmix_hf.report.sections import scores
from tikmix_hf.schedule import MixtureSchedule

SECTIONS = ("mixture", "influence", "gain", "tokens", "epochs", "cost", "losses", "benchmarks",
            "comparison")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def shown(folder) -> Element:
    return parse(page([read_run(folder)]))


def lines(folder):
    return [json.loads(line) for line in (folder / "influence.jsonl").read_text().splitlines()]


def table(section: Element, label: str) -> list[list[str]]:
    return section.one(class_="scroll", aria_label=label).rows()


def test_the_page_has_every_section_once_and_links_to_it(shown):
    assert [s.attributes["id"] for s in shown.one("main").find("section")] == list(SECTIONS)
    assert [a.attributes["href"] for a in shown.one("nav").find("a")] == [f"#{s}" for s in SECTIONS]
    assert shown.one("h1").text == "run"


def test_the_mixtures_of_the_table_are_those_of_the_schedule(folder, shown):
    schedule = MixtureSchedule.load(folder / "schedule.json")
    rows = table(shown.one(id="mixture"), "Shares of tokens from each sample on")
    assert rows[0] == ["from sample", "0", "48", "88", "128", "change"]
    for k, row in enumerate(rows[1:]):
        shares = [float(segment.mixture[k]) for segment in schedule.segments]
        assert row[:-1] == [schedule.domains[k], *(f"{100 * share:.1f}%" for share in shares)]
        moved = 100 * (shares[-1] - shares[0])
        assert float(row[-1].replace("−", "-").rstrip("%")) == pytest.approx(moved, abs=0.051)


def test_the_bands_are_as_long_and_as_high_as_the_schedule_says(folder, shown):
    schedule = MixtureSchedule.load(folder / "schedule.json")
    bands = shown.one(id="mixture").find("rect", class_="band")
    assert len(bands) == 4 * 3
    edges = [0, 48, 88, 128, 168]  # the run's 168 samples
    for i, band in enumerate(bands):
        segment, k = divmod(i, 3)
        share = schedule.segments[segment].mixture[k]
        places = {key: float(band.attributes[key].rstrip("%")) for key in ("x", "width", "height")}
        length = (edges[segment + 1] - edges[segment]) / 168
        assert places["x"] == pytest.approx(100 * edges[segment] / 168, abs=1e-3)
        assert places["width"] == pytest.approx(100 * length, abs=1e-3)
        assert places["height"] == pytest.approx(100 * share, abs=1e-3)
        assert band.classes == {"band", f"f{k}"}
    for s in range(4):  # from the bottom up, without a gap
        tops = [float(band.attributes["y"].rstrip("%")) for band in bands[3 * s : 3 * s + 3]]
        assert tops[2] == pytest.approx(0, abs=2e-3)
        assert tops == sorted(tops, reverse=True)


def test_a_cell_of_the_heat_map_is_the_influence_less_that_of_the_mixture(folder, shown):
    maps = shown.one(id="influence").find("table", class_="heat")
    assert len(maps) == 3
    for heat, line in zip(maps, lines(folder), strict=True):
        own = line["influence"]
        values_JK = np.array(own["values"])
        less_JK = values_JK - (values_JK @ list(line["mixture"].values()))[:, None]
        stderr_JK = np.std(own["rounds"], axis=0, ddof=1) / 2  # of four rounds
        cells = [c for row in heat.one("tbody").find("tr") for c in row.find("td")[:-1]]
        for cell, value, less, error in zip(
            cells, values_JK.flat, less_JK.flat, stderr_JK.flat, strict=True
        ):
            assert cell.text == formats.number(less, digits=2, sign=True)
            assert formats.with_error(value, error) in cell.attributes["title"]
            assert ("stands-out" in cell.classes) == (abs(less) >= 2 * error)
        largest = np.abs(less_JK).argmax(axis=1)
        for j, row in enumerate(heat.one("tbody").find("tr")):
            shade = row.find("td")[largest[j]].classes
            assert ("h20" if less_JK[j, largest[j]] > 0 else "h0") in shade


def test_the_colours_middle_is_the_mixture_itself():
    assert [colours.shade(value) for value in (-1, -0.04, 0, 0.04, 0.06, 1, 7)] == [
        *("h0", "h10", "h10", "h10", "h11", "h20", "h20")
    ]


def test_gains_tokens_epochs_and_costs_are_those_of_the_files(folder, shown):
    first, second, third = lines(folder)
    gain = shown.one(id="gain")
    rows = table(gain, "Steps 10 to 20: gain of each target")[1:]
    assert [row[0] for row in rows] == ["arc", "piqa", "boolq"]
    audit = second["audit"]
    for name, predicted, realised in rows:
        assert predicted == formats.number(audit["predicted"][name])
        assert realised == formats.number(audit["realised"][name], sign=True)
    assert len(gain.find("g", class_="marker")) == 2 * 3 + 3  # two intervals, and the legend
    tokens = table(shown.one(id="tokens"), "Tokens of each domain")[1:]
    for name, _, requested, realised, _ in tokens:
        for text, key in ((requested, "requested_tokens"), (realised, "realised_tokens")):
            total = sum(line[key][name] for line in (first, second, third))
            assert text == f"{total:,.0f}"
    epochs = table(shown.one(id="epochs"), "Epochs of each domain")[1:]
    assert [(row[0], row[2]) for row in epochs] == [
        *(("web", "0.5000"), ("code", "1.500"), ("books", "2.500"))
    ]
    costs = table(shown.one(id="cost"), "Cost of each update")[1:]
    assert costs[1] == ["20", "", "8.0 s", "2.5 s", "15,360", "17,408", "12.5%", "0.0625"]
    assert costs[0][3] == "–"
    signals = table(shown.one(id="cost"), "Cost of each signal")[1:]
    assert signals == [["influence", "46,080", "22.5 s"], ["mixer", "–", "1.5 s"]]


def test_a_point_stands_at_its_standardised_gains(folder, shown):
    audit = lines(folder)[1]["audit"]
    places = {
        title.text.partition(",")[0]: marker
        for marker in shown.one(id="gain").find("svg")
        if len(marker.find("title")) == 1
        for title in marker.find("title")
        if "steps 10 to 20" in title.text
    }
    for side, names in (("x", audit["predicted"]), ("y", audit["realised"])):
        values = np.array([names[target] for target in places])
        found = [float(marker.attributes[side].rstrip("%")) for marker in places.values()]
        order = values if side == "x" else -values  # downwards
        assert np.corrcoef(found, order)[0, 1] == pytest.approx(1, abs=1e-6)


def test_sums_over_updates_say_what_they_leave_out(tmp_path):
    folder = write_run(tmp_path / "run")
    first, second, third = lines(folder)
    first["realised_tokens"] = {"web": 600, "code": 300, "books": 100}
    first["requested_tokens"] = {"web": 500, "code": 350, "books": 150}
    write_lines(folder / "influence.jsonl", [first])
    shown = parse(page([read_run(folder)]))
    moved = "Of 1,000 tokens read until step 10, the last update, 10.0% went to another domain"
    assert f"{moved} than the mixtures asked for." in shown.one(id="tokens").text
    write_lines(folder / "influence.jsonl", [first, {**second, "tokens": "x"}, third])
    shown = parse(page([read_run(folder)]))
    cost = shown.one(id="cost").text
    assert "2 updates took 16.0 s" in cost
    for key in ("tokens", "cost"):
        assert ", without 1 update that could not be read." in shown.one(id=key).text


def test_an_update_that_was_not_taken_leaves_the_mixture(tmp_path):
    folder = write_run(tmp_path / "run", num_updates=1)
    (line,) = lines(folder)
    write_lines(folder / "influence.jsonl", [{**line, "from_sample": None}])
    (update,) = read_run(folder).updates
    assert update.after == line["mixture"] != line["proposed"]


def test_a_length_shorter_than_the_schedule_is_not_the_end_of_the_last_band(tmp_path):
    folder = write_run(tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["runs"]["tikmix_d"]["num_samples"] = 100  # the last segment starts at 128
    (folder / "metrics.json").write_text(json.dumps(metrics))
    bands = parse(page([read_run(folder)])).one(id="mixture").find("rect", class_="band")
    for band in bands:
        start, length = (float(band.attributes[key].rstrip("%")) for key in ("x", "width"))
        assert 0 <= start < start + length <= 100.001


@pytest.mark.parametrize("metric", ["bits_per_byte", "word_perplexity", "loss"])
def test_of_losses_less_is_better(metric):
    assert scores.arrow(metric) == "less is better"
    assert scores.arrow("acc_norm") == "more is better"


def test_every_score_stands_there_with_its_error(folder, shown):
    text = (folder / "evaluations.jsonl").read_text()
    rows = table(shown.one(id="benchmarks"), "Every score")[1:]
    assert len(rows) == 8
    for line in map(json.loads, text.splitlines()):
        for task, own in line["tasks"].items():
            metric = own["metric"]
            score = f"{own['values'][metric]:.3f} ± 0.025"
            assert [f"{task} (quick)", "run", metric, str(line["step"]), score, "400"] in rows


def test_the_control_of_a_run_is_compared_with_it(shown):
    section = shown.one(id="comparison")
    assert "tikmix_d, 0.0421 nats per token below static" in section.text
    rows = table(section, "Loss on each target at the end, nats per token")
    assert rows[0] == ["target", "tikmix_d", "static"]
    assert rows[-1] == ["mean", "3.100", "3.142"]
    assert "Loss less that of static (the line): left is better" in section.text
    gaps = {title.text for title in section.find("title")}
    assert "arc, tikmix_d: −0.0421 nats per token" in gaps


@pytest.mark.parametrize(
    ("gone", "silent"),
    [
        (["schedule.json"], {"mixture": "TikMixCallback writes one"}),
        (
            ["influence.jsonl"],
            {"influence": "such as tikmix_d", "gain": "two updates", "tokens": "TikMixCallback",
             "cost": "TikMixCallback"},
        ),
        (["evaluations.jsonl"], {"benchmarks": "EvalCallback"}),
        (["metrics.json"], {"comparison": "control: true"}),
        (["influence.jsonl", "metrics.json"], {"epochs": "TikMixCallback"}),
        (["influence.jsonl", "checkpoint-100/trainer_state.json"], {"losses": "logging_steps"}),
    ],
)  # fmt: skip
def test_a_section_without_data_says_so_in_a_line_and_how_to_get_it(tmp_path, gone, silent):
    folder = write_run(tmp_path / "run")
    for name in gone:
        (folder / name).unlink()
    shown = parse(page([read_run(folder)]))
    found = {s.attributes["id"]: s.one("p", class_="missing").text
             for s in shown.find("section") if s.find("p", class_="missing")}  # fmt: skip
    assert set(silent) <= set(found)
    for key, words in silent.items():
        assert words in found[key]
    assert not found.keys() - {*silent, "comparison", "gain", "influence", "tokens", "cost"}


def test_faults_are_told_at_the_top(tmp_path):
    folder = write_run(tmp_path / "run")
    with (folder / "influence.jsonl").open("a") as file:
        file.write('{"step": 4')
    assert "Line 4 of influence.jsonl is cut short" in parse(
        page([read_run(folder)])
    ).one(class_="faults").text  # fmt: skip


def test_several_runs_are_compared_first_and_then_shown_one_by_one(tmp_path):
    runs = read_runs([write_run(tmp_path / name, seed=i) for i, name in enumerate("abc")])
    (runs[1].folder / "influence.jsonl").unlink()
    shown = parse(page(read_runs([run.folder for run in runs])))
    assert shown.one("h1").text == "a, b and c"
    sections = [s.attributes["id"] for s in shown.one("main").find("section")]
    assert sections[:3] == ["comparison", "benchmarks", "run-0-mixture"]
    ids = [e.attributes["id"] for e in shown.find() if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    names = [a.text for a in shown.one("nav").find("a")]
    assert names == ["Comparison", "Benchmarks", "a", "b", "c"]
    rows = table(shown.one(id="comparison"), "Last mixtures")
    for place, run in enumerate(runs):
        assert run.schedule is not None
        last = run.schedule.segments[-1].mixture
        assert [row[place + 1] for row in rows[1:]] == [f"{100 * s:.1f}%" for s in last]
    overview = table(shown.one(id="comparison"), "Runs at a glance")
    assert [row[-1] for row in overview[1:]] == ["0.25", "–", "0.25"]
    curves = shown.one(id="benchmarks").find("path", class_="line")
    assert len(curves) == 2 * 3  # tasks by runs


def test_runs_with_other_targets_are_not_ranked(tmp_path):
    one = write_run(tmp_path / "one")
    other = write_run(tmp_path / "other", targets=("x", "y", "z"))
    shown = parse(page(read_runs([one, other])))
    assert "their mean losses cannot be compared" in shown.one(id="comparison").text


def test_two_targets_are_not_said_to_be_foretold(tmp_path):
    folder = write_run(tmp_path / "run", targets=("a", "b"))
    changed = lines(folder)
    for line in changed[1:]:
        line["audit"] |= {"spearman": None, "correlation": None}
    write_lines(folder / "influence.jsonl", changed)
    gain = parse(page([read_run(folder)])).one(id="gain")
    assert "Nothing can be said of fewer than three targets" in gain.text
    assert not gain.find("g", class_="marker")


def test_thirty_domains_have_a_look_each(tmp_path):
    names = tuple(f"d{k}" for k in range(30))
    folder = write_run(tmp_path / "run", domains=names, num_updates=1)
    shown = parse(page([read_run(folder)]))
    rows = shown.one(class_="scroll", aria_label="Shares of tokens from each sample on")
    looks = [e.attributes["class"] for e in rows.find("rect")]
    assert len(set(looks)) == 30
    patterns = {p.attributes["id"] for p in shown.find("pattern")}
    style = shown.one("style").text
    fills = [re.findall(rf"\.{look}\{{fill:([^}}]*)\}}", style) for look in looks]
    assert len({tuple(fill) for fill in fills}) == 30
    assert {fill[0][5:-1] for fill in fills if fill[0].startswith("url")} == patterns


def test_long_runs_are_drawn_evenly_and_say_so(tmp_path):
    folder = write_run(tmp_path / "run", num_updates=60)
    shown = parse(page([read_run(folder)]))
    influence = shown.one(id="influence")
    assert len(influence.find("table", class_="heat")) == 48
    assert "12 updates between these are left out" in influence.text
    rows = table(shown.one(id="mixture"), "Shares of tokens from each sample on")
    assert (rows[0][1], rows[0][-2], len(rows[0])) == ("0", "2,408", 42)


def test_what_is_written_on_a_colour_stands_out_from_it():
    style = colours.style()
    pairs = zip(
        re.findall(r"--h\d+:(#\w+)", style), re.findall(r"--t\d+:(#\w+)", style), strict=True
    )
    contrasts = [colours.contrast(ground, ink) for ground, ink in pairs]
    assert len(contrasts) == 2 * 21  # the light page's and the dark one's
    assert min(contrasts) >= 4.5
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)


def test_labels_are_moved_apart_within_their_bounds():
    assert charts.spread([0, 1, 50], gap=10, low=0, high=60) == [0, 10, 50]
    assert charts.spread([55, 58, 59], gap=10, low=0, high=60) == [40, 50, 60]
    assert charts.thin(5, 9) == [0, 1, 2, 3, 4]
    assert charts.thin(101, 5) == [0, 25, 50, 75, 100]
