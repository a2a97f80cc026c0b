"""How well predicted changes of the targets' losses agree with real ones.

In: (J, R) arrays of predicted and of real decreases, for J targets and R runs, with the same two of
going on with the mixture in force. Out: correlations and agreement of signs, 1 at best.

Two views of the same numbers. *Raw*: a run's decrease. *Centred*: its decrease beyond that of going
on with the mixture in force, which is what an update decides about. Within one target the two
differ by a constant, so that correlations within a target, across runs, are the same in both; they
differ where targets are pooled, and in their signs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

# Shape letters: J targets, K domains, R runs, N rounds.

Changes = NDArray[np.float64]
SCORES = (
    "pearson",
    "spearman",
    "raw pearson",
    "raw spearman",
    "raw signs",
    "centred pearson",
    "centred spearman",
    "centred signs",
)
"""Keys of `scores`; the first two are within a target, the others pool targets and runs."""


def mixture_influence(values_JK: Changes, mixtures_RK: Changes) -> Changes:
    """What influence predicts for each run, (J, R): S w, each domain by its share.

    S = [[1, 3]] and w = [0.5, 0.5]: [[2]].
    """
    return values_JK @ mixtures_RK.T


def scores(
    predicted_JR: Changes,
    real_JR: Changes,
    *,
    predicted_in_force_J: Changes,
    real_in_force_J: Changes,
) -> dict[str, float]:
    """Every number of SCORES.

    Args:
        predicted_JR: decreases in any unit that the targets share.
        real_JR: decreases of the losses in nats per token.
        predicted_in_force_J: the same of going on with the mixture in force.
        real_in_force_J: the same.

    Raises:
        ValueError: if shapes disagree, or a row does not vary, so that it correlates with nothing.
    """
    if predicted_JR.shape != real_JR.shape:
        raise ValueError(
            f"`predicted_JR` must have the shape of `real_JR`, {real_JR.shape}; "
            f"got {predicted_JR.shape}."
        )
    for argument, changes_JR in (("predicted_JR", predicted_JR), ("real_JR", real_JR)):
        if (np.ptp(changes_JR, axis=1) == 0).any():
            raise ValueError(f"`{argument}` must vary within each target; got {changes_JR}.")
    pairs = list(zip(predicted_JR, real_JR, strict=True))
    result = {
        "pearson": float(np.mean([pearson(*pair) for pair in pairs])),
        "spearman": float(np.mean([spearman(*pair) for pair in pairs])),
    }
    views = {
        "raw": (predicted_JR, real_JR),
        "centred": (
            predicted_JR - predicted_in_force_J[:, None],
            real_JR - real_in_force_J[:, None],
        ),
    }
    for view, (predicted, real) in views.items():
        result[f"{view} pearson"] = pearson(predicted.ravel(), real.ravel())
        result[f"{view} spearman"] = spearman(predicted.ravel(), real.ravel())
        result[f"{view} signs"] = float(np.mean(np.sign(predicted) == np.sign(real)))
    return result


def repeatability(rounds_NJK: NDArray[np.float64]) -> float:
    """How well a measurement would agree with another of as much text, across domains.

    Pearson r of the even and the odd rounds' means within a target, mean over targets, stepped up
    from half the text to all of it by 2 r / (1 + r) (Spearman 1910, Brown 1910).
    """
    halves = zip(rounds_NJK[::2].mean(0), rounds_NJK[1::2].mean(0), strict=True)
    half = float(np.mean([pearson(*pair) for pair in halves]))
    return 2 * half / (1 + half)


def pearson(one: Changes, other: Changes) -> float:
    """Correlation of two flat arrays."""
    return float(np.corrcoef(one, other)[0, 1])


def spearman(one: Changes, other: Changes) -> float:
    """Correlation of their ranks; ties share the mean of theirs."""
    return pearson(stats.rankdata(one), stats.rankdata(other))


def mean_and_error(values: Changes) -> tuple[float, float]:
    """Mean and its standard error, NaN for a single value: 1 and 3 are 2 and 1."""
    if len(values) < 2:
        return float(np.mean(values)), float("nan")
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))
