"""What is made of schedules: numbers by hand, and a replay that serves what was asked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny

from tikmix_hf.schedule import DomainCard, MixtureSchedule, Run, ScheduleError, Segment


def schedule(*parts, names=("web", "code"), num_samples=100, **run) -> MixtureSchedule:
    """Parts are (from_sample, shares)."""
    segments = tuple(Segment(from_sample=s, mixture=np.array(m)) for s, m in parts)
    return MixtureSchedule(names, segments, run=Run(num_samples=num_samples, **run))


# A segment begins with what the ones before it left owing, up to one block.
SLACK = 2

HALVES = schedule((0, [1.0, 0.0]), (25, [0.5, 0.5]), (75, [0.0, 1.0]))


def starts(of: MixtureSchedule) -> list[int]:
    return [segment.from_sample for segment in of.segments]


# By fraction


def test_the_mixture_at_a_fraction_changes_with_the_sample_it_stands_for():
    for sample in range(100):
        assert HALVES.mixture_at_fraction(sample / 100) == HALVES.mixture_at(sample)
    assert HALVES.mixture_at_fraction(1) == {"web": 0.0, "code": 1.0}
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ScheduleError, match="between 0 and 1"):
            HALVES.mixture_at_fraction(fraction)
    with pytest.raises(ScheduleError, match=r"needs `run.num_samples`"):
        MixtureSchedule.constant({"web": 1.0}).mixture_at_fraction(0.5)


@pytest.mark.parametrize("num_samples", [100, 1000, 7 * 100, 40])
def test_rescaled_by_fraction_the_same_fractions_have_the_same_shares(num_samples):
    long = HALVES.rescale(num_samples=num_samples)
    assert long.run.num_samples == num_samples
    for sample in range(num_samples):
        mine = HALVES.mixture_at_fraction(sample / num_samples)
        assert long.mixture_at_fraction(sample / num_samples) == pytest.approx(mine, abs=1e-9)


def test_where_boundaries_fall_between_samples_they_are_the_nearest_one_and_halves_round_up():
    # 25 and 75 of 100 are 1.5 and 4.5 of 6; 2.25 and 6.75 of 9.
    assert starts(HALVES.rescale(num_samples=6)) == [0, 2, 5]
    assert starts(HALVES.rescale(num_samples=9)) == [0, 2, 7]
    rng = np.random.default_rng(0)
    for num_samples in (997, 10**12 + 39):
        long = HALVES.rescale(num_samples=num_samples)
        boundaries = np.array([0.25, 0.75])
        for fraction in rng.random(200):
            if np.abs(fraction - boundaries).min() > 0.5 / num_samples:
                at = long.mixture_at_fraction(fraction)
                assert at == pytest.approx(HALVES.mixture_at_fraction(fraction), abs=1e-9)


def test_of_segments_that_fall_on_one_sample_the_last_stays_and_the_others_are_named():
    # 25 and 75 of 100 are 0.25 and 0.75 of 1, and 0.5 and 1.5 of 2.
    one = HALVES.rescale(num_samples=1)
    assert (starts(one), one.mixture_at(0)) == ([0], {"web": 0.5, "code": 0.5})
    two = HALVES.rescale(num_samples=2)
    assert starts(two) == [0, 1]
    assert two.mixture_at(1) == {"web": 0.5, "code": 0.5}
    (note,) = one.provenance["operations"]
    assert note["rescale"]["left_out_from_samples"] == [0, 75]
    assert note["rescale"]["run"] == {"num_samples": 100}


def test_rescaled_there_and_back_by_whole_factors_nothing_is_lost():
    back = HALVES.rescale(num_samples=1700).rescale(num_samples=100)
    assert back.segments == HALVES.segments
    assert back.run == HALVES.run


# By tokens


def test_rescaled_by_tokens_a_mixture_starts_after_as_many_tokens():
    run = dataclasses.replace(HALVES, run=Run(num_samples=100, num_tokens=1200))
    half = run.rescale(by="tokens", tokens_per_sample=24)
    # 25 and 75 samples of 12 tokens are 12.5 and 37.5 of 24.
    assert (starts(half), half.run.num_samples, half.run.num_tokens) == ([0, 13, 38], 50, 1200)
    assert [s.num_tokens for s in half.segments] == [13 * 24, 25 * 24, 12 * 24]
    longer = run.rescale(by="tokens", num_samples=1000)
    assert (starts(longer), longer.run.num_tokens) == ([0, 25, 75], 12_000)
    shorter = run.rescale(by="tokens", num_samples=75)
    assert starts(shorter) == [0, 25]
    assert shorter.provenance["operations"][0]["rescale"]["left_out_from_samples"] == [75]


def test_tokens_of_segments_go_before_those_of_the_run():
    counted = dataclasses.replace(
        HALVES,
        segments=tuple(
            dataclasses.replace(segment, num_tokens=tokens)
            for segment, tokens in zip(HALVES.segments, (100, 500, 400), strict=True)
        ),
    )
    assert starts(counted.rescale(by="tokens", tokens_per_sample=20)) == [0, 13, 38]
    assert counted.rescale(by="tokens", tokens_per_sample=20).run.num_samples == 50
    # (100 (1, 0) + 500 (.5, .5) + 400 (0, 1)) / 1000
    assert counted.average().mixture_at(0) == pytest.approx({"web": 0.35, "code": 0.65})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`num_samples` must be given"),
        ({"num_samples": 0}, "from 1 to"),
        ({"num_samples": 9.5}, "whole number"),
        ({"num_samples": 9, "by": "steps"}, "`by` must be"),
        ({"by": "tokens"}, "needs the tokens of segments"),
        ({"num_samples": 9, "tokens_per_sample": 0.0}, "positive and finite"),
    ],
)
def test_what_rescaling_lacks_is_named(arguments, message):
    with pytest.raises(ScheduleError, match=message):
        HALVES.rescale(**arguments)


# Others


def test_the_average_weights_mixtures_by_their_samples():
    # (25 (1, 0) + 50 (.5, .5) + 25 (0, 1)) / 100
    assert HALVES.average().mixture_at(0) == {"web": 0.5, "code": 0.5}
    uneven = schedule((0, [1.0, 0.0]), (10, [0.5, 0.5]), (200, [0.0, 1.0]))
    assert uneven.average().mixture_at(0) == pytest.approx({"web": 0.55, "code": 0.45})
    with pytest.raises(ScheduleError, match=r"`average` needs `run.num_samples`"):
        dataclasses.replace(HALVES, run=Run()).average()
    one = MixtureSchedule.constant({"web": 0.3, "code": 0.7})
    assert one.average().mixture_at(0) == one.mixture_at(0)


def test_renaming_binds_the_same_shares_to_other_names():
    swapped = HALVES.rename({"web": "code", "code": "web"})
    assert swapped.mixture_at(0) == {"code": 1.0, "web": 0.0}
    assert HALVES.domains == ("web", "code")
    with pytest.raises(ScheduleError, match="has already; got 'code'"):
        HALVES.rename({"web": "code"})
    with pytest.raises(ValueError, match="Did you mean 'web'"):
        HALVES.rename({"wbe": "x"})


def test_domains_that_get_one_name_add_their_shares_and_tokens():
    cards = {
        "a": DomainCard(description="A", num_tokens=10, num_rows=1, fingerprint="x"),
        "b": DomainCard(description="B", num_tokens=30, num_rows=2),
        "c": DomainCard(fingerprint="z"),
    }
    three = dataclasses.replace(
        schedule((0, [0.25, 0.25, 0.5]), names=("a", "b", "c")), cards=cards
    )
    merged = three.rename({"a": "d", "c": "d"})
    assert (merged.domains, merged.mixture_at(0)) == (("d", "b"), {"d": 0.75, "b": 0.25})
    assert merged.cards["d"] == DomainCard(description="A")
    merged = three.rename({"a": "b", "b": "b"})
    assert merged.cards["b"] == DomainCard(description="A; B", num_tokens=40, num_rows=3)
    assert merged.cards["c"] == cards["c"]
    assert "fingerprint" not in three.rename({"c": "e"}).to_dict()["domains"][2]


def test_one_schedule_goes_on_where_another_ends():
    other = schedule((0, [0.2, 0.8]), (5, [0.0, 1.0]), names=("books", "web"), num_samples=10)
    both = HALVES.merge(other, from_sample=50)
    assert (both.domains, starts(both)) == (("web", "code", "books"), [0, 25, 50, 55])
    assert both.run.num_samples == 60
    for sample in range(50):
        assert both.mixture_at(sample) == {**HALVES.mixture_at(sample), "books": 0.0}
    for sample in range(10):
        assert both.mixture_at(50 + sample) == {"code": 0.0, **other.mixture_at(sample)}
    assert starts(HALVES.merge(HALVES)) == [0, 25, 75, 100, 125, 175]
    assert HALVES.merge(other, from_sample=0).segments[0].mixture.tolist() == [0.8, 0.0, 0.2]
    mine, theirs = (
        dataclasses.replace(HALVES, cards={"web": DomainCard(fingerprint=f)}) for f in ("x", "y")
    )
    with pytest.raises(ScheduleError, match="the same text under the name 'web'"):
        mine.merge(theirs)


def test_the_tokens_of_a_segment_that_is_cut_short_are_cut_too():
    counted = dataclasses.replace(
        schedule((0, [1.0, 0.0]), num_samples=100),
        segments=(Segment(from_sample=0, mixture=[1.0, 0.0], num_tokens=1000),),
    )
    both = counted.merge(counted, from_sample=30)
    assert [segment.num_tokens for segment in both.segments] == [300, 1000]
    assert both.run == Run(num_samples=130, num_tokens=1300)


def test_a_difference_has_every_interval_and_its_total_variation():
    other = schedule((0, [1.0, 0.0]), (50, [0.25, 0.75]), num_samples=100)
    told = HALVES.diff(other)
    spans = [(i.start, i.stop, i.distance) for i in told.intervals]
    # Total variation of (.5, .5) and (1, 0); of (.5, .5) and (.25, .75); of (0, 1) and (.25, .75).
    assert spans == [(0, 25, 0.0), (25, 50, 0.5), (50, 75, 0.25), (75, 100, 0.25)]
    assert told.mean_distance == pytest.approx((25 * 0.5 + 50 * 0.25) / 100)
    assert len(told.changed) == 3
    assert not told.is_same
    assert HALVES.diff(HALVES).is_same
    assert HALVES.diff(HALVES.for_domains(("code", "web"))).is_same


def test_a_difference_by_fraction_is_none_for_the_same_run_at_another_length():
    long = HALVES.rescale(num_samples=1000)
    assert HALVES.diff(long, by="fraction").is_same
    assert not HALVES.diff(long).is_same
    renamed = HALVES.rename({"code": "source"}).diff(HALVES)
    assert (renamed.domains_added, renamed.domains_removed) == (("code",), ("source",))
    assert renamed.intervals[-1].distance == 1.0
    open_ended = HALVES.diff(MixtureSchedule.constant({"web": 0.5, "code": 0.5}))
    assert (open_ended.intervals[-1].stop, open_ended.mean_distance) == (None, None)
    with pytest.raises(ScheduleError, match="`by` must be"):
        HALVES.diff(long, by="steps")


def test_operations_add_up_in_the_provenance_and_survive_the_file():
    made = HALVES.rename({"web": "net"}).rescale(num_samples=40).average()
    names = [name for note in made.provenance["operations"] for name in note]
    assert names == ["rename", "rescale", "average"]
    assert MixtureSchedule.from_json(made.to_json().encode()) == made


# Replay


@pytest.mark.parametrize("num_samples", [61, 400, 997])
def test_a_rescaled_replay_serves_what_is_asked_for_within_a_block(num_samples):
    rng = np.random.default_rng(1)
    used = tiny.make_dataset(num_samples=200)
    for start in (17, 60, 90, 131, 170):
        used.set_mixture(rng.dirichlet(np.ones(4)), from_sample=start)
    long = used.schedule.rescale(num_samples=num_samples)
    replay = tiny.make_dataset(num_samples=num_samples, mixture=long)
    assert replay.schedule.to_dict()["segments"] == long.to_dict()["segments"]
    stops = [*starts(long)[1:], num_samples]
    for segment, stop in zip(long.segments, stops, strict=True):
        realised_K = replay.tokens_between(segment.from_sample, stop)
        requested_K = segment.mixture * (stop - segment.from_sample) * tiny.LENGTH
        assert np.abs(realised_K - requested_K).max() <= tiny.LENGTH * SLACK
        until_K = long.mean_between(0, stop) * stop * tiny.LENGTH
        assert np.abs(replay.tokens_between(0, stop) - until_K).max() <= tiny.LENGTH
