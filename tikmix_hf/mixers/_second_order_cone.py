"""Arithmetic of the second-order cone {(r, x): |x| <= r}, as an interior point needs it.

In go points of the cone as arrays with the head r first; out come products, Nesterov-Todd scalings
and steps to the boundary. Formulas: Vandenberghe, "The CVXOPT linear and quadratic cone program
solvers" (2010), sections 2 and 4. With an empty tail the cone is the half-line r >= 0.
"""

# Shape letters: C entries of a point: the head and its tail.

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def determinant(point_C: Array) -> float:
    """r^2 - |x|^2, without the cancellation near the boundary."""
    length = float(np.linalg.norm(point_C[1:]))
    return (point_C[0] - length) * (point_C[0] + length)


def product(left_C: Array, right_C: Array) -> Array:
    """The Jordan product (left . right, left_0 right_tail + right_0 left_tail)."""
    tail = left_C[0] * right_C[1:] + right_C[0] * left_C[1:]
    return np.concatenate([[left_C @ right_C], tail])


def quotient(point_C: Array, divisor_C: Array) -> Array:
    """The solution of product(divisor, solution) = point, for a divisor inside the cone."""
    head = (divisor_C[0] * point_C[0] - divisor_C[1:] @ point_C[1:]) / determinant(divisor_C)
    return np.concatenate([[head], (point_C[1:] - head * divisor_C[1:]) / divisor_C[0]])


def scaling(primal_C: Array, dual_C: Array) -> Array:
    """The symmetric W (C, C) with W dual = W^-1 primal."""
    sizes = np.sqrt([determinant(primal_C), determinant(dual_C)])
    primal_C, dual_C = primal_C / sizes[0], dual_C / sizes[1]
    mirrored_C = np.concatenate([dual_C[:1], -dual_C[1:]])
    axis_C = (primal_C + mirrored_C) / np.sqrt(2 * (1 + primal_C @ dual_C))
    scaling_CC = np.diag(np.concatenate([[0.0], np.ones(len(axis_C) - 1)]))
    scaling_CC[0], scaling_CC[1:, 0] = axis_C, axis_C[1:]
    scaling_CC[1:, 1:] += np.outer(axis_C[1:], axis_C[1:]) / (1 + axis_C[0])
    return np.sqrt(sizes[0] / sizes[1]) * scaling_CC


def reach(point_C: Array, direction_C: Array) -> float:
    """How many times the direction fits between a point inside the cone and the boundary.

    The smallest positive root of a t^2 + 2 b t + c with c = determinant(point) > 0, in the form
    that does not cancel; infinite if there is none.
    """
    a = direction_C[0] ** 2 - direction_C[1:] @ direction_C[1:]
    b = point_C[0] * direction_C[0] - point_C[1:] @ direction_C[1:]
    c = determinant(point_C)
    discriminant = b * b - a * c
    denominator = np.sqrt(max(discriminant, 0.0)) - b
    to_surface = c / denominator if discriminant >= 0 and denominator > 0 else np.inf
    to_apex = -point_C[0] / direction_C[0] if direction_C[0] < 0 else np.inf
    return float(min(to_surface, to_apex))
