"""HeldoutBatches: which rows an update measures, and how they are collated."""

from __future__ import annotations

import pytest
import torch
from tiny import rows
from transformers import default_data_collator

from tikmix_hf import PackedCollator
from tikmix_hf.updates.heldout import HeldoutBatches, Portion

SIX = Portion(0, 6)


def batches(data, *, portion=SIX, batch_size=4, name="web", collate=None, seed=0):
    return HeldoutBatches(
        data,
        name,
        portion=portion,
        batch_size=batch_size,
        collate=collate or PackedCollator(),
        seed=seed,
    )


def row_numbers(sequence) -> list[int]:
    return [int(row[2]) for batch in sequence for row in batch["input_ids"]]


def test_updates_read_fresh_rows_until_all_were_seen():
    data = rows(0, 20)
    read = [
        row
        for update in range(10)
        for row in row_numbers(batches(data, portion=Portion(update, 6)))
    ]
    for epoch in range(3):
        assert sorted(read[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert read[:20] != read[20:40]


@pytest.mark.parametrize(("num_rows", "num_rounds"), [(8, 4), (7, 3), (64, 4), (5, 1)])
def test_the_rounds_of_an_update_are_its_rows_in_pieces_of_about_equal_size(num_rows, num_rounds):
    data = rows(0, 20)
    for update in range(4):
        pieces = [
            row_numbers(batches(data, portion=Portion(update, num_rows, number, num_rounds)))
            for number in range(num_rounds)
        ]
        whole = row_numbers(batches(data, portion=Portion(update, num_rows)))
        assert [row for piece in pieces for row in piece] == whole
        assert len(set(whole)) == len(whole) or num_rows * (update + 1) > 20
        assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


def test_batches_can_be_asked_for_in_any_order():
    sequence = batches(rows(0, 20))
    assert [len(batch["input_ids"]) for batch in sequence] == [4, 2]
    again = batches(rows(0, 20))
    assert torch.equal(again[1]["input_ids"], sequence[1]["input_ids"])


def test_another_name_or_seed_reads_other_rows():
    data = rows(0, 20)
    first = row_numbers(batches(data))
    assert row_numbers(batches(data, name="code")) != first
    assert row_numbers(batches(data, seed=1)) != first


def test_more_rows_than_there_are_means_all_of_them():
    assert sorted(row_numbers(batches(rows(0, 5), portion=Portion(0, 64)))) == list(range(5))


def test_labels_are_the_tokens_where_the_data_has_none():
    packed = batches(rows(0, 8), collate=default_data_collator)[0]
    assert torch.equal(packed["labels"], packed["input_ids"])

    def pad(features):
        longest = max(len(f["input_ids"]) for f in features)
        ids = [f["input_ids"].tolist() for f in features]
        return {
            "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in ids]),
            "attention_mask": torch.tensor(
                [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
            ),
        }

    ragged = batches(rows(0, 8, lengths=[4 + r % 3 for r in range(8)]), collate=pad)[0]
    assert ((ragged["labels"] == -100) == (ragged["attention_mask"] == 0)).all()
    assert (ragged["labels"] == -100).any()
