"""The file of a schedule: what is written validates and reads back, what is hostile is refused."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import json_schema
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "eval"))  # as running a script does

import schedule_fuzz

from tikmix_hf.schedule import (
    DomainCard,
    MixtureSchedule,
    Run,
    ScheduleError,
    Segment,
    reading,
    schema,
)


def text(record) -> bytes:
    return json.dumps(record).encode()


def load(content: bytes, **options) -> MixtureSchedule:
    return MixtureSchedule.load(io.BytesIO(content), **options)


def whole() -> dict:
    return schedule_fuzz.samples()[0]


def test_all_that_is_written_validates_against_the_schema_and_reads_back_alike():
    for record in schedule_fuzz.samples():
        schedule = load(text(record))
        saved = json.loads(schedule.to_json())
        assert json_schema.faults(saved, schema(), schema()) == []
        assert load(schedule.to_json().encode()) == schedule
    assert saved["provenance"]["operations"][0]["rescale"]["by"] == "fraction"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("version",), "2.0", "/version const"),
        (("run", "num_samples"), 0, "/run/num_samples minimum"),
        (("segments", 0, "mixture", "web"), "0.5", "/segments/0/mixture/web type"),
        (("segments", 0, "mixture", "web"), -0.5, "/segments/0/mixture/web minimum"),
        (("segments", 0, "from_sample"), True, "/segments/0/from_sample type"),
        (("segments", 0, "frm_sample"), 0, "/segments/0/frm_sample additionalProperties"),
        (("domains",), [], "/domains minItems"),
        (("domains", 0), {}, "/domains/0 required"),
        (("segments", 0, "update", "influence", "values"), [["x"]], "/values/0/0 type"),
    ],
)
def test_what_the_schema_refuses_reading_refuses_too(path, value, fault):
    record = whole()
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert any(found.endswith(fault) for found in json_schema.faults(record, schema(), schema()))
    with pytest.raises(ScheduleError):
        load(text(record))


def test_floats_keep_their_bits_and_unknown_keys_of_updates_and_provenance_stay():
    record = whole()
    shares = [0.7, 0.2, 0.1]  # their sum rounds to less than 1
    record["segments"][1]["mixture"] = dict(
        zip(("web", "code", "books/fiction"), shares, strict=True)
    )
    record["segments"][1]["update"]["hal"] = {"o": [1, 2.5e-300, None, "é\n"]}
    record["provenance"]["by"] = ["me"]
    schedule = load(text(record))
    again = load(schedule.to_json().encode())
    assert again.segments[1].mixture.tolist() == shares
    assert again.segments[1].update["hal"] == {"o": [1, 2.5e-300, None, "é\n"]}
    assert again.provenance["by"] == ["me"]
    assert again.cards["web"] == DomainCard(
        description="Pages", num_tokens=10, num_rows=2, fingerprint="a"
    )
    assert again.run.tokens_per_sample == 12


def test_files_of_the_first_format_load():
    schedule = load(text(schedule_fuzz.samples()[2]))
    assert schedule == MixtureSchedule.constant({"web": 0.5, "code": 0.5})
    assert json.loads(schedule.to_json())["version"] == "1.0"


def test_a_later_minor_version_loads_without_what_it_adds():
    record = whole()
    record |= {"version": "1.7", "licence": "CC0"}
    record["segments"][0]["epoch"] = 0
    record["run"]["cluster"] = record["domains"][0]["licence"] = "x"
    schedule = load(text(record))
    assert schedule == load(text(whole()))


@pytest.mark.parametrize("version", ["2.0", "17.3", 1, 99])
def test_a_newer_major_version_is_refused_with_both_versions_and_the_mend(version):
    record = {**whole(), "version": version}
    with pytest.raises(ScheduleError) as caught:
        load(text(record))
    for part in (repr(version), "up to 1.x", "pip install --upgrade tikmix-hf"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["segments"][2]["mixture"].update(web="a lot"), r"mixture.web` .*'a lot'"),
        (lambda r: r["segments"][2]["mixture"].update(web=True), r"finite number; got True"),
        (lambda r: r["segments"][2]["mixture"].update(web=-0.1), "not negative; got -0.1"),
        (lambda r: r["segments"][2]["mixture"].update(cod=0.0), "Did you mean 'code'"),
        (lambda r: r["segments"][1].update(from_sample=1.0), r"\[1\].from_sample` .* got 1.0"),
        (lambda r: r["segments"][1].update(from_sample=2**53), "from 0 to 9007199254740991"),
        (lambda r: r["segments"][1].update(from_sample=10**30), "at most 21 characters"),
        (lambda r: r["segments"][2].update(from_sample=96), "after 96, for segments ascend"),
        (lambda r: r["segments"][0].update(from_sample=4), "0, where segments start"),
        (lambda r: r["segments"][1].update(from_fraction=0.5), "from_sample / run.num_samples"),
        (lambda r: r["segments"][1].update(updat={}), "Did you mean 'update'"),
        (lambda r: r["segments"][1]["update"].update(step=-1), r"segments\[1\].update.step"),
        (lambda r: r["segments"][1]["update"]["influence"].update(values=[[1, 2]]), "of 3 numbers"),
        (lambda r: r["segments"][1]["update"]["influence"]["stderr"][0].pop(), "3 numbers or null"),
        (lambda r: r["domains"].append({"name": "web"}), r"domains\[3\]` must be a name of"),
        (lambda r: r["domains"][0].update(name="a\x00b"), r"without control .*'a\\x00b'"),
        (lambda r: r["domains"][0].update(name="\u202egnp"), "marks of direction; got '.u202egnp'"),
        (lambda r: r["domains"][0].update(name="../../x"), "no path out of a folder"),
        (lambda r: r["domains"][0].update(name="a/../b"), "no path out of a folder"),
        (lambda r: r["domains"][0].update(name="c:/x"), "no path out of a folder"),
        (lambda r: r["domains"][0].update(name="a\\b"), "no path out of a folder"),
        (lambda r: r["domains"][0].update(name="x" * 257), "at most 256 characters"),
        (lambda r: r["domains"][0].update(name=" "), "not empty"),
        (lambda r: r["run"].update(num_samples="8192"), "run.num_samples` .* got '8192'"),
        (lambda r: r["run"].update(seed=2**64), "run.seed"),
        (lambda r: r["provenance"].update(x="\ud800"), "provenance.x` must be text without halves"),
        (lambda r: r["provenance"].update(x=float("nan")), "x` .* finite number; got 'NaN'"),
        (lambda r: r.update(version="1"), "version` must be text such as '1.0'"),
        (lambda r: r.update(version=False), "version` must be text such as '1.0'"),
        (lambda r: r.update(provenance=[]), "provenance` must be an object"),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_named_by_place_value_and_mend(change, message):
    record = whole()
    change(record)
    with pytest.raises(ScheduleError, match=message):
        load(text(record))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"seed": 3', b'"seed": 3, "seed": 4', "`run.seed` must be there once"),
        (b'"num_tokens": 98304', b'"num_tokens": 1e999', "`run.num_tokens` must be a finite"),
        (b'"num_tokens": 98304', b'"num_tokens": -Infinity', "finite number; got '-Infinity'"),
        (b'"seed": 3', b'"seed": 3,', "is not JSON: .* at line 1, column"),
        (b'"seed"', b'"se\xffed"', "is no UTF-8 text"),
        (b'"seed": 3', b'"seed": ' + b"[" * 40 + b"]" * 40, "at most 32 lists and objects"),
    ],
)  # fmt: skip
def test_json_that_readers_differ_about_is_refused(old, new, message):
    content = text(whole())
    assert old in content
    with pytest.raises(ScheduleError, match=message):
        load(content.replace(old, new))


def test_brackets_and_quotes_in_texts_are_no_depth():
    record = whole()
    record["provenance"]["x"] = '\\"[[' * 40 + "\\"
    assert load(text(record)).provenance["x"] == '\\"[[' * 40 + "\\"


class Endless(io.RawIOBase):
    """A stream that gives a byte at a time and never ends."""

    given = 0

    def read(self, size=-1):
        self.given += 1
        return b" "


def test_a_stream_is_read_up_to_the_limit_and_no_further():
    content = text(whole())
    assert load(content, max_bytes=len(content)) == load(content)
    with pytest.raises(ScheduleError, match="at most 100 bytes; got more than 100"):
        load(content, max_bytes=100)
    endless = Endless()
    with pytest.raises(ScheduleError, match="at most 100 bytes"):
        MixtureSchedule.load(endless, max_bytes=100)
    assert endless.given == 101


def test_a_file_is_not_opened_where_it_is_too_large_or_no_file(tmp_path, monkeypatch):
    path = tmp_path / "schedule.json"
    with path.open("wb") as file:
        file.truncate(2**30)  # a gigabyte of zeros that takes no disk
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ScheduleError, match="at most 33,554,432 bytes; got 1,073,741,824"):
        MixtureSchedule.load(path)
    for name in ("pipe", "."):
        with pytest.raises(ScheduleError, match="must be a file"):
            MixtureSchedule.load(tmp_path / name)


def test_few_bytes_cannot_ask_for_much_memory(monkeypatch):
    record = whole()
    record["provenance"]["x"] = [0] * 200
    monkeypatch.setattr(reading, "MAX_VALUES", 200)
    with pytest.raises(ScheduleError, match="at most 200 values"):
        load(text(record))
    monkeypatch.undo()
    record["domains"] = [{"name": str(n)} for n in range(4000)]
    record["segments"] = [{"from_sample": n, "mixture": {"1": 1}} for n in range(4000)]
    with pytest.raises(ScheduleError, match="at most 2,500, with 4,000 domains"):
        load(text(record))


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    path = MixtureSchedule.constant({"web": 1.0}).save(tmp_path / "schedule.json")
    before = path.read_bytes()
    for update in ({"x": float("inf")}, {"x": {1, 2}}, {"x": "\ud800"}, {"step": "one"}):
        segment = Segment(from_sample=0, mixture=np.ones(1), update=update)
        with pytest.raises(ScheduleError):
            MixtureSchedule(("web",), (segment,)).save(path)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: MixtureSchedule.constant({"../x": 1.0}),
        lambda: Run(num_samples=0),
        lambda: Run(model="a\nb"),
        lambda: DomainCard(num_rows=-1),
        lambda: Segment(from_sample=True, mixture=[1.0]),
        lambda: MixtureSchedule(("a", "b"), (Segment(from_sample=0, mixture=[1.0]),)),
        lambda: MixtureSchedule(("a", "a"), (Segment(from_sample=0, mixture=[0.5, 0.5]),)),
        lambda: MixtureSchedule(
            ("a",), (Segment(from_sample=0, mixture=[1.0]),), cards={"b": DomainCard()}
        ),
    ],
)
def test_what_no_file_could_hold_is_not_made(make):
    with pytest.raises(ScheduleError):
        make()


def test_mutated_files_load_or_are_refused_in_one_line():
    kinds = [
        schedule_fuzz.outcome(content)
        for content in schedule_fuzz.mutants(np.random.default_rng(7), 2000)
    ]
    assert min(kinds.count(kind) for kind in ("loaded", "no JSON", "refused")) > 100
