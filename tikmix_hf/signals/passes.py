"""How a model gives gradients: whole on every rank, or a shard of each to every rank.

A model goes in (`open_passes`); out come gradients of batches as lists of plain tensors, one per
parameter, and the sums that make numbers of one rank the numbers of all:

* `Passes`: one device, DDP, ZeRO-1 and ZeRO-2. Every rank holds all parameters and takes the
  microbatches whose turn is its own; `autograd.grad` on the bare module, past every reducer.
* `LockstepPasses`: R ranks go through R microbatches in lockstep, and every rank is left with its
  shards of the gradient of their sum. No gradient is ever gathered. `ShardedPasses`: FSDP2
  (`fully_shard`), also hybrid. `Zero3Passes` (`zero3.py`): DeepSpeed ZeRO-3.

Everything else that holds DTensors or no elements is refused with an error that says what to do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.placement_types import Replicate, Shard
from torch.nn.parallel import DistributedDataParallel

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import BatchGradient
from tikmix_hf.signals.selection import ALL, select_parameters


class Passes:
    """Forward and backward passes of a model that every rank holds whole.

    Args:
        model: the bare module.
        parameters: what to differentiate by.
    """

    sharded = False
    lanes = 1
    """Microbatches whose gradients come as one sum."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self.model, self.parameters = model, parameters
        self.local_P = [self.local(parameter) for parameter in parameters]
        """What this rank holds of each parameter."""
        self.device = self.local_P[0].device

    def local(self, tensor: Tensor) -> Tensor:
        """What this rank holds of a parameter, or of its gradient."""
        return tensor.detach()

    def undisturbed(self) -> AbstractContextManager[None]:
        """Around all passes: afterwards whatever shards the model is what it was."""
        return nullcontext()

    def turns(self, num_batches: int) -> Iterator[tuple[int, int | None]]:
        """The group and the number of this rank's microbatches, one after the other.

        None for the number is a turn in which this rank only keeps the others company.
        """
        for m in range(distributed.rank(), num_batches, distributed.world_size()):
            yield m, m

    def preparing(self) -> AbstractContextManager[None]:
        """Around the making of one microbatch."""
        return nullcontext()

    def gradient(self, batch: Mapping[str, Any], *, counts: bool = True) -> BatchGradient:
        """The gradient of the sum of a batch's token losses."""
        return gradients.batch_gradient(self.model, self.parameters, batch)

    def sum_gradients_(self, gradient_P: Sequence[Tensor]) -> None:
        """Sums over ranks, in place, what each has of its own microbatches' gradient."""
        distributed.all_reduce_sum_(gradient_P)

    def sum_streamed_(self, dots: Sequence[Tensor]) -> None:
        """Sums over ranks, in place, dots with the gradients of single microbatches."""
        distributed.all_reduce_sum_(dots)

    def total(self, partial: Tensor) -> Tensor:
        """The sum over the shards of a gradient; here a rank holds all of it."""
        return partial


class LockstepPasses(Passes):
    """Forward and backward passes of a model sharded over all ranks, which run it together."""

    sharded = True

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(model, parameters)
        self.lanes = distributed.world_size()

    def turns(self, num_batches: int) -> Iterator[tuple[int, int | None]]:
        """As many on every rank."""
        for group, first in enumerate(range(0, num_batches, self.lanes)):
            m = first + distributed.rank()
            yield group, m if m < num_batches else None

    def preparing(self) -> AbstractContextManager[None]:
        """A rank without its batch would leave the others waiting in the forward pass."""
        return distributed.FailTogether()

    def sum_gradients_(self, gradient_P: Sequence[Tensor]) -> None:
        """Nothing is left to do: whatever shards the model has summed."""

    def sum_streamed_(self, dots: Sequence[Tensor]) -> None:
        """Sums the shards' dots, in place."""
        for partial in dots:
            partial.copy_(self.total(partial))

    def total(self, partial: Tensor) -> Tensor:
        """The sum over shards."""
        partial = partial.clone()
        distributed.all_reduce_sum_([partial])
        return partial


