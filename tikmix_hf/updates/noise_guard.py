"""Noise guard: how far a proposed mixture is borne out by text that it was not chosen by.

In: the rounds of one measurement, the mixture in force, the mixer's proposal from all rounds, and
its proposals from all rounds but one. Out: a `Verdict`: how much of the proposed move to make.

A proposal is an optimum over noisy influence, so the gain it promises on that same influence is
biased upwards, and most where there is nothing but noise. Cross-validation removes the bias. With
R rounds S_r, their mean S, the mixture in force q, the proposal w* and w_-r proposed from the mean
of the other rounds,

    gain(S, w) = mean_j S[j] . (w - q) / max_k |S[j,k] - S[j] . q|     promised: gain(S, w*)
    gain_r     = the same with S_r in the numerator and w_-r           confirmed: mean_r gain_r
    stderr     = std_r(gain_r) / sqrt(R), ddof 1
    step       = clip(confirmed / promised, 0, 1)
                 0 where confirmed <= num_errors * stderr

and w = q + step (w* - q). The denominators are those of the mean S throughout: a target's gain is
told in parts of the largest there is for it, so targets weigh the same whatever their units, and
what all domains share (nearly the whole of a row of S) does not enter. Under pure noise the
confirmed gain is zero on average, or slightly less: rounds that happen to agree make their own
denominator larger.

The threshold is mild, and what passes is shrunk besides. The gain_r share rounds, so their spread
tells too little of their common error; with two rounds both folds compare the same pair and it
tells next to nothing. In simulations of pure noise (two mixers, 4 to 20 domains, 1 to 6 targets)
the share of measurements that passed one standard error, and the mean step, were

    rounds      2            3            4            6
    passed      28 - 44 %    27 - 35 %    16 - 33 %    18 - 31 %
    step        .08 - .28    .08 - .25    .07 - .23    .06 - .22

and with four rounds 74 to 88 % of TiKMiX-D's move was made where the truth was three times the
noise, a third where both were equal. The guard buys steadiness, not gain: influence is linear, so a
move along noise costs nothing on average there, and a smaller step has a smaller true gain.
"""

# Shape letters: J targets, K domains, R rounds.

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Verdict(NamedTuple):
    """What cross-validation says of a proposal."""

    promised: float
    """Gain of the proposal on the influence it was chosen by."""
    confirmed: float
    """Mean gain of the folds' proposals on the rounds they were not chosen by."""
    stderr: float
    """Standard error of `confirmed`."""
    step: float
    """Part of the move to make, 0 to 1."""

    @property
    def note(self) -> str | None:
        """What the guard did, in words; None where it let the whole move through."""
        if self.step == 1:
            return None
        if self.step == 0:
            return (
                f"signal below its noise (gain {self.confirmed:.3f} ± {self.stderr:.3f}, "
                f"{self.promised:.3f} promised)"
            )
        return f"{self.step:.0%} of the move, as far as fresh text bears it out"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return self._asdict()


def check_noise_guard(noise_guard: Any) -> None:
    """Refuses what is no number of standard errors; 0 switches the guard off.

    Raises:
        TypeError: no number.
        ValueError: negative or not finite.
    """
    if isinstance(noise_guard, bool) or not isinstance(noise_guard, Real):
        raise TypeError(f"`noise_guard` must be a number of standard errors; got {noise_guard!r}.")
    if not 0 <= float(noise_guard) < float("inf"):
        raise ValueError(f"`noise_guard` must be finite and not negative; got {noise_guard}.")


def cross_validate(
    rounds_RJK: Array,
    current_K: Array,
    proposal_K: Array,
    folds_RK: Array,
    *,
    num_errors: float,
) -> Verdict:
    """Judges a proposal.

    Args:
        rounds_RJK: influence of each of at least two rounds.
        current_K: the mixture in force.
        proposal_K: the mixer's answer to the mean of all rounds.
        folds_RK: its answer to the mean of all rounds but the r-th.
        num_errors: standard errors that the confirmed gain must exceed, > 0.

    Returns:
        The verdict; `step` is 1 where the proposal promises no gain, for then there is nothing to
        confirm: it was made for another reason, such as constraints.

    Example:
        Two rounds that agree, and a mixer that bets everything on the first domain each time.

        >>> rounds = np.array([[[1.0, -1.0]], [[1.0, -1.0]]])
        >>> sure = np.array([1.0, 0.0])
        >>> half = np.array([0.5, 0.5])
        >>> cross_validate(rounds, half, sure, np.stack([sure, sure]), num_errors=1.0)
        Verdict(promised=1.0, confirmed=1.0, stderr=0.0, step=1.0)
    """
    assert len(rounds_RJK) >= 2, "cross-validation needs two rounds"
    mean_JK = rounds_RJK.mean(axis=0)
    scale_J = np.abs(mean_JK - (mean_JK @ current_K)[:, None]).max(axis=1)
    told_J = scale_J > 0  # a target that every domain moves alike tells nothing
    if not told_J.any():
        return Verdict(0.0, 0.0, 0.0, 1.0)
    weights_J = np.where(told_J, 1 / np.where(told_J, scale_J, 1.0), 0.0) / told_J.sum()
    promised = float(weights_J @ mean_JK @ (proposal_K - current_K))
    gains_R = np.einsum("j,rjk,rk->r", weights_J, rounds_RJK, folds_RK - current_K)
    confirmed = float(gains_R.mean())
    stderr = float(gains_R.std(ddof=1) / np.sqrt(len(gains_R)))
    return Verdict(promised, confirmed, stderr, _step(promised, confirmed, num_errors * stderr))


def _step(promised: float, confirmed: float, threshold: float) -> float:
    if promised <= 0:
        return 1.0
    if confirmed <= threshold:
        return 0.0
    return min(confirmed / promised, 1.0)
