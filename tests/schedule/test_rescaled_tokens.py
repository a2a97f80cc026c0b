"""Tokens of rescaled schedules: each segment keeps its own per sample; numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_schedules import HALVES, make

from tikmix_hf.schedule import ScheduleError

# Tokens per sample: 100 / 25 = 4, 500 / 50 = 10, 400 / 25 = 16; the mean is 10.
UNEVEN = make(*HALVES, tokens=(100, 500, 400), num_tokens=1000)


def starts(of):
    return [segment.from_sample for segment in of.segments]


def tokens(of):
    return [segment.num_tokens for segment in of.segments]


@pytest.mark.parametrize(
    "how",
    [
        {"num_samples": 100},
        {"num_samples": 100, "tokens_per_sample": 10},
        {"num_samples": 100, "by": "tokens"},
        {"by": "tokens"},
        {"by": "tokens", "tokens_per_sample": 10.0},
    ],
)
def test_rescaled_to_the_same_run_nothing_changes(how):
    same = UNEVEN.rescale(**how)
    assert same.segments == UNEVEN.segments
    assert same.run == UNEVEN.run
    assert same.average().segments == UNEVEN.average().segments


def test_a_segment_keeps_its_own_tokens_per_sample_and_the_average_stays():
    twice = UNEVEN.rescale(num_samples=200)
    assert (starts(twice), tokens(twice)) == ([0, 50, 150], [200, 1000, 800])
    assert twice.run.num_tokens == 2000
    assert twice.average().mixture_at(0) == UNEVEN.average().mixture_at(0)
    # Cut after 30 samples: 25 of 4 tokens and 5 of 10. Longer by 10 samples of 16.
    cut = UNEVEN.rescale(num_samples=30, by="tokens")
    assert (starts(cut), tokens(cut), cut.run.num_tokens) == ([0, 25], [100, 50], 150)
    longer = UNEVEN.rescale(num_samples=110, by="tokens")
    assert tokens(longer) == [100, 500, 560]


def test_a_new_run_s_tokens_per_sample_scale_those_of_all_segments_alike():
    # Twice the mean: 8, 20 and 32 tokens of a sample.
    wide = UNEVEN.rescale(num_samples=100, tokens_per_sample=20)
    assert (tokens(wide), wide.run.num_tokens) == ([200, 1000, 800], 2000)
    # As many tokens in half as many samples: 25 and 75 are 12.5 and 37.5.
    half = UNEVEN.rescale(by="tokens", tokens_per_sample=20)
    assert (starts(half), half.run.num_samples) == ([0, 13, 38], 50)
    assert tokens(half) == [13 * 8, 25 * 20, 12 * 32]


@pytest.mark.parametrize("run_tokens", [None, 1000])
def test_the_run_s_tokens_are_the_sum_of_the_segments_(run_tokens):
    bare = replace(UNEVEN, run=replace(UNEVEN.run, num_tokens=run_tokens))
    long = bare.rescale(num_samples=200)
    assert (tokens(long), long.run.num_tokens) == ([200, 1000, 800], 2000)
    assert bare.average().segments[0].num_tokens == 1000


def test_segments_without_tokens_share_what_the_others_leave_of_the_run_s():
    # (1000 - 100) tokens of 75 samples are 12 each.
    some = make(*HALVES, tokens=(100, None, None), num_tokens=1000).rescale(num_samples=100)
    assert (tokens(some), some.run.num_tokens) == ([100, 600, 300], 1000)
    unknown = make(*HALVES, tokens=(100, None, None)).rescale(num_samples=200)
    assert (tokens(unknown), unknown.run.num_tokens) == ([200, None, None], None)


def test_tokens_are_rounded_where_segments_end_so_that_their_sum_is_the_nearest():
    # 10 / 3 tokens a sample; 4, 4 and 2 samples end at 13.3, 26.7 and 33.3 tokens.
    thirds = make((0, [1, 0]), (4, [0.5, 0.5]), (8, [0, 1]), num_samples=12, num_tokens=40)
    cut = thirds.rescale(num_samples=10, by="tokens")
    assert (tokens(cut), cut.run.num_tokens) == ([13, 14, 6], 33)


def test_without_the_run_s_length_starts_are_where_as_many_tokens_were_read():
    bare = make(*HALVES, tokens=(100, 500, 400), num_samples=None)
    found = bare.rescale(by="tokens", tokens_per_sample=10)
    assert (starts(found), found.run.num_samples) == ([0, 10, 60], 100)
    assert tokens(found) == [100, 500, 400]
    for lacking in (bare, make(*HALVES, num_tokens=0), make(*HALVES, tokens=(100, None, 1))):
        with pytest.raises(ScheduleError, match="needs the tokens of segments"):
            lacking.rescale(by="tokens")


def test_a_run_ends_where_it_is_cut_and_no_segment_after_that_stays():
    cut = UNEVEN.rescale(num_samples=20, by="tokens")
    assert (starts(cut), tokens(cut)) == ([0], [80])
    assert cut.provenance["operations"][0]["rescale"]["left_out_from_samples"] == [25, 75]


def test_a_run_has_at_least_one_sample_and_no_more_than_can_be_counted():
    # A sample of 3,000 tokens is more than the run has; a third of one is none.
    least = UNEVEN.rescale(by="tokens", tokens_per_sample=3000)
    assert (least.run.num_samples, len(least.segments)) == (1, 1)
    huge = UNEVEN.rescale(num_samples=10, tokens_per_sample=1e300)
    assert (tokens(huge), huge.run.num_tokens) == ([None] * 3, None)
    with pytest.raises(ScheduleError, match="`tokens_per_sample` must be so large"):
        UNEVEN.rescale(by="tokens", tokens_per_sample=1e-300)


@pytest.mark.parametrize("number", [np.int64(20), np.float32(20), np.float64(20), 20])
def test_numbers_may_be_of_numpy(number):
    expected = UNEVEN.rescale(num_samples=100, tokens_per_sample=20.0)
    assert UNEVEN.rescale(num_samples=100, tokens_per_sample=number) == expected
    assert UNEVEN.mixture_at_fraction(type(number)(0)) == UNEVEN.mixture_at(0)


@pytest.mark.parametrize("number", [True, np.bool_(True), "20", float("nan"), 10**400, 0])
def test_what_is_no_positive_number_is_refused(number):
    with pytest.raises(ScheduleError, match="positive and finite"):
        UNEVEN.rescale(num_samples=100, tokens_per_sample=number)


def test_a_sample_that_starts_after_the_run_s_end_brings_the_mean():
    late = make((0, [1, 0]), (120, [0, 1]), tokens=(1000, 0), num_samples=100)
    longer = late.rescale(by="tokens", num_samples=200)
    assert (starts(longer), tokens(longer)) == ([0, 120], [1200, 800])
