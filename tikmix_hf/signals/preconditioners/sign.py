"""The sign of each element of the domain's gradient.

The limit of Adam's step for a gradient that stands out of its noise. It takes away the norm of the
domain's gradient, which says more about the domain's text than about its use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from tikmix_hf.signals.preconditioners.base import Apply, Fitting, Preconditioner, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign(Preconditioner):
    """-1, 0 or 1."""

    side: ClassVar[Side] = "domain"

    def fit(self, fitting: Fitting) -> Apply:
        """Needs nothing."""
        return _sign


def _sign(gradient_P: list[Tensor]) -> list[Tensor]:
    return [gradient.sign_() for gradient in gradient_P]
