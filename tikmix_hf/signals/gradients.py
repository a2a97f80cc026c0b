"""One batch's gradient, taken from a model that is left as it was found.

A collated batch goes in (`input_ids`, `labels`, whatever else the model's forward takes); out come
the sum of its token losses and the gradient of that sum by every trainable parameter. Sums, not
means: batches of unequal length then add up to the mean loss per token of everything they hold,

    g = sum_m grad(sum of token losses of batch m) / sum_m (number of loss tokens of batch m).

`undisturbed` is the frame around it: whatever is measured inside, training goes on bit for bit as
if nothing had happened.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

IGNORED_LABEL = -100
"""The label of a token that the loss leaves out (the convention of transformers and PyTorch)."""

Batches = Sequence[Mapping[str, Any]]
"""Collated batches, perhaps made as they are asked for."""

Gradient = list[Tensor | None]
"""One tensor per parameter, in its shape; None (zero) where the loss does not reach it."""


class BatchGradient(NamedTuple):
    """What one batch contributes."""

    loss_sum: Tensor
    """() nats, the sum of the batch's token losses."""
    gradient: Gradient
    """Of `loss_sum`, in the parameters' dtypes."""


def num_loss_tokens(batch: Mapping[str, Any]) -> int:
    """How many labels of a batch a causal language model's loss counts.

    The first label of a row is never predicted, so `labels` [[5, 6, -100, 7]] count 2.

    Raises:
        ValueError: if `labels` or `input_ids` is missing.
        TypeError: if `labels` is not a tensor.
    """
    for column in ("input_ids", "labels"):
        if column not in batch:
            raise ValueError(
                f"a batch must have `{column}`; it has {sorted(batch)}. Collate it with the "
                f"collator that training uses."
            )
    labels = batch["labels"]
    if not isinstance(labels, Tensor):
        raise TypeError(f"`labels` must be a tensor; got {type(labels).__name__}. Collate it.")
    return int((labels[..., 1:] != IGNORED_LABEL).sum())


def num_tokens(batch: Mapping[str, Any]) -> int:
    """How many tokens of text a batch has: padding is none, as in the plan and in training."""
    mask = batch.get("attention_mask")
    # Some models take masks of other shapes, which do not count tokens.
    if isinstance(mask, Tensor) and mask.shape == batch["input_ids"].shape:
        return int((mask != 0).sum())
    return batch["input_ids"].numel()


def loss_sum(model: nn.Module, batch: Mapping[str, Any], device: torch.device) -> Tensor:
    """() the sum of a batch's token losses in nats, without what a model adds to its loss.

    A mixture of experts adds a load-balancing term when it is asked for its router's logits, which
    is no loss of the text; it is not asked.
    """
    inputs = send_to_device(dict(batch), device)
    options = {"output_router_logits": False} if _asks_routers(model) else {}
    return model(**inputs, use_cache=False, **options).loss * num_loss_tokens(batch)


def batch_gradient(
    model: nn.Module, parameters: Sequence[nn.Parameter], batch: Mapping[str, Any]
) -> BatchGradient:
    """The gradient of the sum of a batch's token losses, inside `undisturbed`.

    Args:
        model: its forward returns an object whose `loss` is the mean over the loss tokens.
        parameters: what to differentiate by.
        batch: at least one loss token; tensors are moved to the parameters' device.
    """
    with torch.enable_grad():
        total = loss_sum(model, batch, parameters[0].device)
        if not checkpoints_reentrantly(model):
            gradient = torch.autograd.grad(total, parameters, allow_unused=True)
            return BatchGradient(total.detach(), list(gradient))
        # torch refuses autograd.grad through reentrant checkpoints.
        total.backward()
    gradient = [parameter.grad for parameter in parameters]
    for parameter in model.parameters():
        parameter.grad = None
    return BatchGradient(total.detach(), gradient)


