"""Dirichlet search: uphill on a predicted score, within a neighbourhood.

In go a model's predictions and a start; out comes the mixture it likes best. Round t draws mixtures
from Dirichlet(c_t w) and makes w the mean of those with the highest predictions (algorithm 1 of
Wang et al., TiKMiX, arXiv 2508.17677, 2025). c_t grows: large steps first, small ones last. The
region is convex and so holds the mean of what it holds.
"""

# Shape letters: K domains, N draws.

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers._neighbourhood import Neighbourhood
from tikmix_hf.mixers._surrogate import Predict

Array = NDArray[np.float64]


class Climb(NamedTuple):
    """How to search."""

    num_rounds: int
    num_draws: int
    top_k: int
    concentration: tuple[float, float]
    """First and last c_t / K, with equal factors between."""


def search(
    near: Neighbourhood, predict: Predict, start_K: Array, climb: Climb, rng: np.random.Generator
) -> tuple[Array, str]:
    """The best predicted of the start, each round's mixture and the mixture in force.

    Args:
        near: Where to look.
        predict: The model.
        start_K: A mixture of `near`.
        climb: How to search.
        rng: Where the randomness comes from.

    Returns:
        (K,) mixture and what to say of it.
    """
    path = [start_K]
    for concentration in len(start_K) * np.geomspace(*climb.concentration, climb.num_rounds):
        shapes_NK = np.tile(concentration * path[-1], (climb.num_draws, 1))
        weights_NK = rng.standard_gamma(shapes_NK)  # of a Dirichlet, but for the sum
        draws_NK = near.brought_in(weights_NK / weights_NK.sum(axis=1, keepdims=True))
        best_N = np.argsort(-predict(draws_NK), kind="stable")[: climb.top_k]
        path.append(draws_NK[best_N].mean(axis=0))
    if near.holds(near.mixture_K):
        path.append(near.mixture_K)
    predicted = predict(np.stack(path))
    best = int(np.argmax(predicted))
    now = float(predict(near.mixture_K[None])[0])
    note = (
        f"predicted score: {now:.3g} of the mixture in force, {predicted[0]:.3g} of TiKMiX-D's "
        f"optimum in the box, {predicted[best]:.3g} of the answer"
    )
    return path[best], note
