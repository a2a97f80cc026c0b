"""InterleavedDomainDataset: sample ordinal -> (domain, row), and what may go wrong."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import LENGTH, addresses, make_dataset, make_domains, rows
from torch.utils.data import DataLoader
from transformers import default_data_collator

from tikmix_hf import Domains, InterleavedDomainDataset, MixtureSchedule, PackedCollator
from tikmix_hf.order.blocks import BLOCK_SIZE
from tikmix_hf.order.permutation import RowPermutation, derive_key

NAMES = ("d0", "d1", "d2", "d3")


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    cuts=st.lists(st.integers(1, 400), max_size=5),
    mixtures=st.lists(
        st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(any), min_size=6, max_size=6
    ),
)
def test_every_row_of_a_domain_comes_once_per_epoch_across_segments(seed, cuts, mixtures):
    dataset = make_dataset(mixture=_by_name(mixtures[0]), seed=seed)
    start = 0
    for cut, mixture in zip(cuts, mixtures[1:], strict=False):
        start += cut
        dataset.set_mixture(_by_name(mixture), from_sample=start)
    domains_N, rows_N = dataset.locate(np.arange(start + 600))
    for k, domain in enumerate(dataset.domains):
        served = rows_N[domains_N == k]
        permutation = RowPermutation(domain.num_rows, key=derive_key(seed, domain.name))
        places = np.arange(len(served))
        expected = permutation.rows(places % domain.num_rows, places // domain.num_rows)
        np.testing.assert_array_equal(served, expected)
        for epoch in range(len(served) // domain.num_rows):
            once = served[epoch * domain.num_rows : (epoch + 1) * domain.num_rows]
            assert sorted(once) == list(range(domain.num_rows))


def _by_name(shares: list[int]) -> dict[str, float]:
    return {name: share / sum(shares) for name, share in zip(NAMES, shares, strict=True)}


def test_any_order_of_access_gives_the_same_answer():
    dataset = make_dataset()
    dataset.set_mixture({"d0": 0.5, "d3": 0.5}, from_sample=37)
    dataset.set_mixture({"d1": 1.0}, from_sample=BLOCK_SIZE + 11)
    samples = np.arange(2 * BLOCK_SIZE + 50)
    in_order = np.stack(dataset.locate(samples))
    shuffled = np.random.default_rng(0).permutation(samples)
    fresh = make_dataset()
    fresh.load_schedule(dataset.schedule)
    np.testing.assert_array_equal(np.stack(fresh.locate(shuffled)), in_order[:, shuffled])
    for sample in (0, 36, 37, 38, BLOCK_SIZE, BLOCK_SIZE + 10, BLOCK_SIZE + 11, samples[-1]):
        assert fresh.domain_of(int(sample)) == NAMES[in_order[0, sample]]


def test_samples_before_a_change_stay_what_they_were():
    dataset = make_dataset()
    before = np.stack(dataset.locate(np.arange(300)))
    dataset.set_mixture({"d2": 1.0}, from_sample=101)
    after = np.stack(dataset.locate(np.arange(300)))
    np.testing.assert_array_equal(after[:, :101], before[:, :101])
    assert (after[0, 101:] == 2).all()


def test_rows_hold_the_tokens_of_the_row_that_the_law_names():
    dataset = make_dataset()
    for sample, (domain, high, low) in enumerate(addresses(dataset, 96)):
        tokens = dataset.domains[domain].train[high * 100 + low]["input_ids"]
        row = dataset[sample]
        assert row["input_ids"].tolist() == tokens
        assert row["labels"].tolist() == tokens
        assert row["input_ids"].dtype == torch.int64


def test_rows_come_from_any_arrow_chunk_and_list_type():
    chunked = rows(0, 50)
    for _ in range(3):
        chunked = _concatenate(chunked, rows(0, 50))
    fixed = chunked.cast_column("input_ids", _fixed(LENGTH))
    for data in (chunked, fixed):
        domains = Domains.from_datasets({"a": data, "b": rows(1, 30)}, heldout=0.1)
        dataset = InterleavedDomainDataset(domains, "natural", num_samples=200)
        domains_N, rows_N = dataset.locate(np.arange(200))
        for sample in range(200):
            expected = domains[int(domains_N[sample])].train[int(rows_N[sample])]["input_ids"]
            assert dataset[sample]["input_ids"].tolist() == expected


def _concatenate(first: Dataset, second: Dataset) -> Dataset:
    from datasets import concatenate_datasets

    return concatenate_datasets([first, second])


def _fixed(length: int):
    from datasets import Sequence, Value

    return Sequence(Value("int32"), length=length)


def test_shares_are_shares_of_tokens_where_rows_differ_in_length():
    long, short = rows(0, 80, lengths=[40] * 80), rows(1, 80, lengths=[10] * 80)
    domains = Domains.from_datasets({"long": long, "short": short}, heldout=0.1)
    dataset = InterleavedDomainDataset(domains, {"long": 0.5, "short": 0.5}, num_samples=1000)
    tokens_K = dataset.tokens_between(0, 1000)
    # Four short rows per long one; within two samples of 40 tokens each of the exact half.
    assert abs(tokens_K[0] - tokens_K.sum() / 2) <= 2 * 40
    assert dataset.num_served(1000).tolist() == pytest.approx([200, 800], abs=2)


def test_tokens_of_ragged_rows_are_counted_row_by_row():
    lengths = [5 + row % 9 for row in range(60)]
    domains = Domains.from_datasets(
        {"a": rows(0, 60, lengths=lengths), "b": rows(1, 40)}, heldout=0.1
    )
    dataset = InterleavedDomainDataset(domains, "uniform", num_samples=100)
    expected_K = [0, 0]
    for sample in range(13, 90):
        expected_K[NAMES.index("d" + str("ab".index(dataset.domain_of(sample))))] += len(
            dataset[sample]["input_ids"]
        )
    assert dataset.tokens_between(13, 90).tolist() == expected_K


def test_zero_shares_are_never_drawn_and_tiny_ones_are_over_time():
    dataset = make_dataset(mixture={"d0": 1 - 1e-4, "d1": 1e-4})
    for update in range(1, 101):  # a change every 1,000 samples, to the same mixture
        dataset.set_mixture({"d0": 1 - 1e-4, "d1": 1e-4}, from_sample=1000 * update)
    served_K = dataset.num_served(100_000)
    assert served_K[2] == served_K[3] == 0
    assert abs(served_K[1] - 10) <= 2


def test_trainer_epochs_continue_the_ordinals():
    dataset = make_dataset(num_samples=10)
    whole = addresses(dataset, 30)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        read = [dataset[i]["input_ids"][:3].tolist() for i in range(10)]
        assert read == whole[10 * epoch : 10 * epoch + 10]


def test_epochs_used_counts_rows_gone_through():
    dataset = make_dataset(mixture={"d0": 0.5, "d3": 0.5})
    assert dataset.epochs_used(120) == {"d0": 60 / 90, "d1": 0.0, "d2": 0.0, "d3": 60 / 40}


@pytest.mark.parametrize("collate", [PackedCollator(), default_data_collator])
def test_collators_get_the_same_batch(collate):
    dataset = make_dataset(num_samples=8)
    (batch,) = DataLoader(dataset, batch_size=8, collate_fn=collate)
    expected = [dataset[i]["input_ids"].tolist() for i in range(8)]
    assert batch["input_ids"].tolist() == expected
    assert batch["labels"].tolist() == expected


def test_a_ready_batch_passes_through_without_a_copy():
    batch = make_dataset().__getitems__([0, 1, 2])
    assert PackedCollator()(batch)["input_ids"] is batch.tensors["input_ids"]
    assert batch[1]["input_ids"].data_ptr() == batch.tensors["input_ids"][1].data_ptr()


@pytest.mark.parametrize("big", [False, True])
def test_a_batch_leaves_a_worker_as_it_was(big):
    batch = PackedCollator()(make_dataset().__getitems__([0, 1, 2]))
    if big:  # no token id is, but nothing is cut in silence
        batch["input_ids"][1, 5] = 2**40
    back = pickle.loads(pickle.dumps(batch))
    assert list(back) == ["input_ids", "labels"]
    for name in back:
        assert back[name].dtype == torch.int64
        assert torch.equal(back[name], batch[name])
    if not big:
        assert back["labels"] is back["input_ids"]  # sent once
    labelled = type(batch)({**batch, "labels": batch["labels"] - 7})
    assert torch.equal(pickle.loads(pickle.dumps(labelled))["labels"], batch["labels"] - 7)


def test_rows_of_unequal_length_are_padded_and_their_padding_has_no_label():
    domains = Domains.from_datasets(
        {"a": rows(0, 30, lengths=[4 + r % 3 for r in range(30)])}, heldout=0.1
    )
    dataset = InterleavedDomainDataset(domains, num_samples=6)
    batch = PackedCollator(pad_token_id=9)(dataset.__getitems__(list(range(6))))
    for i in range(6):
        tokens = dataset[i]["input_ids"].tolist()
        padding = batch["input_ids"].shape[1] - len(tokens)
        assert batch["input_ids"][i].tolist() == tokens + [9] * padding
        assert batch["labels"][i].tolist() == tokens + [-100] * padding
        assert batch["attention_mask"][i].tolist() == [1] * len(tokens) + [0] * padding


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_see_a_change_that_is_made_while_they_run(method):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    dataset = make_dataset(num_samples=96)
    loader = DataLoader(
        dataset,
        batch_size=4,
        collate_fn=PackedCollator(),
        num_workers=2,
        prefetch_factor=2,
        multiprocessing_context=method,
    )
    read = []
    for number, batch in enumerate(loader):
        read += batch["input_ids"][:, :3].tolist()
        if number == 3:  # four batches seen, four more in the workers' hands, one being handed out
            dataset.set_mixture({"d3": 1.0}, from_sample=4 * 9)
    assert read == addresses(dataset, 96)
    assert {address[0] for address in read[36:]} == {3}


def test_a_change_of_samples_that_a_loader_has_asked_for_is_refused():
    dataset = make_dataset()
    next(iter(DataLoader(dataset, batch_size=8, collate_fn=PackedCollator())))
    with pytest.raises(ValueError, match=r"`from_sample` must not be read yet.* before 8; got 7"):
        dataset.set_mixture("natural", from_sample=7)
    dataset.set_mixture("natural", from_sample=8)


class _Meddler(InterleavedDomainDataset):
    def __getitems__(self, indices):
        self.set_mixture("natural", from_sample=1000)


def test_workers_may_not_change_the_mixture():
    loader = DataLoader(_Meddler(make_domains(), num_samples=8), num_workers=1)
    with pytest.raises(RuntimeError, match="in the process that trains"):
        next(iter(loader))


def test_a_pickled_copy_reads_the_same_rows():
    dataset = make_dataset()
    dataset.set_mixture({"d1": 1.0}, from_sample=5)
    copy = pickle.loads(pickle.dumps(dataset))
    for sample in range(96):
        assert copy[sample]["input_ids"].tolist() == dataset[sample]["input_ids"].tolist()


def test_a_schedule_replays_by_name_in_another_order_of_domains():
    dataset = make_dataset()
    dataset.set_mixture({"d0": 0.7, "d2": 0.3}, from_sample=50)
    reordered = {name: dataset.domains[name].train for name in reversed(NAMES)}
    heldout = {name: dataset.domains[name].heldout for name in NAMES}
    other = InterleavedDomainDataset(
        Domains.from_datasets(reordered, heldout=heldout), dataset.schedule, num_samples=96
    )
    assert other.schedule.mixture_at(60) == {"d3": 0.0, "d2": 0.3, "d1": 0.0, "d0": 0.7}


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ({"d0": 0.5, "dd1": 0.5}, r"no domain to bind 'dd1' to\. Did you mean 'd1'"),
        ({"d0": 1.5, "d1": -0.5}, r"not negative; got -0\.5 for 'd1'"),
        ({"d0": float("nan"), "d1": 0.5}, r"finite and not negative; got nan for 'd0'"),
        ({"d0": 0.5, "d1": 0.4}, r"sum to 1 within .*; got 0\.9"),
        ([0.5, 0.5], r"one share per domain \(4: d0, d1, d2, d3\)"),
        ("natrual", r"must be 'natural', 'uniform', .* got 'natrual'"),
    ],
)
def test_what_is_no_mixture_is_refused_here_and_when_it_changes(mixture, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(mixture=mixture)
    with pytest.raises(ValueError, match=message):
        make_dataset().set_mixture(mixture, from_sample=10)


def test_other_bad_arguments_are_refused():
    with pytest.raises(TypeError, match="`domains` must be a Domains; got dict"):
        InterleavedDomainDataset({"web": rows(0, 5)}, num_samples=5)
    with pytest.raises(ValueError, match="`num_samples` must be at least 1; got 0"):
        make_dataset(num_samples=0)
    dataset = make_dataset(max_updates=1)
    dataset.set_mixture("natural", from_sample=8)
    with pytest.raises(ValueError, match="after the last change, at sample 8; got 8"):
        dataset.set_mixture("uniform", from_sample=8)
    with pytest.raises(RuntimeError, match="`max_updates` must cover"):
        dataset.set_mixture("uniform", from_sample=9)
    with pytest.raises(ValueError, match="The schedule is for the domains"):
        dataset.load_schedule(MixtureSchedule.constant({"web": 1.0}))
    with pytest.raises(IndexError):
        dataset[96]
    with pytest.raises(ValueError, match="0 or more; got -1"):
        dataset.locate([-1])


def test_loading_another_schedule_forgets_the_one_that_was_read():
    dataset = make_dataset(mixture={"d0": 1.0})
    assert {address[0] for address in addresses(dataset, 50)} == {0}
    other = make_dataset(mixture={"d3": 1.0})
    dataset.load_schedule(other.schedule)
    assert addresses(dataset, 50) == addresses(other, 50)


def test_what_any_worker_asked_for_counts_as_read():
    dataset = make_dataset(num_samples=64)
    loader = DataLoader(dataset, batch_size=4, num_workers=2, collate_fn=PackedCollator())
    batches = iter(loader)
    for _ in range(16):
        next(batches)
    with pytest.raises(ValueError, match="before 64; got 60"):
        dataset.set_mixture("natural", from_sample=60)


def test_rows_that_are_a_slice_of_a_larger_table_are_read_from_its_start():
    data = rows(0, 80)
    sliced = Dataset(data.data.slice(17, 43), info=data.info)
    domains = Domains.from_datasets({"a": sliced}, heldout={"a": rows(0, 5)})
    dataset = InterleavedDomainDataset(domains, num_samples=43)
    assert sorted(dataset[k]["input_ids"][2].item() for k in range(43)) == list(range(17, 60))


def test_columns_whose_chunks_end_at_different_rows_are_read_together():
    joined = _concatenate(rows(0, 20), rows(0, 30))
    labels = [[-100] * 3 + row[3:] for row in joined["input_ids"]]
    joined = joined.add_column("labels", labels)
    domains = Domains.from_datasets({"a": joined}, heldout=0.1)
    dataset = InterleavedDomainDataset(domains, num_samples=40)
    for k in range(40):
        row = dataset[k]
        assert row["labels"].tolist() == [-100] * 3 + row["input_ids"][3:].tolist()


def test_labels_come_with_packed_blocks_and_never_with_ragged_rows():
    ragged = rows(0, 40, lengths=[4, 4, 4, 7] * 10)
    dataset = InterleavedDomainDataset(
        Domains.from_datasets({"a": ragged}, heldout=0.1), num_samples=30
    )
    for k in range(30):
        assert "labels" not in dataset[k]
    assert all("labels" in row for row in make_dataset().__getitems__([0, 1]))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1] * 10, "lists of integers in 'labels'; got int64"),
        ([[1] * LENGTH] * 9 + [None], "no empty cell in 'labels'; got 1 nulls"),
        ([[1] * LENGTH] * 9 + [[1]], "one entry of 'labels' per token"),
    ],
)
def test_labels_that_do_not_fit_their_tokens_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        Domains.from_datasets({"a": rows(0, 10).add_column("labels", labels)}, heldout=0.1)


def test_a_schedule_cannot_be_changed_through_an_array_it_gave_away():
    dataset = make_dataset()
    with pytest.raises(ValueError, match="read-only"):
        dataset.schedule.segments[0].mixture[0] = 0.9


def test_a_sample_is_a_whole_number():
    with pytest.raises(TypeError):
        make_dataset().set_mixture("natural", from_sample=20.5)
