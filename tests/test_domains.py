"""Domains: counted, split, named and refused, against counts taken row by row."""

import subprocess
import sys

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from tikmix_hf.domains import Domain, Domains


def rows(lengths, *, start=0):
    """Rows of the given lengths whose tokens count up, so that every row is another one."""
    ends = start + np.cumsum(lengths)
    return Dataset.from_dict(
        {"input_ids": [list(range(e - n, e)) for n, e in zip(lengths, ends, strict=True)]}
    )


def tokens_of(dataset):
    return [row["input_ids"] for row in dataset]


@pytest.fixture
def domains():
    return Domains.from_datasets(
        {"web": rows([3] * 40), "code": rows([1, 2, 3, 4] * 5), "books": rows([7] * 10)},
        heldout=0.1,
    )


def test_a_domain_counts_what_its_rows_hold():
    lengths = [4, 1, 0, 9, 2]
    domain = Domain(name="web", train=rows(lengths), heldout=rows([1]))
    assert domain.row_lengths().tolist() == [len(tokens) for tokens in tokens_of(domain.train)]
    assert domain.row_lengths().dtype == np.int32
    assert (domain.num_rows, domain.num_tokens) == (len(lengths), sum(lengths))
    assert domain.mean_tokens_per_row == sum(lengths) / len(lengths)
    assert domain.row_length is None
    assert Domain(name="web", train=rows([3, 3]), heldout=rows([1])).row_length == 3


def test_counts_follow_a_selection_and_not_the_table_behind_it():
    train = rows([5, 1, 2, 8]).select([3, 1])
    domain = Domain(name="web", train=train, heldout=rows([1]))
    assert domain.row_lengths().tolist() == [8, 1]
    straight = Domains.from_datasets({"web": train}, heldout={"web": rows([1])})["web"]
    assert straight.row_lengths().tolist() == [8, 1]
    assert straight.train.data.column("input_ids").to_pylist() == tokens_of(train)


def test_domains_keep_their_order_and_are_found_by_name_and_position(domains):
    assert domains.names == ("web", "code", "books")
    assert [domain.name for domain in domains] == list(domains.names)
    assert len(domains) == 3
    assert domains["code"] is domains[1]
    with pytest.raises(KeyError, match=r"'coed' is no domain; there are web, code, books"):
        domains["coed"]


def test_the_natural_prior_is_the_share_of_training_tokens(domains):
    num_tokens = [sum(map(len, tokens_of(domain.train))) for domain in domains]
    assert domains.num_tokens.tolist() == num_tokens
    assert domains.num_tokens.dtype == np.int64
    # One division of integers below 2^53 and one by a sum within rounding of 1.
    np.testing.assert_allclose(domains.prior, np.array(num_tokens) / sum(num_tokens), rtol=1e-15)
    for array in (domains.num_tokens, domains.prior):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_every_way_to_say_a_mixture_is_resolved(domains):
    assert domains.resolve("natural").tolist() == domains.prior.tolist()
    np.testing.assert_allclose(domains.resolve("uniform"), [1 / 3] * 3, rtol=1e-15)
    by_name = domains.resolve({"books": 0.5, "web": 0.25, "code": 0.25})
    assert by_name.tolist() == domains.resolve([0.25, 0.25, 0.5]).tolist() == [0.25, 0.25, 0.5]
    with pytest.raises(ValueError, match=r"`mixture` must be 'natural', 'uniform'.*'unifrom'"):
        domains.resolve("unifrom")


def test_a_given_prior_is_what_natural_means():
    data = {"web": rows([2] * 4), "code": rows([2] * 4)}
    domains = Domains.from_datasets(data, prior={"code": 0.9, "web": 0.1})
    assert domains.resolve("natural").tolist() == [0.1, 0.9]
    with pytest.raises(ValueError, match="`prior`"):
        Domains.from_datasets(data, prior=[0.5, 0.6])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(0.001, 0.9), st.integers(-3, 3))
def test_a_split_loses_and_repeats_no_row_and_holds_out_its_share(num_rows, fraction, seed):
    num_heldout = max(1, round(fraction * num_rows))
    data = rows([2] * num_rows)
    if num_heldout == num_rows:
        with pytest.raises(ValueError, match="`heldout` must leave training rows"):
            Domains.from_datasets({"web": data}, heldout=fraction, seed=seed)
        return
    web = Domains.from_datasets({"web": data}, heldout=fraction, seed=seed)["web"]
    assert len(web.heldout) == num_heldout
    train, heldout = tokens_of(web.train), tokens_of(web.heldout)
    assert sorted(train + heldout) == tokens_of(data)
    assert (train, heldout) == (sorted(train), sorted(heldout))


def test_a_split_depends_on_seed_and_name_but_not_on_the_other_domains():
    data = rows([1] * 100)

    def heldout(names, name, seed):
        domains = Domains.from_datasets(dict.fromkeys(names, data), heldout=0.2, seed=seed)
        return tokens_of(domains[name].heldout)

    alone = heldout(["web"], "web", 0)
    assert heldout(["code", "web", "books"], "web", 0) == alone
    assert heldout(["web"], "web", 1) != alone
    assert heldout(["code"], "code", 0) != alone


def test_held_out_rows_are_spread_evenly_over_the_domain():
    num_rows, num_seeds = 40, 200
    times_held_out = np.zeros(num_rows)
    for seed in range(num_seeds):
        web = Domains.from_datasets({"web": rows([1] * num_rows)}, heldout=0.25, seed=seed)["web"]
        times_held_out[np.ravel(tokens_of(web.heldout))] += 1
    # Binomial counts: mean 50, deviation sqrt(200 / 4 * 3 / 4) = 6.1; 5 deviations for 40 rows.
    assert abs(times_held_out - num_seeds / 4).max() < 5 * np.sqrt(num_seeds / 4 * 3 / 4)


