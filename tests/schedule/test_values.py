"""What a schedule is made of is checked where it is made, as strictly as on reading."""

from __future__ import annotations

import codecs
import json
import re

import json_schema
import numpy as np
import pytest
from made_schedules import HALVES, make

from tikmix_hf.schedule import MixtureSchedule, ScheduleError, Segment, counted, schema

RECORD = make(*HALVES, num_tokens=1000).to_dict()


def deep(levels):
    """An object of so many objects within each other."""
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ({1: 2}, "`provenance` must be an object whose keys are text; got 1"),
        ({"a": [{None: 2}]}, r"`provenance.a\[0\]` must be an object whose keys are text"),
        ({"a": deep(3000)}, "must be within at most 32 lists and objects"),
        ({"a": deep(31)}, "must be within at most 32 lists and objects"),
        ({"a": [1.0, float("nan")]}, r"`provenance.a\[1\]` must be a finite number; got nan"),
        ({"a": (float("inf"),)}, r"`provenance.a\[0\]` must be a finite number; got inf"),
    ],
)
def test_what_json_has_not_is_refused_in_a_record_too(provenance, message):
    with pytest.raises(ScheduleError, match=message):
        MixtureSchedule.from_dict({**RECORD, "provenance": provenance})


def test_a_record_may_be_as_deep_as_a_file():
    # With the record and its provenance, 32.
    record = {**RECORD, "provenance": {"a": deep(30)}}
    made = MixtureSchedule.from_dict(record)
    assert MixtureSchedule.from_json(made.to_json().encode()) == made
    with pytest.raises(ScheduleError, match="at most 32"):
        MixtureSchedule.from_json(json.dumps({**record, "provenance": {"a": deep(31)}}).encode())


@pytest.mark.parametrize(
    "shares",
    [
        [3.0, -7.0],
        [float("nan"), 1.0],
        [0.5, 0.4],
        [],
        [[1.0]],
        ["a"],
        None,
        [10**400],
        [-0.5, 0.75, 0.75],
        [1e308] * 2,
    ],
)
def test_shares_that_are_no_mixture_make_no_segment(shares):
    with pytest.raises(ScheduleError, match="`mixture` must be"):
        Segment(from_sample=0, mixture=shares)


def test_shares_are_divided_by_a_sum_that_is_rounded_by_hand_and_else_keep_their_bits():
    kept = [0.7, 0.2, 0.1]
    assert sum(kept) != 1
    for shares in (kept, [0.25, 0.25, 0.5 + 5e-13]):
        assert Segment(from_sample=0, mixture=shares).mixture.tolist() == shares
    rounded = np.array([0.25, 0.25, 0.5 + 5e-7])
    expected = (rounded / rounded.sum()).tolist()
    assert Segment(from_sample=0, mixture=rounded).mixture.tolist() == expected
    names = ("a", "b", "c")
    record = make((0, kept), names=names).to_dict()
    record["segments"][0]["mixture"] = dict(zip(names, rounded.tolist(), strict=True))
    assert MixtureSchedule.from_dict(record).segments[0].mixture.tolist() == expected
    record["segments"][0]["mixture"]["a"] += 1e-6
    with pytest.raises(ScheduleError, match="sum to 1"):
        MixtureSchedule.from_dict(record)


def test_a_mixture_cannot_be_written_to_and_is_no_view():
    shares = np.array([0.5, 0.5])
    segment = Segment(from_sample=0, mixture=shares)
    shares[0] = 1
    assert segment.mixture.tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        segment.mixture[0] = 1


def test_lists_of_parts_become_what_reading_gives():
    made = MixtureSchedule(["a"], [Segment(from_sample=0, mixture=[1.0])])
    assert made == MixtureSchedule.from_json(made.to_json().encode())
    assert (type(made.domains), type(made.segments)) == (tuple, tuple)


def test_no_sample_has_no_mixture():
    for sample in (float("nan"), -1):
        with pytest.raises(ValueError, match="`sample` must be 0 or more"):
            make(*HALVES).mixture_at(sample)


def test_of_a_run_of_unknown_length_no_tokens_are_counted():
    old = make(*HALVES, tokens=(100, 500, 400), num_samples=None, num_tokens=1000)
    new = counted(old, np.array([10.0, 20.0]))
    assert [segment.num_tokens for segment in new.segments] == [None, None, None]
    assert new.run.num_tokens is None


def test_a_file_may_begin_with_a_byte_order_mark():
    schedule = make(*HALVES)
    content = codecs.BOM_UTF8 + schedule.to_json().encode()
    assert MixtureSchedule.from_json(content) == schedule


def test_a_fraction_may_be_rounded_to_a_billionth_of_the_run():
    for error, is_fine in ((5e-10, True), (1e-6, False), (-1e-6, False)):
        record = make(*HALVES).to_dict()
        record["segments"][1]["from_fraction"] += error
        if is_fine:
            assert MixtureSchedule.from_dict(record) == make(*HALVES)
        else:
            with pytest.raises(ScheduleError, match=r"from_sample / run\.num_samples"):
                MixtureSchedule.from_dict(record)


@pytest.mark.parametrize("version", ["1.00", "01.0", "1.01", "00.9"])
def test_a_version_is_written_in_one_way(version):
    with pytest.raises(ScheduleError, match=r"`version` must be"):
        MixtureSchedule.from_dict({**RECORD, "version": version})


def test_a_fraction_is_not_negative_where_the_run_s_length_is_unknown_too():
    record = make(*HALVES, num_samples=None).to_dict()
    record["segments"][0]["from_fraction"] = -1e-9
    with pytest.raises(ScheduleError, match=r"`segments\[0\]\.from_fraction` must be 0 or more"):
        MixtureSchedule.from_dict(record)


@pytest.mark.parametrize("word", [" ", "a\nb", "a\n", "a\x00", "\x85", "\u202ex", "\ufeffx"])
def test_names_and_texts_that_reading_refuses_the_schema_refuses(word):
    record = make((0, [1.0]), names=("web",)).to_dict()
    for key in ("name", "description"):
        changed = {**record, "domains": [{**record["domains"][0], key: word}]}
        changed["segments"] = [{"from_sample": 0, "mixture": {}}]
        if key == "name":
            changed["segments"][0]["mixture"] = {word: 1}
        is_refused = word != " " or key == "name"
        found = set(json_schema.faults(changed, schema(), schema()))
        assert found == ({f"/domains/0/{key} pattern"} if is_refused else set())
        if is_refused:
            with pytest.raises(ScheduleError, match=re.escape("domains[0]")):
                MixtureSchedule.from_dict(changed)


def test_texts_of_any_language_pass_the_schema():
    record = make((0, [1.0]), names=("网页/é \u200d",)).to_dict()
    record["domains"][0]["description"] = "Страницы 🙂 a\u00a0b"
    assert json_schema.faults(record, schema(), schema()) == []
    assert MixtureSchedule.from_dict(record).domains == ("网页/é \u200d",)
