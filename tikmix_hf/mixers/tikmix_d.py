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
* Floors and caps are obeyed first. Where they exclude q, the Pareto constraint is relaxed by the
  smallest fraction of a row's largest influence that leaves a mixture; notes say how much.
* The Pareto constraint can be relaxed by standard errors: `TikMixD.pareto_slack`.
* S can be taken relative to the mixture in force: `TikMixD.centred`.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixers._interior_point import interior_point
from tikmix_hf.mixers._simplex_program import MAX_VIOLATION, Program, certified, paper_program
from tikmix_hf.mixers._slsqp import slsqp
from tikmix_hf.mixers.base import About, Mixer, State, check_settings
from tikmix_hf.mixers.signals import MixerError, Signals
from tikmix_hf.mixture import as_mixture, project

Array = NDArray[np.float64]
Box = tuple[ArrayLike, ArrayLike]

SOLVERS = {"interior_point": interior_point, "slsqp": slsqp}
# The least slack leaves a single mixture and a solver no interior; this much more leaves one.
_INTERIOR = 1e-7
# A mixture at a bound, stored and divided by its sum again, is off the bound by rounding.
_ROUNDED = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Solution:
    """A certified optimum."""

    mixture: Array
    """(K,) the optimum, read-only."""
    objective: float
    """f at `mixture`."""
    bound: float
    """A lower bound on f over all feasible mixtures, from the dual."""
    violation: float
    """Largest shortfall from the Pareto constraint after slack, per row's largest influence."""
    slack: float
    """What the constraints made the Pareto constraint give way, per row's largest influence."""
    solver: str
    """Which of `SOLVERS` found it."""
    unhelped: tuple[int, ...]
    """Targets that no domain helps; divided by max_k |S_jk|."""
    unmoved: tuple[int, ...]
    """Targets that no domain moves; left out."""
    kept: bool
    """Whether `mixture` is the mixture in force."""
    improvable: bool
    """Whether some mixture improves every target; False only where `kept`."""

    @property
    def gap(self) -> float:
        """How much lower f could be at the most."""
        return self.objective - self.bound

    def notes(self, targets: Sequence[str]) -> tuple[str, ...]:
        """What happened, in words."""
        notes = [
            f"target {targets[j]}: no domain helps, divided by its largest |influence|"
            for j in self.unhelped
        ]
        notes += [f"target {targets[j]}: no domain moves it, left out" for j in self.unmoved]
        if self.slack > 0:
            notes.append(f"constraints exclude the mixture in force; Pareto slack {self.slack:.1e}")
        if self.kept and self.improvable:
            notes.append("the mixture in force is the optimum")
        if not self.improvable:
            notes.append("no mixture improves every target")
        return tuple(notes)


