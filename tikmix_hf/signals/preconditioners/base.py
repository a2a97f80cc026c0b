"""What every preconditioner is: frozen settings, and a fit to the live model.

In: the model, the parameters that influence is measured on, the optimizer, held-out batches. Out: a
function from gradients to H^-1 gradients.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn

Side = Literal["target", "domain"]
Apply = Callable[[list[Tensor]], list[Tensor]]
"""Gradient shards in, one per parameter in its (local) shape; H^-1 of them out. May overwrite what
it is given, which the caller has no use for afterwards."""
Batches = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Fitting:
    """What a preconditioner may look at."""

    model: nn.Module
    """In evaluation mode, gradients None, all random states kept for it."""
    parameters: Sequence[nn.Parameter]
    """What gradients are taken by: trainable, tied weights once; perhaps not all of the model's."""
    optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None
    """The live optimizer."""
    batches: Mapping[str, Batches]
    """The domains' held-out text; every rank sees all of it."""
    total: Callable[[Tensor], Tensor] = lambda partial: partial
    """Sums a small tensor over the shards of a sharded model."""
    sharded: bool = False
    """Whether this rank holds only a shard of each parameter."""


class Preconditioner(ABC):
    """One stand-in for the inverse Hessian; a subclass is a frozen dataclass of settings."""

    __slots__ = ()

    side: ClassVar[Side]
    """"target": S is linear in the domain's gradient; "domain": it is not."""

    @property
    def refresh_updates(self) -> int:
        """How many updates one fit serves."""
        return 1

    @abstractmethod
    def fit(self, fitting: Fitting) -> Apply:
        """H^-1 for the model as it is now; the same on every rank.

        Raises:
            ValueError: the optimizer or the model is not what this preconditioner needs.
        """


def positive(name: str, value: float) -> None:
    """Refuses a setting that is not positive and finite (ValueError)."""
    if not 0 < value < float("inf"):
        raise ValueError(f"`{name}` must be positive and finite; got {value!r}.")