class ShardedPasses(LockstepPasses):
    """Forward and backward passes of a model sharded by FSDP2."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(model, parameters)
        self._replicas = max(_replicas(parameter) for parameter in parameters)

    def local(self, tensor: Tensor) -> Tensor:
        """This rank's shard."""
        assert isinstance(tensor, DTensor)
        return tensor.to_local().detach()

    def gradient(self, batch: Mapping[str, Any], *, counts: bool = True) -> BatchGradient:
        """This rank's shards of the gradient of the sum over all ranks' batches."""
        # FSDP averages over ranks.
        weight = float(distributed.world_size() if counts else 0)
        with torch.enable_grad():
            loss_sum = gradients.loss_sum(self.model, batch, self.device)
            (loss_sum * weight).backward()
        gradient_P = [
            None if parameter.grad is None else self.local(parameter.grad)
            for parameter in self.parameters
        ]
        for parameter in self.model.parameters():
            parameter.grad = None
        return BatchGradient(loss_sum.detach(), gradient_P)

    def total(self, partial: Tensor) -> Tensor:
        """The sum over shards; in hybrid sharding every shard is there several times."""
        return super().total(partial) / self._replicas


def open_passes(model: nn.Module, selection: str = ALL) -> Passes:
    """Finds out how `model` is distributed.

    Args:
        model: as the Trainer hands it to callbacks; see `bare` for what is looked through.
        selection: see `select_parameters`.

    Raises:
        ValueError: nothing trainable is selected, or the model is sharded in a way that influence
            does not support.
    """
    model = bare(model)
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise ValueError(
            "`model` is sharded by FSDP1, which flattens its parameters. Use FSDP2: set "
            "`fsdp_version: 2` in the Accelerate configuration."
        )
    parameters = select_parameters(model, selection)
    # DeepSpeed marks ZeRO-3's parameters so; small ones may have all their elements all the same.
    if any("ds_id" in vars(parameter) for parameter in parameters):
        from tikmix_hf.signals.zero3 import Zero3Passes

        return Zero3Passes(model, parameters)
    num_sharded = sum(isinstance(parameter, DTensor) for parameter in parameters)
    if not num_sharded:
        _check_checkpoints(model, parameters)
        return Passes(model, parameters)
    if not isinstance(model, FSDPModule) or num_sharded < len(parameters):
        raise ValueError(
            "`model` holds DTensors that FSDP2 did not make (tensor or context parallelism, or "
            "parameters that FSDP2 ignores), which influence does not support. Shard the whole "
            "model with FSDP2 alone, or train with DDP."
        )
    for parameter in parameters:
        _check_mesh(parameter)
    return ShardedPasses(model, parameters)


def is_sharded(model: nn.Module) -> bool:
    """Whether a rank holds only a shard of some trainable parameter, by whatever means."""
    return any(
        isinstance(parameter, DTensor) or "ds_id" in vars(parameter)
        for parameter in model.parameters()
        if parameter.requires_grad
    )


def bare(model: nn.Module) -> nn.Module:
    """The module inside DDP, torch.compile and DeepSpeed's engine."""
    wrappers: list[Any] = [DistributedDataParallel]
    # Whoever has an engine has imported DeepSpeed.
    if "deepspeed" in sys.modules:
        wrappers.append(vars(sys.modules["deepspeed"])["DeepSpeedEngine"])
    while True:
        if isinstance(model, tuple(wrappers)):
            model = cast("nn.Module", model.module)
        elif isinstance(model, torch._dynamo.OptimizedModule):
            model = model._orig_mod
        else:
            return model


def _check_checkpoints(model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
    # ZeRO-1 and ZeRO-2 mark their parameters so.
    hooked = any("_hp_mapping" in vars(parameter) for parameter in parameters)
    if hooked and gradients.checkpoints_reentrantly(model):
        raise ValueError(
            "`model` checkpoints reentrantly, which asks for a backward pass through the hooks of "
            "DeepSpeed ZeRO-1 or ZeRO-2 and would leave its gradients in them. Set "
            "`gradient_checkpointing_kwargs={'use_reentrant': False}`, or use ZeRO-3."
        )


def _check_mesh(parameter: nn.Parameter) -> None:
    assert isinstance(parameter, DTensor)
    num_shards = sum(isinstance(placement, Shard) for placement in parameter.placements)
    plain = all(isinstance(placement, (Shard, Replicate)) for placement in parameter.placements)
    if num_shards != 1 or not plain or parameter.device_mesh.size() != distributed.world_size():
        raise ValueError(
            f"`model` is sharded over the mesh {parameter.device_mesh} with the placements "
            f"{parameter.placements}; influence supports FSDP2 over all ranks, also hybrid, and "
            "no tensor, context or pipeline parallelism beside it."
        )


def _replicas(parameter: nn.Parameter) -> int:
    """How many ranks hold the same shard."""
    assert isinstance(parameter, DTensor)
    mesh = parameter.device_mesh
    return math.prod(
        mesh.size(dimension)
        for dimension, placement in enumerate(parameter.placements)
        if isinstance(placement, Replicate)
    )
