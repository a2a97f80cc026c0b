"""The sample law's second half: which row of a domain comes when."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from tikmix_hf.order.permutation import RowPermutation, derive_key


def order(num_rows: int, key: int, epoch: int = 0) -> list[int]:
    epochs = np.full(num_rows, epoch, dtype=np.int64)
    return RowPermutation(num_rows, key=key).rows(np.arange(num_rows), epochs).tolist()


@pytest.mark.parametrize("num_rows", [*range(1, 40), 63, 64, 65, 1000, 4097, 99_991])
def test_an_epoch_serves_every_row_once(num_rows):
    for epoch in (0, 1, 12345):
        assert sorted(order(num_rows, key=7, epoch=epoch)) == list(range(num_rows))


def test_positions_can_be_asked_for_in_any_order_and_mixed_over_epochs():
    rows = RowPermutation(1000, key=3)
    positions = np.array([999, 0, 500, 500, 1])
    epochs = np.array([2, 0, 1, 2, 2])
    expected = [order(1000, 3, int(e))[p] for p, e in zip(positions, epochs, strict=True)]
    assert rows.rows(positions, epochs).tolist() == expected


def test_another_epoch_or_key_is_another_order():
    assert len({tuple(order(50, key, epoch)) for key in range(5) for epoch in range(5)}) == 25


def test_all_orders_of_four_rows_are_about_equally_frequent():
    num_epochs = 24 * 200
    counts = dict.fromkeys(permutations(range(4)), 0)
    for epoch in range(num_epochs):
        counts[tuple(order(4, key=11, epoch=epoch))] += 1
    chi_square = sum((count - 200) ** 2 / 200 for count in counts.values())
    # 23 degrees of freedom: 49.7 is passed by one fair generator in a thousand.
    assert chi_square < 49.7


def test_neighbouring_positions_are_not_neighbouring_rows():
    rows = np.array(order(10_000, key=1))
    correlation = np.corrcoef(rows[:-1], rows[1:])[0, 1]
    assert abs(correlation) < 0.05  # five standard errors of 10,000 independent pairs
    assert np.abs(np.corrcoef(np.arange(10_000), rows)[0, 1]) < 0.05


def test_a_key_depends_on_every_part_and_not_on_the_process():
    assert derive_key(0, "web") != derive_key(0, "code") != derive_key(1, "code")
    assert derive_key(1, "23") != derive_key(12, "3")
    # Written down once: a released schedule must replay in the same order for ever.
    assert derive_key(0, "web") == 0x76769E1B4F3992B6
