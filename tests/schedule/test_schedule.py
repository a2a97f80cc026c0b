"""MixtureSchedule: what it says, and its file."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tikmix_hf.mixture import normalise
from tikmix_hf.schedule import MixtureSchedule, Segment


def example() -> MixtureSchedule:
    rng = np.random.default_rng(0)
    starts = (0, 96, 4096)
    return MixtureSchedule(
        ("web", "code", "books"),
        tuple(
            Segment(from_sample=s, mixture=normalise(rng.random(3)), update={"step": s // 8})
            for s in starts
        ),
    )


def test_the_mixture_in_force_changes_at_the_stated_sample():
    schedule = example()
    for sample, segment in ((0, 0), (95, 0), (96, 1), (4095, 1), (4096, 2), (10**12, 2)):
        expected = schedule.segments[segment].mixture.tolist()
        assert list(schedule.mixture_at(sample).values()) == expected


def test_saving_and_loading_keeps_every_bit(tmp_path):
    schedule = example()
    loaded = MixtureSchedule.load(schedule.save(tmp_path / "schedule.json"))
    assert loaded.domains == schedule.domains
    for mine, theirs in zip(schedule.segments, loaded.segments, strict=True):
        assert (mine.from_sample, mine.update) == (theirs.from_sample, theirs.update)
        assert mine.mixture.tolist() == theirs.mixture.tolist()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = example().save(tmp_path / "schedule.json")
    before = path.read_text()
    broken = MixtureSchedule(
        ("a",), (Segment(from_sample=0, mixture=np.ones(1), update={"x": float("nan")}),)
    )
    with pytest.raises(ValueError, match="JSON compliant"):
        broken.save(path)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_bind_and_not_positions():
    schedule = example().for_domains(("books", "web", "code"))
    assert schedule.mixture_at(100) == {
        name: example().mixture_at(100)[name] for name in ("books", "web", "code")
    }
    with pytest.raises(ValueError, match=r"is for the domains \['web', 'code', 'books'\]"):
        example().for_domains(("web", "code"))


@pytest.mark.parametrize("starts", [(), (5,), (0, 8, 8), (0, 9, 3)])
def test_segments_start_at_zero_and_ascend(starts):
    segments = tuple(Segment(from_sample=s, mixture=np.ones(1)) for s in starts)
    with pytest.raises(ValueError, match="start at sample 0 and ascend"):
        MixtureSchedule(("web",), segments)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r.update(format="something"), "is not a mixture schedule"),
        (lambda r: r.update(version=99), "version 99; this release reads"),
        (lambda r: r["segments"][1].pop("mixture"), r"`segments\[1\].mixture` must be .* missing"),
        (lambda r: r["segments"][1].update(mixture=[0.2, 0.3, 0.5]), r"an object, .* got \[0.2, "),
        (lambda r: r["segments"][1]["mixture"].update(web=0.9), "must sum to 1"),
        (lambda r: r["segments"][1]["mixture"].update(wbe=0.0), "Did you mean 'web'"),
        (lambda r: r.update(segments=[]), "`segments` must be a list of at least 1"),
        (lambda r: r.update(domains=None), "`domains` must be a list of at least 1; got None"),
    ],
)
def test_a_file_that_is_no_schedule_is_named(tmp_path, damage, message):
    record = example().to_dict()
    damage(record)
    path = tmp_path / "schedule.json"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        MixtureSchedule.load(path)


def test_a_truncated_file_is_named(tmp_path):
    path = example().save(tmp_path / "schedule.json")
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=r"schedule\.json is not JSON"):
        MixtureSchedule.load(path)
