"""H^-1 = 1: the plain dot product of gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tikmix_hf.signals.preconditioners.base import Apply, Fitting, Preconditioner, Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity(Preconditioner):
    """Needs nothing and changes nothing."""

    side: ClassVar[Side] = "target"

    def fit(self, fitting: Fitting) -> Apply:
        """The gradient itself."""
        return lambda gradient_P: gradient_P
