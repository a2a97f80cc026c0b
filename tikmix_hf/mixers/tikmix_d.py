"""TiKMiX-D: the mixture with the most influence, evenly spread, that harms no target.

In go influence S (J, K) and the mixture in force q; out comes the one optimum of equations 9-11 of
Wang et al., "TiKMiX" (arXiv 2508.17677, 2025):

    Phat_j = (S w)_j / max_k S_jk
    minimise  alpha std(Phat) - beta sum_j Phat_j - gamma H(w)
    subject to  S w >= S q,  sum_k w_k = 1,  w >= 0.

The program is convex, so a point is right or wrong and nobody has to guess which: every answer is
returned with a dual bound that certifies it (violation <= 1e-8 of a row's largest influence, gap
<= 1e-7 max(1, |f|)); a point without a certificate is a `MixerError`.

Where this differs from the paper:
* Rows are divided exactly, without its additive 1e-8: multiplying S by 1e-9 changes nothing.
* A target that no domain helps (max_k S_jk <= 0, which would flip its sign) is divided by
  max_k |S_jk|; a target that no domain moves is left out. Notes name both.
* The interior point of `_interior_point` goes first and the paper's SLSQP from the uniform mixture
  second: the first is faster, solves the degenerate cases, and brings the multipliers that the
  certificate needs.
* Floors, caps, epochs and groups of `Constraints` are rows of the program and are obeyed first.
  Where they exclude q, the Pareto constraint is relaxed by the smallest fraction of a row's largest
  influence that leaves a mixture; notes say how much.
* The Pareto constraint can be relaxed by standard errors: `TikMixD.pareto_slack`.
* S can be taken relative to the mixture in force: `TikMixD.centred`.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixers._certified import SOLVERS, Bounds, Solution, solve_certified
from tikmix_hf.mixers.base import About, Mixer, State, check_settings
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import Polytope

__all__ = ["SOLVERS", "Bounds", "Solution", "TikMixD", "solve", "solve_certified"]

Array = NDArray[np.float64]


def solve(
    values: ArrayLike,
    current: ArrayLike,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    constraints: Bounds | None = None,
) -> Array:
    """The TiKMiX-D mixture.

    Args:
        values: (J, K) influence S; positive: more of the domain lowers the target's loss.
        current: (K,) the mixture in force q.
        alpha: Price of the spread of normalised influence over targets, >= 0.
        beta: Reward of its sum, >= 0.
        gamma: Reward of the mixture's entropy, >= 0; 0 leaves a linear or conic program.
        constraints: What the mixture must obey, as `Constraints.polytope(names)` gives, or least
            and largest shares, (K,) each.

    Returns:
        (K,) mixture, float64, read-only.

    Raises:
        ValueError: An argument of the wrong shape, sign or range.
        MixerError: `values` is not finite or zero everywhere, or no solver certified an answer.

    Example:
        One target and nothing in the way: the optimum is softmax(beta Phat / gamma).

        >>> solve([[1.0, 0.0]], [0.5, 0.5]).round(4).tolist()
        [0.7311, 0.2689]
    """
    return solve_certified(values, current, (alpha, beta, gamma), constraints=constraints).mixture


@dataclass(frozen=True, kw_only=True, slots=True)
class TikMixD(Mixer[State]):
    """TiKMiX-D as a mixer; a negative setting is a ValueError."""

    about: ClassVar[About] = About(
        paper="Wang et al., TiKMiX (arXiv 2508.17677, 2025), equations 9-11",
        cost="a gradient pass over rows of every domain and target",
        deviations="exact rows, certified optimum, noise guard (see the file's head)",
        constraints="floors, caps, epochs and groups are rows of its program",
    )

    alpha: float = 1.0
    """Price of the spread of normalised influence over targets, >= 0. 1 in the paper."""
    beta: float = 1.0
    """Reward of its sum over targets, >= 0. 1 in the paper."""
    gamma: float = 1.0
    """Reward of the mixture's entropy in nats, >= 0. 1 in the paper."""
    centred: bool = False
    """Whether S is taken as differences from the mixture in force, S - (S q) 1^T. The Pareto
    constraint is the same; a row's largest entry, which it is divided by, is then the most that a
    target could still gain, so that influence weighs more against entropy. False in the paper."""
    pareto_slack: float = 0.0
    """Standard errors of (S q)_j by which a target may get less than under the mixture in force,
    the errors of different domains taken as independent. 0 in the paper."""

    def __post_init__(self) -> None:
        Mixer.__post_init__(self)
        check_settings(
            alpha=self.alpha, beta=self.beta, gamma=self.gamma, pareto_slack=self.pareto_slack
        )

    @property
    def requires(self) -> frozenset[str]:
        """Influence."""
        return frozenset({"influence"})

    def propose(self, state: State, signals: Signals) -> tuple[Array, State]:
        """The optimum for the influence and the mixture in force.

        Raises:
            MixerError: Influence is missing, not finite or zero everywhere, the standard error is
                needed and unknown, no mixture obeys the constraints, or no solver certified an
                answer.
        """
        values_JK = signals.usable("influence")
        if self.centred:
            values_JK = values_JK - (values_JK @ signals.mixture)[:, None]
        solution = solve_certified(
            values_JK,
            signals.mixture,
            (self.alpha, self.beta, self.gamma),
            constraints=self._polytope(signals),
            slack=self._slack_J(signals) if self.pareto_slack else 0.0,
        )
        return solution.mixture, State(notes=solution.notes(signals.targets))

    def _polytope(self, signals: Signals) -> Polytope | None:
        """What floors, caps, epochs and groups leave."""
        if self.constraints is None:
            return None
        given = {"in_force": signals.mixture, "supply": signals.supply}
        try:
            self.constraints.check(signals.domains, **given)
            return self.constraints.polytope(signals.domains, **given)
        except ValueError as err:
            raise MixerError(str(err)) from err

    def _slack_J(self, signals: Signals) -> Array:
        """`pareto_slack` standard errors of each target's influence under the mixture in force."""
        if signals.stderr is None:
            raise MixerError("`pareto_slack` needs the influence's `stderr`, which is not known.")
        held_K = signals.mixture > 0
        error_J = np.linalg.norm(signals.stderr[:, held_K] * signals.mixture[held_K], axis=1)
        for j in np.flatnonzero(~np.isfinite(error_J))[:1]:
            raise MixerError(
                f"`pareto_slack` needs the influence's `stderr`; got {error_J[j]} for target "
                f"{signals.targets[j]!r}."
            )
        return self.pareto_slack * error_J
