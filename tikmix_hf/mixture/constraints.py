"""Constraints: what every mixture of a run must obey, whichever mixer proposes it."""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tikmix_hf.mixture.simplex import ROUNDING, project, read_only, refuse_unknown
from tikmix_hf.mixture.supply import Supply

Array = NDArray[np.float64]

@dataclass(frozen=True, kw_only=True, slots=True)
class Constraints:
    """Floors and caps on shares, by domain name.

    Raises:
        ValueError: A bound outside [0, 1], a floor above its cap, or floors that sum to more
            than 1.
    """

    floors: Mapping[str, float] = field(default_factory=dict)
    """Least share of a domain; 0 where a name is left out."""
    caps: Mapping[str, float] = field(default_factory=dict)
    """Largest share of a domain; 1 where a name is left out."""

    def __post_init__(self) -> None:
        for argument, bounds in (("floors", self.floors), ("caps", self.caps)):
            object.__setattr__(self, argument, dict(bounds))
            for name, bound in bounds.items():
                if not 0 <= bound <= 1:
                    raise ValueError(f"`{argument}` must lie in [0, 1]; got {bound} for {name!r}.")
        for name in self.floors.keys() & self.caps.keys():
            if self.floors[name] > self.caps[name]:
                raise ValueError(
                    f"`floors` must not exceed `caps`; got {self.floors[name]} > "
                    f"{self.caps[name]} for {name!r}."
                )
        if sum(self.floors.values()) > 1 + ROUNDING:
            raise ValueError(
                f"`floors` must sum to at most 1; got {sum(self.floors.values())}. Lower them."
            )

    def bounds(self, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The box (lower (K,), upper (K,)) in the order of `names`.

        Raises:
            ValueError: A name that is not among `names`, or caps that sum to less than 1.
        """
        refuse_unknown(self.floors, names, argument="floors")
        refuse_unknown(self.caps, names, argument="caps")
        lower_K = np.array([self.floors.get(name, 0.0) for name in names], dtype=np.float64)
        upper_K = np.array([self.caps.get(name, 1.0) for name in names], dtype=np.float64)
        if upper_K.sum() < 1 - ROUNDING:
            raise ValueError(
                f"`caps` must sum to at least 1 over all domains; got {upper_K.sum()}. Raise them."
            )
        return read_only(lower_K), read_only(upper_K)

    def apply(
        self, proposal: ArrayLike, names: Sequence[str], *, in_force: Array, supply: Supply | None
    ) -> tuple[Array, tuple[str, ...]]:
        """The proposal (K,) brought into the constraints, and what was done to it in words."""
        return project(proposal, *self.bounds(names)), ()

    def holds(
        self, mixture: Array, names: Sequence[str], *, in_force: Array, supply: Supply | None
    ) -> bool:
        """Whether a mixture (K,) obeys the constraints, but for rounding."""
        lower_K, upper_K = self.bounds(names)
        return bool(((lower_K - ROUNDING <= mixture) & (mixture <= upper_K + ROUNDING)).all())
