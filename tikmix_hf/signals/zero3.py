"""How a model under DeepSpeed ZeRO-3 gives gradients: a shard of each to every rank.

A model whose parameters `deepspeed.initialize` has sharded goes in; out come this rank's shards of
gradients, flat and without ZeRO-3's padding. A backward pass of the bare module goes through the
hooks that ZeRO-3 put on its parameters: they sum over ranks and leave every rank its shards in one
buffer, which training uses, too. So all that those hooks move is put back in the end.

Memory: training's gradient is kept aside meanwhile, so a rank holds one local shard of a gradient
more than under FSDP2 (measured: live tensors before each backward pass, two ranks, one target held:
4.5 shards against 3.5), in the dtype and on the device of ZeRO-3's buffer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import BatchGradient
from tikmix_hf.signals.passes import LockstepPasses

_KNOWN_TO_WORK = "0.19.8"
_NEEDED = (
    "_backward_hook_state",
    "_offload_boundary_param_ids",
    "backward_epilogue",
    "backward_prologue",
    "clear_backward_seen_flag",
    "empty_partition_cache",
    "fp16_groups",
    "grad_partitions_flat_buffer",
    "is_gradient_accumulation_boundary",
    "micro_step_id",
    "overlapping_partition_gradients_reduce_epilogue",
    "set_gradient_accumulation_boundary",
    "zenflow",
)
"""What is used of ZeRO-3's optimizer, most of which DeepSpeed does not document."""


class Zero3Passes(LockstepPasses):
    """Forward and backward passes of a model sharded by ZeRO-3.

    Raises:
        ValueError: without an optimizer, for another DeepSpeed version that lacks what is needed,
            and for parameters that are not sharded over all ranks.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self._zero = _checked_optimizer(parameters)
        super().__init__(model, parameters)
        # CPU-offloaded shards are not where the model computes.
        self.device = parameters[0].device
        self._shards_P = self._views(parameters)

    def local(self, tensor: Tensor) -> Tensor:
        """Stands for this rank's shard of a parameter: its shape, without its memory."""
        return torch.zeros((), device=tensor.device).expand(_num_elements(tensor))

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Afterwards the next microbatch of training adds, or not, to the gradients it left.

        Takes the memory of one more gradient.
        """
        zero = self._zero
        buffer = zero.grad_partitions_flat_buffer
        kept = buffer.clone()
        offloaded = set(zero._offload_boundary_param_ids)
        hooks = dict(vars(zero._backward_hook_state))
        micro_step_id = zero.micro_step_id
        boundary = zero.is_gradient_accumulation_boundary()
        try:
            # Otherwise a CPU-offloaded optimizer is handed the gradients.
            zero.set_gradient_accumulation_boundary(False)
            yield
        finally:
            zero.set_gradient_accumulation_boundary(boundary)
            zero.micro_step_id = micro_step_id
            vars(zero._backward_hook_state).update(hooks)
            zero._offload_boundary_param_ids = offloaded
            buffer.copy_(kept)
            # After forward passes alone, parameters are still gathered for a backward pass.
            zero.empty_partition_cache()

    def gradient(self, batch: Mapping[str, Any], *, counts: bool = True) -> BatchGradient:
        """This rank's shards of the gradient of the sum over all ranks' batches."""
        zero = self._zero
        # What the loss does not reach is not written to; the rest is overwritten, or added to.
        zero.grad_partitions_flat_buffer.zero_()
        zero.clear_backward_seen_flag()
        with torch.enable_grad():
            loss_sum = gradients.loss_sum(self.model, batch, self.device)
            zero.backward_prologue()
            (loss_sum * float(counts)).backward()
        zero.overlapping_partition_gradients_reduce_epilogue()  # the last bucket
        zero.backward_epilogue()
        # ZeRO-3 averages over ranks.
        gradient_P = [
            shard.to(self.device, torch.float32, copy=True).mul_(distributed.world_size())
            for shard in self._shards_P
        ]
        return BatchGradient(loss_sum.detach(), list(gradient_P))

    def _views(self, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Where in ZeRO-3's buffer this rank's shards of gradients lie, padding left out."""
        views, start = {}, 0
        for parameter in itertools.chain.from_iterable(self._zero.fp16_groups):
            views[parameter] = self._zero.grad_partitions_flat_buffer.narrow(
                0, start, _num_elements(parameter)
            )
            start += parameter.ds_tensor.ds_numel
        assert start == self._zero.grad_partitions_flat_buffer.numel()
        return [views[parameter] for parameter in parameters]


def _num_elements(parameter: Any) -> int:
    """How many of a parameter's elements are this rank's; ZeRO-3 pads the last shards."""
    size = parameter.ds_tensor.ds_numel
    return max(0, min(size, parameter.ds_numel - distributed.rank() * size))


def _checked_optimizer(parameters: Sequence[Any]) -> Any:
    """The optimizer that ZeRO-3 shards for.

    Raises:
        ValueError: as `Zero3Passes`.
    """
    if any("_z3_optimizer" not in vars(parameter) for parameter in parameters):
        raise ValueError(
            "`model` is sharded by DeepSpeed ZeRO-3 without an optimizer, and so gives no "
            "gradients. Prepare the model together with the optimizer that trains it."
        )
    zero = vars(parameters[0])["_z3_optimizer"]
    missing = sorted(set(_NEEDED) - set(dir(zero)))
    if missing:
        raise ValueError(
            f"`model` is sharded by ZeRO-3 of DeepSpeed {metadata.version('deepspeed')}, whose "
            f"{type(zero).__name__} lacks `{'`, `'.join(missing)}`. Known to work: DeepSpeed "
            f"{_KNOWN_TO_WORK}. Install it, or use ZeRO-2 or FSDP2 (`fsdp_version: 2`)."
        )
    if zero.zenflow:
        raise ValueError(
            "`model` is trained with DeepSpeed's ZenFlow, whose state a measurement would move. "
            "Switch `zenflow` off in the DeepSpeed configuration."
        )
    for parameter in parameters:
        size, num_elements = parameter.ds_tensor.ds_numel, parameter.ds_numel
        if size != -(-num_elements // distributed.world_size()):
            raise ValueError(
                f"`model` has a parameter of {num_elements} elements in shards of {size}, which "
                f"are not spread over all {distributed.world_size()} ranks; influence supports "
                "ZeRO-3 over all ranks, and no tensor, sequence or expert parallelism or MiCS "
                "beside it."
            )
    return zero