def test_training_rows_are_straight_arrow_and_plain_whatever_came_in():
    came_in = rows([2] * 10).shuffle(seed=1).with_format("torch")
    web = Domains.from_datasets({"web": came_in}, heldout=0.2)["web"]
    assert web.train.data.column("input_ids").to_pylist() == tokens_of(web.train)
    assert isinstance(web.train[0]["input_ids"], list)


def test_held_out_datasets_by_name_leave_all_rows_to_training():
    data, kept_back = rows([2] * 4), rows([3] * 2)
    web = Domains.from_datasets({"web": data}, heldout={"web": kept_back})["web"]
    assert tokens_of(web.train) == tokens_of(data)
    assert tokens_of(web.heldout) == tokens_of(kept_back)
    with pytest.raises(ValueError, match=r"`heldout` must have one dataset per domain \(web\)"):
        Domains.from_datasets({"web": data}, heldout={"code": kept_back})


def test_the_fingerprint_is_of_content_and_alike_in_another_process(domains):
    again = Domains.from_datasets(
        {"web": rows([3] * 40), "code": rows([1, 2, 3, 4] * 5), "books": rows([7] * 10)},
        heldout=0.1,
    )
    assert again.fingerprint() == domains.fingerprint()
    program = (
        "from datasets import Dataset; from tikmix_hf.domains import Domain\n"
        "rows = Dataset.from_dict({'input_ids': [[1, 2], [3]]})\n"
        "print(Domain(name='web', train=rows, heldout=rows).fingerprint())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    here = Dataset.from_dict({"input_ids": [[1, 2], [3]]})
    assert printed.stdout.strip() == Domain(name="web", train=here, heldout=here).fingerprint()


def test_the_fingerprint_sees_name_rows_and_tokens_but_not_how_integers_are_stored():
    def fingerprint(name, tokens, kind=None):
        train = Dataset.from_dict({"input_ids": tokens})
        if kind:
            train = train.cast_column("input_ids", datasets.Sequence(datasets.Value(kind)))
        return Domain(name=name, train=train, heldout=train).fingerprint()

    base = [[i] for i in range(500)]
    assert fingerprint("web", base) == fingerprint("web", base, kind="int32")
    # Of 500 rows 64 are read, the first and the last among them; of row 1 only the length counts.
    variants = [base[:-1], [[7], *base[1:]], [*base[:-1], [7]], [[0], [1, 1], *base[2:]]]
    prints = {fingerprint("web", tokens) for tokens in (base, *variants)}
    prints.add(fingerprint("code", base))
    assert len(prints) == 6


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([rows([2, 2])], TypeError, "`datasets` must map names to datasets"),
        ({"web": [[1, 2]]}, TypeError, "got list.*Dataset.from_list"),
        ({"web": DatasetDict(train=rows([2, 2]))}, TypeError, "got DatasetDict.*split"),
        ({"web": rows([2, 2]).to_iterable_dataset()}, TypeError, "got IterableDataset"),
        ({"web": Dataset.from_dict({"text": ["a"]})}, ValueError, "tokenize_and_pack"),
        ({"web": Dataset.from_dict({"ids": [[1]]})}, ValueError, "'input_ids'; got .'ids'"),
        ({"web": Dataset.from_dict({"input_ids": [1, 2]})}, ValueError, "lists of token ids"),
        ({"web": Dataset.from_dict({"input_ids": [["a"]]})}, ValueError, "lists of token ids"),
        ({"web": rows([2, 2]).add_column("url", ["a", "b"])}, ValueError, "remove_columns"),
        ({"web": rows([2, 2]).select([])}, ValueError, "empty domain"),
        ({"web": rows([2])}, ValueError, "`heldout` must leave training rows; domain 'web' has 1"),
        ({"web": rows([0, 0, 1]).select([0, 1])}, ValueError, "'web' must hold tokens"),
        ({"web": Dataset.from_dict({"input_ids": [[1]] + [None] * 9})}, ValueError, "nulls"),
        ({}, ValueError, "at least one domain"),
        ({"": rows([2, 2])}, ValueError, "`name` must be a non-empty string"),
        (
            {"web": rows([2, 2]), "code": rows([2, 2]).add_column("labels", [[1] * 2, [1] * 2])},
            ValueError,
            "same columns.*'web'.*'code'",
        ),
    ],
)
def test_datasets_that_are_no_domains_are_refused_with_a_mend(data, error, message):
    with pytest.raises(error, match=message):
        Domains.from_datasets(data, heldout=0.02)


@pytest.mark.parametrize("heldout", [0, 0.0, 1, 1.0, -0.1, 5, float("nan")])
def test_a_share_that_leaves_one_side_empty_is_refused(heldout):
    with pytest.raises(ValueError, match=r"`heldout` must be a share .* no held-out rows"):
        Domains.from_datasets({"web": rows([2] * 10)}, heldout=heldout)


@pytest.mark.parametrize("heldout", ["0.1", True, None])
def test_a_share_that_is_no_number_is_refused(heldout):
    with pytest.raises(TypeError, match="`heldout`"):
        Domains.from_datasets({"web": rows([2] * 10)}, heldout=heldout)


def test_domains_of_one_name_or_of_unlike_sides_are_refused():
    web = Domain(name="web", train=rows([2]), heldout=rows([2]))
    with pytest.raises(ValueError, match="unique names; got web twice"):
        Domains([web, web])
    with pytest.raises(TypeError, match="must hold Domain objects; got Dataset"):
        Domains([rows([2])])
    with pytest.raises(ValueError, match="train and held-out rows must have the same columns"):
        Domain(name="web", train=rows([2]), heldout=rows([2]).add_column("labels", [[1, 1]]))
