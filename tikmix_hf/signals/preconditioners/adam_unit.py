"""`adam` on the domain's gradient, scaled to global norm 1: Adam's direction without its length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tikmix_hf.signals.preconditioners.adam import Adam, fit_division
from tikmix_hf.signals.preconditioners.base import Apply, Fitting, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class AdamUnit(Adam):
    """Adam's diagonal and unit norm; what it needs and raises is what `adam` does."""

    side: ClassVar[Side] = "domain"

    def fit(self, fitting: Fitting) -> Apply:
        """The division, then the scaling by the norm over all parameters and shards."""
        divide = fit_division(fitting, self.damping)

        def scale(gradient_P: list[Tensor]) -> list[Tensor]:
            update_P = divide(gradient_P)
            squares = [update.square().sum(dtype=torch.float64) for update in update_P]
            norm = fitting.total(torch.stack(squares).sum()).sqrt()
            # No gradient, no direction: it stays zero.
            return [update.div_(norm) if norm > 0 else update for update in update_P]

        return scale
