"""Small runs on fixed mixtures, and what is chosen from them: RegMix, and the best single domain.

In: many mixtures and the losses of small models trained on them, on the text that mixers may
measure. Out: RegMix's mixture (Liu et al., "RegMix", arXiv 2407.01492, 2025): a LightGBM for each
target from shares to bits per byte, the mean prediction of many mixtures, the mean of the best 128.

How this differs from the paper: 64 runs for its 512 and trees of as few as three runs (it has 20);
the objective is the mean over targets, by which all entries are judged, not one domain's loss.
"""

# J targets, K domains, N mixtures.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TEMPERATURE = 0.5
CONCENTRATIONS = np.geomspace(0.1, 5.0, 15)
MOST_TIMES_PRIOR = 15.0
LEAST_SHARE = 2e-4
NUM_CANDIDATES, NUM_BEST = 100_000, 128
NUM_TREES = 300
TREES: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.03,
    "num_leaves": 8,
    "min_data_in_leaf": 3,
    "min_data_in_bin": 1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


def draw_mixtures(prior_K: Array, num: int, rng: np.random.Generator) -> Array:
    """RegMix's mixtures: Dirichlet around the flattened prior, sparse ones and even ones.

    Args:
        prior_K: shares of the domains' tokens.
        num: how many, N.
        rng: draws them.

    Returns:
        (N, K); no share is over `MOST_TIMES_PRIOR` times the prior's, none between 0 and
        `LEAST_SHARE`.
    """
    flat_K = prior_K**TEMPERATURE
    flat_K = flat_K / flat_K.sum()
    kept: list[Array] = []
    while sum(map(len, kept)) < num:
        concentrations_N = rng.choice(CONCENTRATIONS, size=num)
        draws_NK = rng.standard_gamma(concentrations_N[:, None] * flat_K * len(flat_K))
        draws_NK = draws_NK[draws_NK.sum(axis=1) > 0]
        draws_NK /= draws_NK.sum(axis=1, keepdims=True)
        draws_NK[draws_NK < LEAST_SHARE] = 0.0
        draws_NK /= draws_NK.sum(axis=1, keepdims=True)
        kept.append(draws_NK[(draws_NK <= MOST_TIMES_PRIOR * prior_K).all(axis=1)])
    return np.concatenate(kept)[:num]


def proxy_mixtures(prior_K: Array, num: int) -> Array:
    """Mixtures of all proxies, (K + num, K): each domain alone, then RegMix's."""
    drawn_NK = draw_mixtures(prior_K, num, np.random.default_rng(0))
    return np.concatenate([np.eye(len(prior_K)), drawn_NK])


def best_single(domains: Sequence[str], proxies: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The domain alone whose proxy has the lowest mean over targets."""
    alone = proxies[: len(domains)]
    means_K = [np.mean(list(proxy["bits_per_byte"].values())) for proxy in alone]
    best = int(np.argmin(means_K))
    return {name: float(k == best) for k, name in enumerate(domains)}


def regmix(
    domains: Sequence[str], proxies: Sequence[Mapping[str, Any]], prior_K: Array, seed: int
) -> dict[str, float]:
    """RegMix's mixture from the proxies that are no single domain's.

    Args:
        domains: K names.
        proxies: `mixture` (K shares) and `bits_per_byte` by target of each.
        prior_K: as for `proxy_mixtures`.
        seed: of the candidates and the trees.
    """
    import lightgbm

    rows = proxies[len(domains) :]
    mixtures_NK = np.array([proxy["mixture"] for proxy in rows])
    losses_NJ = np.array([list(proxy["bits_per_byte"].values()) for proxy in rows])
    candidates_NK = draw_mixtures(prior_K, NUM_CANDIDATES, np.random.default_rng(seed + 1))
    predicted_N = np.zeros(len(candidates_NK))
    for losses_N in losses_NJ.T:
        known = lightgbm.Dataset(mixtures_NK, losses_N, params={"verbosity": -1})
        trees = lightgbm.train({**TREES, "seed": seed}, known, num_boost_round=NUM_TREES)
        predicted_N += np.asarray(trees.predict(candidates_NK))
    best_NK = candidates_NK[np.argsort(predicted_N, kind="stable")[:NUM_BEST]]
    return dict(zip(domains, best_NK.mean(axis=0).tolist(), strict=True))
