"""The region of mixtures that obey rules: a polytope, and balls around two mixtures.

In go rules; out come the mixture of the region that is nearest to the one in force, and how far one
can go from there towards another mixture. Balls are convex: what is inside at both ends of a way is
inside along it.

The nearest mixture is exact. With q in force, prior r and 0 <= s <= 1,

    (1 - s) KL(w | q) + s KL(w | r) = KL(w | g_s) + a constant,   g_s proportional to q^(1-s) r^s,

so the minimiser of KL(w | q) over polytope and ball {KL(w | r) <= rho} is the KL projection of g_s
for the least s at which it is in the ball: one unknown, found by bisection. A ball of total
variation is part of the polytope, see `nearest_within`.
"""

# Shape letters: K domains.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture.polytope import TOLERANCE, Polytope
from tikmix_hf.mixture.projection import nearest_within
from tikmix_hf.mixture.rules import Rule
from tikmix_hf.mixture.simplex import ROUNDING, kl, read_only, total_variation

Array = NDArray[np.float64]

# What a projection may be outside by: of the polytope, and of the ball of change beside it.
PROJECTED = 2 * TOLERANCE
BALLS = ("max_change", "max_kl_change", "max_kl_prior")
_HALVINGS = 50  # of [0, 1]: to the rounding of a number near 1


class Region(NamedTuple):
    """Mixtures inside a polytope and balls; infinity for a ball that was not asked for."""

    polytope: Polytope
    """With a cap of 0 on whatever has no share in the middle of a ball of KL."""
    in_force_K: Array
    prior_K: Array
    max_change: float
    """Largest total variation from the mixture in force."""
    max_kl_change: float
    """Largest KL(w | in force), nats."""
    max_kl_prior: float
    """Largest KL(w | prior), nats."""

    @classmethod
    def of(cls, rules: Sequence[Rule], in_force_K: Array, prior_K: Array) -> Region:
        """Where all the rules hold."""
        polytope = Polytope.box(np.zeros(len(in_force_K)), np.ones(len(in_force_K)))
        radii: dict[str, float] = dict.fromkeys(BALLS, np.inf)
        for rule in rules:
            if rule.row_K is None:
                radii[rule.setting] = rule.least
            elif not rule.bounds_one_share:
                polytope = polytope.with_row(rule.row_K, rule.least)
            elif (k := int(np.abs(rule.row_K).argmax())) >= 0 and rule.row_K[k] > 0:
                polytope.lower_K[k] = max(polytope.lower_K[k], rule.least)
            else:
                polytope.upper_K[k] = min(polytope.upper_K[k], -rule.least)
        for setting, middle_K in (("max_kl_change", in_force_K), ("max_kl_prior", prior_K)):
            if radii[setting] < np.inf:
                polytope.upper_K[middle_K == 0] = 0.0
        return cls(polytope, in_force_K, prior_K, **radii)

    def broken_balls(self, mixture_K: Array, *, tolerance: float = ROUNDING) -> tuple[str, ...]:
        """The balls that the mixture is outside of, but for rounding."""
        distances = {
            "max_change": (self.max_change, total_variation, self.in_force_K),
            "max_kl_change": (self.max_kl_change, kl, self.in_force_K),
            "max_kl_prior": (self.max_kl_prior, kl, self.prior_K),
        }
        return tuple(
            setting
            for setting, (most, distance, middle_K) in distances.items()
            if most < np.inf and distance(mixture_K, middle_K) > most + tolerance
        )

    def contains(self, mixture_K: Array, *, tolerance: float = ROUNDING) -> bool:
        """Whether the mixture obeys every rule, but for rounding."""
        inside = self.polytope.contains(mixture_K, tolerance=tolerance)
        return inside and not self.broken_balls(mixture_K, tolerance=tolerance)

    def anchor(self, *, any_will_do: bool = False) -> Array | None:
        """The mixture in force, or else the nearest to it in KL(w | in force) that is inside.

        Where a domain has no share in force, KL(w | in force) may be infinite all over the region;
        then the mixture is inside, with as little of such domains as the polytope needs.

        Args:
            any_will_do: Whether to return any mixture inside, which takes less time.

        Returns:
            (K,) mixture; None where none is inside.

        Raises:
            ValueError: Float64 did not find it.
        """
        if self.contains(self.in_force_K):
            return self.in_force_K
        near_K, _ = self._nearest(0.0, self.polytope)
        if near_K is None or not self.max_kl_change + TOLERANCE >= kl(near_K, self.in_force_K):
            return None
        if kl(near_K, self.prior_K) > self.max_kl_prior:
            far_K, _ = self._nearest(1.0, self.polytope)
            assert far_K is not None, "whether a mixture is inside does not hang on which is near"
            if kl(far_K, self.prior_K) > self.max_kl_prior + TOLERANCE:
                return None
            if any_will_do and self.contains(far_K, tolerance=PROJECTED):
                return far_K
            near_K = self._first_near_prior(far_K)
        return near_K if self.contains(near_K, tolerance=PROJECTED) else None

    def reach(self, start_K: Array, goal_K: Array) -> tuple[float, tuple[str, ...]]:
        """The largest part of the way from one mixture to another that no ball ends.

        Args:
            start_K: A mixture inside.
            goal_K: A mixture inside the polytope.

        Returns:
            The part t of start + t (goal - start), in [0, 1], and the balls that end it.
        """
        around = self._replace(  # the start may be outside by what its projection rounds
            max_change=max(self.max_change, total_variation(start_K, self.in_force_K)),
            max_kl_change=max(self.max_kl_change, kl(start_K, self.in_force_K)),
            max_kl_prior=max(self.max_kl_prior, kl(start_K, self.prior_K)),
        )
        ended_by = around.broken_balls(goal_K)
        if not ended_by:
            return 1.0, ()
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            broken = around.broken_balls(start_K + middle * (goal_K - start_K))
            low, high, ended_by = (low, middle, broken) if broken else (middle, high, ended_by)
        return low, ended_by

    def _nearest(self, part: float, polytope: Polytope) -> tuple[Array | None, Polytope]:
        """The KL projection of q^(1 - part) r^part onto the polytope and the ball of change."""
        if part == 0:
            middle_K = self.in_force_K
        elif part == 1:
            middle_K = self.prior_K
        else:
            with np.errstate(divide="ignore"):
                log_K = (1 - part) * np.log(self.in_force_K) + part * np.log(self.prior_K)
            if not np.isfinite(log_K).any():  # q and r share no domain
                return self._nearest(1.0, polytope)
            middle_K = np.exp(log_K - log_K.max())
        return nearest_within(middle_K, polytope, self.in_force_K, self.max_change)

    def _first_near_prior(self, far_K: Array) -> Array:
        """`_nearest` of the least part whose mixture is in the prior's ball, as `far_K` is."""
        low, high, found_K, polytope = 0.0, 1.0, far_K, self.polytope
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            tried_K, polytope = self._nearest(middle, polytope)
            if tried_K is not None and kl(tried_K, self.prior_K) <= self.max_kl_prior:
                high, found_K = middle, tried_K
            else:
                low = middle
        return read_only(found_K)
