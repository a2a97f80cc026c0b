"""Solving TiKMiX-D's program with a certificate, and the account of what happened.

In go influence, the mixture in force and what mixtures must obey; out comes a `Solution`, whose
mixture a dual bound certifies whichever solver found it. Equations and deviations: `tikmix_d`.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixers._interior_point import interior_point
from tikmix_hf.mixers._simplex_program import MAX_VIOLATION, Program, certified, paper_program
from tikmix_hf.mixers._slsqp import slsqp
from tikmix_hf.mixers.base import check_settings
from tikmix_hf.mixers.signals import MixerError
from tikmix_hf.mixture import Polytope, as_mixture, nearest
from tikmix_hf.mixture.polytope import is_empty

Array = NDArray[np.float64]
Bounds = Polytope | tuple[ArrayLike, ArrayLike]

SOLVERS = {"interior_point": interior_point, "slsqp": slsqp}
# The least slack leaves a single mixture and a solver no interior; this much more leaves one.
_INTERIOR = 1e-7


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


def solve_certified(
    values: ArrayLike,
    current: ArrayLike,
    coefficients: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    constraints: Bounds | None = None,
    slack: ArrayLike = 0.0,
    solver: str = "auto",
) -> Solution:
    """`solve`, with the certificate and an account of what happened; arguments and errors as there.

    Args:
        values: (J, K) influence S.
        current: (K,) the mixture in force q.
        coefficients: alpha, beta, gamma.
        constraints: A polytope, or least and largest shares, (K,) each.
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
    allowed = program.polytope.contains(current_K)
    shortfall = -np.inf if allowed else program.least_shortfall()
    relaxed = shortfall + _INTERIOR if shortfall > -_INTERIOR else 0.0
    program = replace(program, floor_J=program.floor_J - relaxed)
    mixture_K, bound, found_by = certified(program, solvers)
    kept = allowed and program.certifies(current_K, bound)  # nothing is gained by moving
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
    constraints: Bounds | None,
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
    polytope = _polytope(constraints, num_domains)
    if polytope.violation(current_K) > 0 and polytope.contains(current_K):
        # A mixture at a bound, stored and divided by its sum again, is off the bound by rounding.
        current_K = nearest(current_K, polytope)
    program = paper_program(values_JK[moved_J], current_K, coefficients, polytope, slack_J[moved_J])
    return program, current_K


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


def _polytope(constraints: Bounds | None, num_domains: int) -> Polytope:
    if constraints is None:
        return Polytope.box(np.zeros(num_domains), np.ones(num_domains))
    if not isinstance(constraints, Polytope):
        constraints = Polytope.box(*constraints)
    shapes = [np.shape(bounds) for bounds in constraints[:2]]
    if shapes != [(num_domains,)] * 2 or constraints.rows_GK.shape[1:] != (num_domains,):
        raise ValueError(
            f"`constraints` must be two arrays of {num_domains} shares, or a polytope over as many "
            f"domains; got shapes {shapes[0]} and {shapes[1]}. Use `Constraints.polytope(names)`."
        )
    if is_empty(constraints):
        raise ValueError(
            "`constraints` must leave room for a mixture; they exclude each other. "
            "`Constraints.check(names)` says which."
        )
    lower_K = np.clip(constraints.lower_K, 0.0, 1.0)
    return constraints._replace(lower_K=lower_K, upper_K=np.clip(constraints.upper_K, lower_K, 1.0))
