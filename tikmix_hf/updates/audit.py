"""Audit: did the targets' losses change in the order that influence predicted?

In: what an update predicted, the same text's losses at the next update, and the mixture that was
trained on in between. Out: a `Comparison` for the log. With S the influence measured at one update,
w the tokens' shares until the next and L_j the mean loss per token on target j's measured rows,

    predicted_j = S[j] . w            realised_j = L_j(then) - L_j(now)

Influence knows no step length, so only the order of the targets, or differences up to one scale,
can be compared. Both sides are standardised within an interval (mean 0, population standard
deviation 1 over targets); the correlation so far is Pearson's over all standardised pairs of all
intervals. Since each interval has the same J pairs of mean 0 and variance 1, that is the mean of
the intervals' own correlations, which is how it is computed. Of two targets it would be 1 or -1
whatever happened, so nothing is said of fewer than three.

It compares targets, not domains: a target that is easy to learn is predicted and seen to gain more,
whatever the mixture. A low correlation therefore says more than a high one.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from tikmix_hf.updates.heldout import Portion

Array = NDArray[np.float64]

# Two standardised values are always 1 and -1.
_LEAST_TARGETS = 3


class Prediction(NamedTuple):
    """What an update leaves to be checked at the next, in JSON types."""

    step: int
    """Optimizer steps done when it was made."""
    targets: tuple[str, ...]
    """J names."""
    influence: tuple[tuple[float, ...], ...]
    """(J, K) measured influence."""
    losses: tuple[tuple[float, ...], ...]
    """(R, J) mean loss per token on the rows of each round, in nats."""
    portions: tuple[Portion, ...]
    """Which rows the R rounds measured."""

    @classmethod
    def restore(cls, saved: Any) -> Prediction:
        """The prediction that went through JSON."""
        step, targets, influence, losses, portions = saved
        return cls(
            step,
            tuple(targets),
            tuple(map(tuple, influence)),
            tuple(map(tuple, losses)),
            tuple(Portion(*portion) for portion in portions),
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """One interval between two updates."""

    from_step: int
    """Optimizer steps done at the prediction."""
    targets: tuple[str, ...]
    """J names."""
    predicted: Array
    """(J,) influence of the mixture that was trained on."""
    realised: Array
    """(J,) by how many nats per token the loss fell."""
    spearman: float | None
    """Rank correlation over targets; None where one side has no order or J < 3."""
    correlation: float | None
    """Of this run's intervals so far, this one included; None before the first that has one."""
    num_intervals: int
    """Intervals that `correlation` speaks of."""

    @property
    def note(self) -> str | None:
        """The audit in words; None where there is nothing to tell."""
        if self.correlation is None:
            return None
        intervals = "1 interval" if self.num_intervals == 1 else f"{self.num_intervals} intervals"
        return f"audit: predicted order of targets r = {self.correlation:.2f} over {intervals}"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "from_step": self.from_step,
            "predicted": dict(zip(self.targets, self.predicted.tolist(), strict=True)),
            "realised": dict(zip(self.targets, self.realised.tolist(), strict=True)),
            "spearman": self.spearman,
            "correlation": self.correlation,
            "num_intervals": self.num_intervals,
        }

    def scalars(self) -> dict[str, float]:
        """Returns flat numbers for metric loggers."""
        scalars = {
            f"{side}/{name}": float(value)
            for side, values_J in (("predicted", self.predicted), ("realised", self.realised))
            for name, value in zip(self.targets, values_J, strict=True)
        }
        told = {"spearman": self.spearman, "correlation": self.correlation}
        return scalars | {name: value for name, value in told.items() if value is not None}


def compare(
    prediction: Prediction, losses_RJ: ArrayLike, mixture_K: ArrayLike, earlier: Sequence[float]
) -> tuple[Comparison, tuple[float, ...]]:
    """Checks a prediction.

    Args:
        prediction: what the last update left.
        losses_RJ: (R, J) the losses of the same rows now.
        mixture_K: (K,) the shares of tokens that training read since.
        earlier: the intervals' own correlations so far, in the order they were made.

    Returns:
        The comparison, and `earlier` with this interval's correlation, if it has one.

    Example:
        Three targets, one domain; each gained as much more than the last as it was to.

        >>> made = Prediction(0, ("a", "b", "c"), ((1.0,), (2.0,), (3.0,)), ((5.0, 5.0, 5.0),), ())
        >>> compare(made, [[4.5, 4.0, 3.5]], [1.0], (0.5,))[0].note
        'audit: predicted order of targets r = 0.75 over 2 intervals'
    """
    predicted_J = np.array(prediction.influence) @ np.asarray(mixture_K, np.float64)
    # Rounds may differ in tokens; the same mean is taken on both sides.
    realised_J = (np.array(prediction.losses) - np.asarray(losses_RJ, np.float64)).mean(axis=0)
    own = pearson(predicted_J, realised_J)
    correlations = tuple(earlier) if own is None else (*earlier, own)
    comparison = Comparison(
        from_step=prediction.step,
        targets=prediction.targets,
        predicted=predicted_J,
        realised=realised_J,
        spearman=pearson(rankdata(predicted_J), rankdata(realised_J)),
        correlation=float(np.mean(correlations)) if correlations else None,
        num_intervals=len(correlations),
    )
    return comparison, correlations


def pearson(first_J: Array, second_J: Array) -> float | None:
    """Correlation; None where one side is constant or has fewer than three entries."""
    if len(first_J) < _LEAST_TARGETS:
        return None
    first_J, second_J = standardised(first_J), standardised(second_J)
    if not (first_J.any() and second_J.any()):
        return None
    return float(np.clip((first_J * second_J).mean(), -1, 1))


def standardised(values_J: Array) -> Array:
    """(J,) with mean 0 and population standard deviation 1; zeros where all agree."""
    # Equal entries leave a rounding error behind their mean, which is no order.
    if np.ptp(values_J) == 0:
        return np.zeros_like(values_J)
    centred_J = values_J - values_J.mean()
    return centred_J / centred_J.std()
