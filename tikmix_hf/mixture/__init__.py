"""Mixtures: points on the simplex, and what they must obey.

Everything here is arithmetic on NumPy float64: no state, no random numbers, no other room of the
package.
"""

from tikmix_hf.mixture.constraints import Constraints
from tikmix_hf.mixture.polytope import Polytope
from tikmix_hf.mixture.projection import nearest
from tikmix_hf.mixture.rules import Group
from tikmix_hf.mixture.simplex import (
    SUM_TOLERANCE,
    as_mixture,
    entropy,
    kl,
    largest_remainder,
    normalise,
    project,
    refuse_unknown,
    total_variation,
)
from tikmix_hf.mixture.supply import Supply

__all__ = [
    "SUM_TOLERANCE",
    "Constraints",
    "Group",
    "Polytope",
    "Supply",
    "as_mixture",
    "entropy",
    "kl",
    "largest_remainder",
    "nearest",
    "normalise",
    "project",
    "refuse_unknown",
    "total_variation",
]