def solve(
    values: ArrayLike,
    current: ArrayLike,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    constraints: Box | None = None,
) -> Array:
    """The TiKMiX-D mixture.

    Args:
        values: (J, K) influence S; positive: more of the domain lowers the target's loss.
        current: (K,) the mixture in force q.
        alpha: Price of the spread of normalised influence over targets, >= 0.
        beta: Reward of its sum, >= 0.
        gamma: Reward of the mixture's entropy, >= 0; 0 leaves a linear or conic program.
        constraints: Least and largest shares, (K,) each, as `Constraints.bounds(names)` gives.

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


def solve_certified(
    values: ArrayLike,
    current: ArrayLike,
    coefficients: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    constraints: Box | None = None,
    slack: ArrayLike = 0.0,
    solver: str = "auto",
) -> Solution:
    """`solve`, with the certificate and an account of what happened; arguments and errors as there.

    Args:
        values: (J, K) influence S.
        current: (K,) the mixture in force q.
        coefficients: alpha, beta, gamma.
        constraints: Least and largest shares, (K,) each.
        slack: How much less than under `current` a target may get, (J,) or one for all, in the
            unit of `values`, >= 0.
        solver: One of `SOLVERS`, or "auto": each in turn until one is certified.
    """
    if solver not in ("auto", *SOLVERS):
        raise ValueError(f"`solver` must be 'auto' or one of {', '.join(SOLVERS)}; got {solver!r}.")
    solvers = SOLVERS if solver == "auto" else {solver: SOLVERS[solver]}
    values_JK = _checked_values(values)
    moved_J = values_JK.any(axis=1)
    program, current_K = _stated(values_JK, current, coefficients, constraints, slack)
    in_box = _inside(current_K, (program.lower_K, program.upper_K))
    shortfall = -np.inf if in_box else program.least_shortfall()
    relaxed = shortfall + _INTERIOR if shortfall > -_INTERIOR else 0.0
    program = replace(program, floor_J=program.floor_J - relaxed)
    mixture_K, bound, found_by = certified(program, solvers)
    kept = in_box and program.certifies(current_K, bound)  # nothing is gained by moving
    mixture_K = current_K if kept else mixture_K
    helped_J = program.gain_JK.max(axis=1) > 0.5  # 1 where a domain helps
    return Solution(
        mixture=mixture_K,
        objective=program.objective(mixture_K),
        bound=bound,
        violation=program.violation(mixture_K),
        slack=relaxed,
        solver=found_by,
        unhelped=tuple(np.flatnonzero(moved_J)[~helped_J].tolist()),
        unmoved=tuple(np.flatnonzero(~moved_J).tolist()),
        kept=kept,
        improvable=not kept or program.least_shortfall() < -MAX_VIOLATION,
    )


def _stated(
    values_JK: Array,
    current: ArrayLike,
    coefficients: tuple[float, float, float],
    constraints: Box | None,
    slack: ArrayLike,
) -> tuple[Program, Array]:
    """The program over the targets that some domain moves, and the mixture in force, checked."""
    num_targets, num_domains = values_JK.shape
    check_settings(alpha=coefficients[0], beta=coefficients[1], gamma=coefficients[2])
    names = [f"domain {k}" for k in range(num_domains)]
    current_K = as_mixture(current, names, argument="current")
    slack_J = np.broadcast_to(np.asarray(slack, dtype=np.float64), num_targets)
    check_settings(slack=float(slack_J.min()))
    moved_J = values_JK.any(axis=1)
    box = _box(constraints, num_domains)
    nearest_K = project(current_K, *box)
    if not _inside(current_K, box) and np.abs(nearest_K - current_K).max() <= _ROUNDED:
        current_K = nearest_K
    program = paper_program(values_JK[moved_J], current_K, coefficients, box, slack_J[moved_J])
    return program, current_K


def _inside(mixture_K: Array, box: tuple[Array, Array]) -> bool:
    return bool(((box[0] <= mixture_K) & (mixture_K <= box[1])).all())


def _checked_values(values: ArrayLike) -> Array:
    values_JK = np.array(values, dtype=np.float64)
    if values_JK.ndim != 2 or 0 in values_JK.shape:
        raise ValueError(f"`values` must have shape (targets, domains); got {values_JK.shape}.")
    if not np.isfinite(values_JK).all():
        j, k = np.argwhere(~np.isfinite(values_JK))[0]
        raise MixerError(
            f"`values` must be finite; got {values_JK[j, k]} at target {j}, domain {k}."
        )
    if not values_JK.any():
        raise MixerError("`values` is zero everywhere: no domain moves any target.")
    return values_JK


def _box(constraints: Box | None, num_domains: int) -> tuple[Array, Array]:
    if constraints is None:
        return np.zeros(num_domains), np.ones(num_domains)
    lower_K, upper_K = (np.asarray(bounds, dtype=np.float64) for bounds in constraints)
    if lower_K.shape != (num_domains,) or upper_K.shape != (num_domains,):
        raise ValueError(
            f"`constraints` must be two arrays of {num_domains} shares; got shapes "
            f"{lower_K.shape} and {upper_K.shape}. Use `Constraints.bounds(names)`."
        )
    project(np.ones(num_domains), lower_K, upper_K)  # refuses a box without a mixture
    return np.clip(lower_K, 0.0, 1.0), np.clip(upper_K, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class TikMixD(Mixer[State]):
    """TiKMiX-D as a mixer; a negative setting is a ValueError."""

    about: ClassVar[About] = About(
        paper="Wang et al., TiKMiX (arXiv 2508.17677, 2025), equations 9-11",
        cost="a gradient pass over rows of every domain and target",
        deviations="exact rows, certified optimum, noise guard (see the file's head)",
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
        check_settings(
            alpha=self.alpha, beta=self.beta, gamma=self.gamma, pareto_slack=self.pareto_slack
        )

    def init(self, prior: Array) -> State:
        """The empty state: an update depends on the signals alone."""
        return State()

    @property
    def requires(self) -> frozenset[str]:
        """Influence."""
        return frozenset({"influence"})

    def propose(self, state: State, signals: Signals) -> tuple[Array, State]:
        """The optimum for the influence and the mixture in force.

        Raises:
            MixerError: Influence is missing, not finite or zero everywhere, the standard error is
                needed and unknown, or no solver certified an answer.
        """
        values_JK = signals.usable("influence")
        if self.centred:
            values_JK = values_JK - (values_JK @ signals.mixture)[:, None]
        solution = solve_certified(
            values_JK,
            signals.mixture,
            (self.alpha, self.beta, self.gamma),
            constraints=self.constraints and self.constraints.bounds(signals.domains),
            slack=self._slack_J(signals) if self.pareto_slack else 0.0,
        )
        return solution.mixture, State(notes=solution.notes(signals.targets))

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
