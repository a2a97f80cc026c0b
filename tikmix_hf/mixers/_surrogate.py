"""Surrogates: from scored mixtures to the score of any mixture.

In go mixtures (N, K) and their scores (N,); out comes a function from mixtures to scores, and how
well such a function predicts scores it was not fitted to. `fit_trees` is LightGBM (Ke et al.,
2017), which TiKMiX-M searches with (Wang et al., arXiv 2508.17677, 2025) as RegMix does (Liu et
al., arXiv 2407.01492, 2025); `fit_linear` is what it has to beat.

TiKMiX-M names no settings. RegMix's (1,000 trees of 31 leaves, rate 0.01) are for 512 rows. Those
below predicted better in five-fold cross-validation of 64 and 256 synthetic scores: linear, linear
with sampling noise, and sums of losses that fall with the logarithm of a share. Stumps were a
little better still there, and are not taken: they know of no two domains together.
"""

# Shape letters: K domains, N mixtures.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
Predict = Callable[[Array], Array]
"""Mixtures (N, K) to scores (N,)."""
Fit = Callable[[Array, Array], Predict]
"""Mixtures (N, K) and scores (N,) to a `Predict`."""

NUM_TREES = 600
TREES: dict[str, Any] = {
    "objective": "regression",
    "learning_rate": 0.03,
    "num_leaves": 4,
    "min_data_in_leaf": 5,
    "lambda_l2": 1.0,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
# Of the number of mixtures: nothing where they are many, and an answer where there are fewer than
# domains.
_RIDGE = 1 / 256


class Skill(NamedTuple):
    """How well scores are predicted that were left out of the fit."""

    r2: float
    """1 - squared error / variance; 0 is what the mean achieves, 1 is perfect."""
    spearman: float
    """Rank correlation."""

    def __str__(self) -> str:
        return f"R2 {self.r2:.2f}, Spearman {self.spearman:.2f}"


def fit_trees(mixtures_NK: Array, scores_N: Array) -> Predict:
    """LightGBM with the settings above; the same arguments give the same function."""
    import lightgbm

    middle, scale = float(scores_N.mean()), float(scores_N.std()) or 1.0
    # Penalties are in the scores' unit, so that it has to be a fixed one.
    data = lightgbm.Dataset(mixtures_NK, (scores_N - middle) / scale, params=dict(TREES))
    booster = lightgbm.train(dict(TREES), data, num_boost_round=NUM_TREES)

    def predict(others_NK: Array) -> Array:
        return middle + scale * np.asarray(booster.predict(others_NK, num_threads=1))

    return predict


def fit_linear(mixtures_NK: Array, scores_N: Array) -> Predict:
    """Ridge regression on shares divided by their spread."""
    middle_K, spread_K = mixtures_NK.mean(axis=0), mixtures_NK.std(axis=0)
    # Rounding gives a spread to a share that is the same everywhere.
    scale_K = np.where(spread_K > 1e-9, spread_K, np.inf)
    middle = scores_N.mean()
    shares_NK = (mixtures_NK - middle_K) / scale_K
    penalty_KK = _RIDGE * len(scores_N) * np.eye(len(middle_K))
    slope_K = np.linalg.solve(
        shares_NK.T @ shares_NK + penalty_KK, shares_NK.T @ (scores_N - middle)
    )

    def predict(others_NK: Array) -> Array:
        return middle + ((others_NK - middle_K) / scale_K) @ slope_K

    return predict


FITS: dict[str, Fit] = {"lightgbm": fit_trees, "linear": fit_linear}


def without_outliers(scores_N: Array, num_outliers: int) -> NDArray[np.int64]:
    """Positions, in order, of all scores but those furthest from the median.

    Example:
        >>> without_outliers(np.array([1.0, 9.0, 2.0, 3.0, -3.0]), 2).tolist()
        [0, 2, 3]
    """
    distance_N = np.abs(scores_N - np.median(scores_N))
    nearest_N = np.argsort(distance_N, kind="stable")
    return np.sort(nearest_N[: len(scores_N) - num_outliers])


def choose(
    name: str,
    mixtures_NK: Array,
    scores_N: Array,
    *,
    num_folds: int,
    rng: np.random.Generator,
) -> tuple[Predict | None, tuple[str, ...]]:
    """A model of the scores, fitted to all of them, and what to say of it.

    Args:
        name: One of `FITS`, or "better": the one with the higher cross-validated R2, or none (None)
            where no R2 is above 0.
        mixtures_NK: The mixtures.
        scores_N: Their scores.
        num_folds: Folds of the cross-validation, the same for both models.
        rng: Where the folds come from.
    """
    fold_N = rng.permutation(np.arange(len(scores_N)) % num_folds)
    skills = {own: skill(fit, mixtures_NK, scores_N, fold_N) for own, fit in FITS.items()}
    notes = [f"cross-validated: LightGBM {skills['lightgbm']}; linear {skills['linear']}"]
    if skills["lightgbm"].r2 < skills["linear"].r2:
        notes.append("LightGBM predicts worse than the linear model")
    if name == "better":
        name = max(skills, key=lambda own: skills[own].r2)
        if skills[name].r2 <= 0:
            notes.append("neither predicts the scores: the answer is TiKMiX-D's within the box")
            return None, tuple(notes)
    notes.append(f"the search follows {'LightGBM' if name == 'lightgbm' else 'the linear model'}")
    return FITS[name](mixtures_NK, scores_N), tuple(notes)


def skill(fit: Fit, mixtures_NK: Array, scores_N: Array, fold_N: NDArray[np.int64]) -> Skill:
    """Cross-validates: each score is predicted by a fit to the other folds.

    Args:
        fit: One of `FITS`.
        mixtures_NK: The mixtures.
        scores_N: Their scores.
        fold_N: Which fold each is in.
    """
    predicted_N = np.empty(len(scores_N))
    for fold in np.unique(fold_N):
        out_N = fold_N == fold
        predicted_N[out_N] = fit(mixtures_NK[~out_N], scores_N[~out_N])(mixtures_NK[out_N])
    variance = float(((scores_N - scores_N.mean()) ** 2).sum())
    error = float(((scores_N - predicted_N) ** 2).sum())
    return Skill(
        r2=1 - error / variance if variance else 0.0,
        spearman=_correlation(rankdata(predicted_N), rankdata(scores_N)),
    )


def _correlation(one_N: Array, other_N: Array) -> float:
    """Pearson's; 0 where one does not vary."""
    one_N, other_N = one_N - one_N.mean(), other_N - other_N.mean()
    size = np.linalg.norm(one_N) * np.linalg.norm(other_N)
    return float(one_N @ other_N / size) if size else 0.0
