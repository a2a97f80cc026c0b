"""UniMax against the paper's own loop over languages in ascending size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq

from tikmix_hf import mixers
from tikmix_hf.mixers import MixerError, Signals
from tikmix_hf.mixture import Supply


def signals(tokens, left, seen=None, rows=1.0):
    tokens = np.array(tokens, dtype=np.float64)
    seen = np.zeros(len(tokens)) if seen is None else np.array(seen, dtype=np.float64)
    names = tuple(f"d{k}" for k in range(len(tokens)))
    prior = tokens / tokens.sum() if tokens.any() else np.full(len(tokens), 1 / len(tokens))
    return Signals(
        step=0,
        domains=names,
        targets=(),
        mixture=prior,
        supply=Supply(prior, tokens, seen, float(left), np.array(rows) * np.ones(len(tokens))),
    )


def answer(given, **settings):
    mixer = mixers.load("unimax")(**settings)
    return mixer.step(mixer.init(given.mixture), given)[0]


def by_the_papers_loop(tokens, budget, max_epochs):
    """Smallest first; each takes the mean of what is left, or all it may."""
    taken, left = np.zeros(len(tokens)), float(budget)
    for place, k in enumerate(np.argsort(tokens)):
        taken[k] = min(left / (len(tokens) - place), max_epochs * tokens[k])
        left -= taken[k]
    return taken / budget


def test_a_small_domain_is_read_whole_and_the_others_share_the_rest():
    """Of 100 tokens the domain of 10 gives 10, and 45 come from each of the others."""
    np.testing.assert_allclose(answer(signals([10, 50, 1000], left=100)), [0.1, 0.45, 0.45])
    np.testing.assert_allclose(answer(signals([10, 50, 1000], left=300), max_epochs=5), [
        50 / 300, 125 / 300, 125 / 300,
    ])  # fmt: skip


@pytest.mark.parametrize("max_epochs", [1.0, 2.5, 10.0])
def test_it_is_the_papers_loop(max_epochs):
    rng = np.random.default_rng(0)
    for _ in range(20):
        tokens = 1e6 * np.exp(rng.normal(size=7) * 2)
        budget = tokens.sum() * rng.uniform(0.05, 1.0) * max_epochs
        np.testing.assert_allclose(
            answer(signals(tokens, budget), max_epochs=max_epochs),
            by_the_papers_loop(tokens, budget, max_epochs),
            rtol=1e-9,
        )


def test_rows_of_unequal_lengths_fill_the_run_with_as_many_tokens_of_each_as_there_are():
    """Brute force: one c with min(c, cap) tokens of each, in rows of their lengths."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        tokens, rows = 1e6 * np.exp(rng.normal(size=(2, 6)) * [[1.5], [1.0]])
        num_samples = 2.5 * (tokens / rows).sum() * rng.uniform(0.05, 1.0)

        def taken(c):
            return np.minimum(c, 2.5 * tokens)  # noqa: B023

        c = brentq(lambda c: (taken(c) / rows).sum() - num_samples, 0, 3 * tokens.max())  # noqa: B023
        np.testing.assert_allclose(
            answer(signals(tokens, num_samples, rows=rows), max_epochs=2.5),
            taken(c) / taken(c).sum(),
            rtol=1e-7,  # of the root
        )


def test_too_little_text_is_an_error_that_names_the_least_number_of_epochs():
    """60 tokens fill a run of 150 in 2.5 epochs."""
    given = signals([10, 50], left=150)
    with pytest.raises(MixerError, match=r"are 40.0% of the samples .* at least 2\.5 or") as caught:
        answer(given)
    least = float(str(caught.value).split("at least ")[1].split()[0])
    np.testing.assert_allclose(answer(given, max_epochs=least), [1 / 6, 5 / 6], rtol=1e-12)
    with pytest.raises(MixerError):
        answer(given, max_epochs=0.99 * least)


def test_the_least_number_of_epochs_is_enough_and_hardly_more_wherever_training_stands():
    rng = np.random.default_rng(1)
    for _ in range(30):
        tokens = 1e6 * np.exp(rng.normal(size=5))
        rows = np.exp(rng.normal(size=5))
        left = (tokens / rows).sum() * rng.uniform(1.5, 9)
        given = signals(tokens, left, tokens * rng.uniform(0, 3, 5), rows)
        with pytest.raises(MixerError) as caught:
            answer(given, max_epochs=0.1)
        least = float(str(caught.value).split("at least ")[1].split()[0])
        assert answer(given, max_epochs=least).sum() == pytest.approx(1)
        with pytest.raises(MixerError):  # it is rounded up to three digits
            answer(given, max_epochs=0.99 * least)


def test_without_tokens_no_number_of_epochs_would_do():
    with pytest.raises(MixerError, match="No domain has tokens"):
        answer(signals([0, 0], left=10))


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_a_number_of_epochs_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match=r"`max_epochs` must be (finite and above 0|a number)"):
        mixers.load("unimax")(max_epochs=value)
