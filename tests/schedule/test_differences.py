"""Differences of schedules: by hand, by brute force over samples, and what they hold in memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from made_schedules import HALVES, make

from tikmix_hf.schedule import DomainCard


def test_of_a_shorter_run_the_last_mixture_goes_on_to_the_end_of_the_longer():
    short = make((0, [1.0, 0.0]), (20, [0.0, 1.0]), num_samples=50)
    for told in (make(*HALVES).diff(short), short.diff(make(*HALVES))):
        spans = [(i.start, i.stop, i.distance) for i in told.intervals]
        assert spans == [(0, 20, 0.0), (20, 25, 1.0), (25, 75, 0.5), (75, 100, 0.0)]
        assert told.mean_distance == pytest.approx((5 * 1.0 + 50 * 0.5) / 100)


def test_segments_that_start_after_both_ends_are_no_part_of_a_run():
    late = make((0, [1.0, 0.0]), (100, [0.5, 0.5]), (120, [0.0, 1.0]))
    told = late.diff(make((0, [1.0, 0.0]), num_samples=80))
    assert [(i.start, i.stop) for i in told.intervals] == [(0, 100)]
    assert told.is_same


def test_text_differs_only_where_both_fingerprints_are_known():
    bare = make(*HALVES)
    known, other = (replace(bare, cards={"web": DomainCard(fingerprint=f)}) for f in "xy")
    nameless = replace(bare, cards={"web": DomainCard(num_rows=3)})
    assert known.diff(other).text_changed == ("web",)
    for one, two in ((known, nameless), (nameless, known), (known, bare)):
        assert one.diff(two).text_changed == ()
        assert one.diff(two).is_same


def test_distances_are_those_of_the_mixtures_at_every_sample_whatever_the_domains():
    rng = np.random.default_rng(0)
    one, other = (
        make(
            *((int(s), rng.dirichlet(np.ones(4))) for s in (0, *np.sort(rng.choice(60, 5)) + 1)),
            names=tuple(names),
            num_samples=70,
        )
        for names in ("abcd", "dxba")
    )
    told = one.diff(other)
    assert (told.domains_added, told.domains_removed) == (("x",), ("c",))
    for sample in range(70):
        (interval,) = (i for i in told.intervals if i.start <= sample < i.stop)
        mine, its = one.mixture_at(sample), other.mixture_at(sample)
        assert (interval.before, interval.after) == (mine, its)
        brute = 0.5 * sum(abs(mine.get(name, 0.0) - its.get(name, 0.0)) for name in "abcdx")
        assert interval.distance == pytest.approx(brute, abs=1e-15)
    first = told.to_dict()["intervals"][0]
    assert list(first) == ["start", "stop", "before", "after", "distance"]
    assert first["before"] == one.mixture_at(0)
    assert told == one.diff(other)
    assert told != other.diff(one)


def test_a_difference_holds_no_copies_of_mixtures():
    mixture = np.full(200, 1 / 200)
    long = make(*((n, mixture) for n in range(400)), names=tuple(map(str, range(200))))
    tracemalloc.start()
    told = long.diff(long)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(told.intervals) == 100
    # Two dicts of 200 names take some 20 KiB.
    assert held / len(told.intervals) < 2048
