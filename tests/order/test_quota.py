"""The sample law's first half: which domain gets sample n of a segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_hf.mixture import largest_remainder, normalise
from tikmix_hf.order.quota import MAX_DEVIATION, TOTAL, QuotaTree


def integer_shares(seed: int, num_domains: int, kind: str) -> list[int]:
    rng = np.random.default_rng(seed)
    shares_K = rng.dirichlet(np.full(num_domains, 10.0 ** rng.uniform(-1.5, 1.0)))
    if kind == "tiny":
        shares_K = np.where(shares_K < 0.02, 1e-6, shares_K)
    elif kind == "zero":
        shares_K = np.where(shares_K < np.median(shares_K), 0.0, shares_K)
    elif kind == "golden":  # the deepest Huffman trees, with siblings of almost no weight
        shares_K = 1.618 ** -np.arange(num_domains)
        shares_K[num_domains // 2 :] = 1e-7
        shares_K = rng.permutation(shares_K)
    return largest_remainder(normalise(shares_K), TOTAL).tolist()


def prefix_counts(domains_N: np.ndarray, num_domains: int) -> np.ndarray:
    one_hot = domains_N[:, None] == np.arange(num_domains)
    return np.concatenate([np.zeros((1, num_domains), dtype=int), one_hot.cumsum(axis=0)])


segments = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.sampled_from(["plain", "tiny", "zero", "golden"]),
        st.integers(1, 1500),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(num_domains=st.integers(1, 200), segments=segments)
def test_every_prefix_of_every_segment_is_within_two_of_its_share(num_domains, segments):
    debts = [0] * num_domains
    for seed, kind, length in segments:
        shares = integer_shares(seed, num_domains, kind)
        domains_N, before_N = QuotaTree(shares, debts).block(0, length)
        counts = prefix_counts(domains_N, num_domains)
        quota = np.arange(length + 1)[:, None] * (np.array(shares) / TOTAL)
        assert np.abs(counts - quota).max() <= MAX_DEVIATION
        assert not counts[-1][np.array(shares) == 0].any()
        np.testing.assert_array_equal(before_N, counts[np.arange(length), domains_N])
        debts = [
            debt + length * share - int(count) * TOTAL
            for debt, share, count in zip(debts, shares, counts[-1], strict=True)
        ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_domains=st.integers(1, 60), start=st.integers(0, 10**12))
def test_random_access_a_block_and_the_counts_agree_anywhere(seed, num_domains, start):
    tree = QuotaTree(integer_shares(seed, num_domains, "plain"))
    domains_N, before_N = tree.block(start, 200)
    for place in (0, 1, 63, 199):
        assert tree.locate(start + place) == (domains_N[place], before_N[place])
    drawn_K = np.bincount(domains_N, minlength=num_domains)
    np.testing.assert_array_equal(tree.counts(start + 200) - tree.counts(start), drawn_K)


def test_counts_stay_exact_at_a_trillion_samples():
    shares = integer_shares(3, 26, "tiny")
    counts_K = QuotaTree(shares).counts(10**12)
    assert counts_K.sum() == 10**12
    for count, share in zip(counts_K.tolist(), shares, strict=True):
        # Rounded integers against an exact rational: |count * TOTAL - quota * TOTAL| <= 2 * TOTAL.
        assert abs(count * TOTAL - 10**12 * share) <= MAX_DEVIATION * TOTAL


@pytest.mark.parametrize("others", [[1.0], [0.5, 0.3, 0.2], [1e-4, 0.9, 0.1 - 1e-4]])
def test_a_tiny_share_is_served_over_many_short_segments(others):
    # Without carrying debts it is never drawn: no segment of 1,000 samples owes it half a sample.
    shares_K = normalise([1e-4, *(np.array(others) * (1 - 1e-4))])
    shares = largest_remainder(shares_K, TOTAL).tolist()
    served_K, debts = np.zeros(len(shares), dtype=int), [0] * len(shares)
    for _ in range(500):
        counts_K = QuotaTree(shares, debts).counts(1000)
        served_K += counts_K
        debts = [
            debt + 1000 * share - int(count) * TOTAL
            for debt, share, count in zip(debts, shares, counts_K, strict=True)
        ]
    due = 500 * 1000 * 1e-4  # 50 samples
    assert abs(served_K[0] - due) <= MAX_DEVIATION


def test_debts_stay_bounded_over_segments_with_changing_mixtures():
    rng = np.random.default_rng(0)
    debts = [0] * 30
    for _ in range(400):
        shares = integer_shares(int(rng.integers(2**32)), 30, "tiny")
        length = int(rng.integers(1, 60))
        counts_K = QuotaTree(shares, debts).counts(length)
        debts = [
            debt + length * share - int(count) * TOTAL
            for debt, share, count in zip(debts, shares, counts_K, strict=True)
        ]
        # Twice what one segment may leave: carried debts do not pile up.
        assert max(map(abs, debts)) <= 2 * MAX_DEVIATION * TOTAL


def test_three_quarters_and_a_quarter_alternate_as_worked_out_by_hand():
    # floor(n / 4 + 1 / 2) steps up at the 2nd, 6th, 10th ... sample.
    tree = QuotaTree([TOTAL // 4, 3 * (TOTAL // 4)])
    assert [tree.locate(n)[0] for n in range(8)] == [1, 0, 1, 1, 1, 0, 1, 1]


def test_large_debts_are_paid_without_leaving_the_share_of_the_segment():
    # Debts of up to three samples, as no run makes them: 2.19 samples off without the guard.
    worst = 0.0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        num_domains = int(rng.integers(3, 60))
        shares = integer_shares(seed, num_domains, ("tiny", "golden", "plain")[seed % 3])
        debts_K = rng.uniform(-3, 3, num_domains)
        debts = ((debts_K - debts_K.mean()) * TOTAL).astype(int).tolist()
        debts[0] -= sum(debts)
        domains_N, _ = QuotaTree(shares, debts).block(0, 600)
        quota = np.arange(601)[:, None] * (np.array(shares) / TOTAL)
        worst = max(worst, np.abs(prefix_counts(domains_N, num_domains) - quota).max())
    assert 1.5 < worst <= MAX_DEVIATION
