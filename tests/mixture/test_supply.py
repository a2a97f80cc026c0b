"""Supply: parts of the samples and shares of the tokens, by hand and by counting rows."""

from __future__ import annotations

import numpy as np
import pytest

from tikmix_hf.mixture import Supply, normalise


def supply(rows, *, tokens=100.0, seen=0.0, left=40.0):
    every = np.ones(len(rows))
    return Supply(every / len(rows), tokens * every, seen * every, left, np.array(rows))


def test_the_largest_part_is_the_rows_that_may_still_be_read_by_the_samples_left():
    """Two epochs of 100 tokens, 40 of them read: 160 are 16 rows of 10, or 4 rows of 40."""
    known = supply([10.0, 40.0], seen=40.0, left=64.0)
    np.testing.assert_array_equal(known.largest_parts(2), [0.25, 0.0625])
    np.testing.assert_array_equal(known.largest_parts([0.4, 99]), [0.0, 1.0])


def test_without_samples_left_rows_are_parts_of_a_single_sample():
    """A quarter of 100 tokens is half a row of 50."""
    assert supply([50.0], left=0.0).largest_parts(0.25).tolist() == [0.5]


def test_shares_of_parts_are_the_tokens_that_they_bring():
    """One row of 60 tokens for every three of 20: half of the tokens are each's."""
    np.testing.assert_array_equal(supply([60.0, 20.0]).as_shares([0.25, 0.75]), [0.5, 0.5])


def test_a_row_holds_just_where_the_part_of_the_samples_is_small_enough():
    rng = np.random.default_rng(0)
    for _ in range(200):
        num_domains = int(rng.integers(2, 8))
        known = supply(10 * np.exp(rng.normal(size=num_domains)))
        mixture_K, most = rng.dirichlet(np.ones(num_domains)), float(rng.uniform(0.01, 1))
        k = int(rng.integers(num_domains))
        part = (mixture_K / known.row_tokens)[k] / (mixture_K / known.row_tokens).sum()
        slack = known.part_row(k, most) @ mixture_K + most
        assert (slack > 0) == (part < most)
        on_it = normalise([most if i == k else (1 - most) / (num_domains - 1)
                           for i in range(num_domains)])  # fmt: skip
        assert known.part_row(k, most) @ known.as_shares(on_it) == pytest.approx(-most, abs=1e-12)


def test_rows_of_one_length_make_a_plain_cap():
    np.testing.assert_array_equal(supply([7.0, 7.0, 7.0]).part_row(1, 0.3), [0, -1, 0])
