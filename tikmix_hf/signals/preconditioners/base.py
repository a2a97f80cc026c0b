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

from tikmix_hf.signals.gradients import Batches

Side = Literal["target", "domain"]
Apply = Callable[[list[Tensor]], list[Tensor]]
"""Gradient shards in, one per parameter in its (local) shape; H^-1 of them out. May overwrite what
it is given, which the caller has no use for afterwards."""


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
    reads_optimizer: ClassVar[bool] = False
    """Whether the optimizer's state makes a difference."""
    takes_shards: ClassVar[bool] = True
    """Whether a rank may hold only a shard of each parameter."""

    @property
    def refresh_updates(self) -> int:
        """How many updates one fit serves."""
        return 1

    @property
    def name(self) -> str:
        """That of its file, under which `preconditioners.load` finds it."""
        return type(self).__module__.rpartition(".")[2]

    def check(self, *, sharded: bool, optimizer: Any) -> None:
        """Refuses before training what no fit could do; the optimizer need not have stepped.

        Raises:
            ValueError: naming what is missing, and the mend.
        """
        if sharded and not self.takes_shards:
            raise ValueError(
                f"`preconditioner` {self.name!r} needs whole parameters on every rank; the model "
                'is sharded (FSDP2 or ZeRO-3). Use preconditioner="sign".'
            )

    def fit_passes(self, num_batches: int, optimizer: Any) -> float:
        """Forward and backward passes that a fit takes over a domain's text of so many batches."""
        return 0.0

    def apply_passes(self, num_batches: int) -> float:
        """The same for each gradient that it is applied to, which only linear ones may ask for."""
        return 0.0

    @abstractmethod
    def fit(self, fitting: Fitting) -> Apply:
        """H^-1 for the model as it is now; the same on every rank.

        Raises:
            ValueError: the optimizer or the model is not what this preconditioner needs.
        """