def _asks_routers(model: nn.Module) -> bool:
    configs = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    return any(config.to_dict().get("output_router_logits") for config in configs)


def accumulator(parameters: Sequence[Tensor]) -> list[Tensor]:
    """Zeros in each parameter's shape and `precision`."""
    return [
        torch.zeros(parameter.shape, dtype=precision(parameter), device=parameter.device)
        for parameter in parameters
    ]


def precision(parameter: Tensor) -> torch.dtype:
    """What sums over batches are kept in: fp32 where the parameter is narrower."""
    return torch.promote_types(parameter.dtype, torch.float32)


def add_(sums: Sequence[Tensor], gradient: Gradient) -> None:
    """Adds a gradient to an accumulator, in place."""
    for total, own in zip(sums, gradient, strict=True):
        if own is not None:
            total.add_(own)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside, `model` computes without dropout; afterwards it is what it was, also on an exception.

    Saved and put back: the random states of python, NumPy, torch and every CUDA device; each
    parameter's `.grad` (None inside); each module's training flag. Gradient checkpointing stays on,
    although `model.eval()` would switch it off in silence.
    """
    with _random_states_kept(), _gradients_kept(model), _dropout_off(model):
        yield


@contextmanager
def _random_states_kept() -> Iterator[None]:
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state()  # noqa: NPY002 - training may draw from the global generator
    # Asking for CUDA's states would open a context on every device.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def _gradients_kept(model: nn.Module) -> Iterator[None]:
    kept = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in kept:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in kept:
            parameter.grad = gradient


@contextmanager
def _dropout_off(model: nn.Module) -> Iterator[None]:
    """Evaluation mode everywhere, with gradient checkpointing still on.

    The flags are set one by one: `train()` and `eval()` may be overridden with side effects. A
    layer checkpoints only while in training mode; its own forward then runs in evaluation mode
    inside the checkpoint, since some layers draw dropout there and not in a submodule.
    """
    flags = [(module, module.training) for module in model.modules()]
    layers = [(layer, layer._gradient_checkpointing_func) for layer in _checkpointing_layers(model)]
    try:
        for module, _ in flags:
            module.training = False
        for layer, checkpoint in layers:
            layer.training = True
            layer._gradient_checkpointing_func = _EvaluatingCheckpoint(layer, checkpoint)
        yield
    finally:
        for layer, checkpoint in layers:
            layer._gradient_checkpointing_func = checkpoint
        for module, training in flags:
            module.training = training


class _EvaluatingCheckpoint:
    """A layer's checkpoint function, inside which the layer is in evaluation mode."""

    def __init__(self, layer: nn.Module, checkpoint: Callable[..., Any]) -> None:
        self.layer, self.checkpoint = layer, checkpoint

    def __call__(self, forward: Callable[..., Any], *inputs: Any) -> Any:
        """`checkpoint(forward, *inputs)`, now and when the backward pass recomputes it."""

        def evaluate(*inputs: Any) -> Any:
            self.layer.training = False
            try:
                return forward(*inputs)
            finally:
                self.layer.training = True

        return self.checkpoint(evaluate, *inputs)

    @property
    def reentrant(self) -> bool:
        """Whether this is torch's reentrant checkpoint."""
        # transformers binds the choice as a keyword; where it did not, torch's own default counts.
        return isinstance(self.checkpoint, functools.partial) and self.checkpoint.keywords.get(
            "use_reentrant", True
        )


def checkpoints_reentrantly(model: nn.Module) -> bool:
    """Whether some layer recomputes through torch's reentrant checkpoint, inside `undisturbed`."""
    return any(
        isinstance(layer._gradient_checkpointing_func, _EvaluatingCheckpoint)
        and layer._gradient_checkpointing_func.reentrant
        for layer in _checkpointing_layers(model)
    )


def _checkpointing_layers(model: nn.Module) -> list[Any]:
    # Any: transformers assigns the layers' checkpoint function without declaring it.
    return [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
