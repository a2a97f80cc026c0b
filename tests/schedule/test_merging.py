"""One schedule after another, and the mean of one: tokens, cards, notes; numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_schedules import HALVES, make

from tikmix_hf.schedule import DomainCard, MixtureSchedule, Run, ScheduleError

COUNTED = make(*HALVES, tokens=(100, 500, 400), num_tokens=1000)


def test_beyond_the_end_of_a_run_nobody_knows_its_tokens():
    both = COUNTED.merge(COUNTED, from_sample=200)
    assert [s.num_tokens for s in both.segments] == [100, 500, None, 100, 500, 400]
    assert both.run == Run(num_samples=300)
    assert COUNTED.merge(COUNTED).run == Run(num_samples=200, num_tokens=2000)


def test_a_run_of_which_a_part_is_not_counted_has_no_tokens():
    for first, second in ((COUNTED, make(*HALVES)), (make(*HALVES), COUNTED)):
        assert first.merge(second).run == Run(num_samples=200)


def test_a_card_says_what_the_first_says_and_where_it_is_silent_what_the_second_does():
    mine = {"web": DomainCard(description="Pages", num_tokens=0, fingerprint="x")}
    its = {
        "web": DomainCard(description="Sites", num_tokens=7, num_rows=3),
        "code": DomainCard(description="Code"),
    }
    both = replace(COUNTED, cards=mine).merge(replace(COUNTED, cards=its))
    assert both.cards == {
        "web": DomainCard(description="Pages", num_tokens=0, num_rows=3, fingerprint="x"),
        "code": DomainCard(description="Code"),
    }
    blank = {"web": DomainCard(num_rows=4)}
    described = replace(COUNTED, cards=blank).merge(replace(COUNTED, cards=its))
    assert described.cards["web"] == DomainCard(description="Sites", num_tokens=7, num_rows=4)


def test_what_was_done_to_both_is_noted_before_the_merge():
    first = replace(COUNTED, provenance={"by": "me"}).rename({"web": "net"})
    second = replace(COUNTED, provenance={"by": "you"}).rescale(num_samples=50)
    both = first.merge(second.rename({"web": "net"}))
    assert both.provenance["by"] == "me"
    *before, note = both.provenance["operations"]
    assert [name for one in before for name in one] == ["rename", "rescale", "rename"]
    assert note["merge"]["num_operations"] == [1, 2]
    assert note["merge"]["other"] == {"by": "you"}
    for _ in range(8):  # notes lie beside each other, not within
        both = COUNTED.merge(both)
    assert MixtureSchedule.from_json(both.to_json().encode()) == both


def test_the_average_of_one_segment_is_that_schedule_bit_by_bit():
    shares = [0.7, 0.2, 0.1]  # their sum rounds to less than 1
    one = make((0, shares), names=("a", "b", "c"), num_samples=None)
    assert one.average() == one
    assert one.average().segments[0].mixture.tolist() == shares


def test_an_average_needs_tokens_of_all_segments_or_goes_by_samples():
    # (25 (1, 0) + 50 (.5, .5) + 25 (0, 1)) / 100
    some = make(*HALVES, tokens=(100, None, 0)).average()
    assert some.mixture_at(0) == {"web": 0.5, "code": 0.5}
    assert some.provenance["operations"][0]["average"]["by"] == "samples"
    with pytest.raises(ScheduleError, match="needs segments that have tokens"):
        make(*HALVES, tokens=(0, 0, 0)).average()


@pytest.mark.parametrize("num_samples", [10, 49, 997])
def test_a_fraction_of_whole_samples_is_that_sample(num_samples):
    each = make(
        *((n, [n / num_samples, 1 - n / num_samples]) for n in range(num_samples)),
        num_samples=num_samples,
    )
    for sample in range(num_samples):
        assert each.mixture_at_fraction(sample / num_samples) == each.mixture_at(sample)


def test_names_that_are_none_are_refused_as_a_schedule_s_error():
    for names, message in (
        ({"wbe": "x"}, "Did you mean 'web'"),
        ({"web": ["a"]}, r"`names\.web` must be text"),
        ({"web": "../x"}, r"`names\.web` must be a name that is no path"),
    ):
        with pytest.raises(ScheduleError, match=message):
            COUNTED.rename(names)
