"""The Fisher matrix of the mean loss per token, kept as Kronecker factors and a diagonal.

Held-out batches go in; out come a `Layer` of factors for each Linear, and diagonals. With N loss
tokens, and labels drawn from the model's own predictions instead of the text's,

    F = 1/N sum_t E[grad l_t grad l_t^T].

Of a Linear's [W b], with the input a_s (1 appended for the bias) and the gradient d_s of the summed
loss by the output, at position s,

    F ~ A (x) G,   A = mean_s a_s a_s^T,   G = 1/N sum_s d_s d_s^T

(Martens and Grosse, 2015, arXiv 1503.05671; a weight used at many positions: Eschenhagen et al.,
2023, arXiv 2311.00636, "expand"). The mean runs over the positions that the loss reaches: padding
after the last loss token has no gradient and does not count. All labels are drawn at once, and one
backward pass serves: the draws are independent and each token's gradient has mean zero, so cross
terms vanish in the mean. A side longer than `max_side` (an output layer's vocabulary) keeps its
factor's diagonal alone.

For the same reason the squared gradient of a batch's summed loss has the mean
sum_t E[(grad l_t)^2], so for every other parameter (embeddings, norms, a weight that several
modules share)

    diag F ~ 1/N sum_batches (grad of the batch's summed loss)^2

is without bias. With labels of the text it would not be: those gradients have a mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tikmix_hf import distributed
from tikmix_hf.signals.gradients import precision
from tikmix_hf.signals.preconditioners._predictions import Batch, differentiate, predicted_logits

NOT_FINITE = (
    "the Fisher matrix of the held-out text is not finite: a logit, an activation or a gradient "
    "overflows. Look at the model's loss on that text."
)

# Shape letters: I inputs and O outputs of a layer, S positions, N loss tokens, V vocabulary.


@dataclass(slots=True, eq=False)
class Layer:
    """The factors of one Linear (or Conv1D), as sums while batches are added."""

    name: str
    weight: int
    """The weight's place among the parameters."""
    bias: int | None
    """The bias's, where it is one of them."""
    transposed: bool
    """Whether the weight is (I, O), as a Conv1D's, and not (O, I)."""
    input_sum: Tensor
    """(I, I), or (I,) of the diagonal alone; I counts the appended 1."""
    output_sum: Tensor
    """(O, O) or (O,)."""
    num_positions: Tensor
    """() positions in `input_sum`."""

    def add(self, input_: Tensor, output_gradient: Tensor) -> None:
        """Adds what one use of the layer saw: (..., I) without the 1, and (..., O)."""
        dtype = self.input_sum.dtype
        gradient_SO = output_gradient.reshape(-1, output_gradient.shape[-1]).to(dtype)
        reached_S1 = gradient_SO.ne(0).any(dim=1, keepdim=True).to(dtype)
        input_SI = input_.reshape(-1, input_.shape[-1]).to(dtype) * reached_S1
        if self.bias is not None:
            input_SI = torch.cat([input_SI, reached_S1], dim=1)
        _add_outer_(self.input_sum, input_SI)
        _add_outer_(self.output_sum, gradient_SO)
        self.num_positions += reached_S1.sum(dtype=torch.float64)


def _add_outer_(total: Tensor, rows_SD: Tensor) -> None:
    if total.dim() == 2:
        total.addmm_(rows_SD.T, rows_SD)
    else:
        total += rows_SD.square().sum(dim=0)


@dataclass(slots=True, eq=False)
class Fisher:
    """Sums over this rank's batches; after `reduce_`, the means over all ranks'."""

    model: nn.Module
    parameters: Sequence[nn.Parameter]
    max_side: int
    layers: dict[nn.Module, Layer] = field(init=False)
    diagonals: dict[int, Tensor] = field(init=False)
    """By the parameter's place, in its shape."""
    num_tokens: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Finds the layers; everything else is diagonal."""
        self.layers = _kronecker_layers(self.model, self.parameters, self.max_side)
        kronecker = {layer.weight for layer in self.layers.values()}
        kronecker |= {layer.bias for layer in self.layers.values() if layer.bias is not None}
        self.diagonals = {
            place: torch.zeros_like(parameter, dtype=precision(parameter), requires_grad=False)
            for place, parameter in enumerate(self.parameters)
            if place not in kronecker
        }
        self.num_tokens = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)

    def add(self, batch: Batch, seed: Sequence[int]) -> None:
        """One forward and backward pass on labels drawn with a generator of its own.

        Raises:
            FloatingPointError: if a logit is not finite.
        """
        device = self.parameters[0].device
        anchor = torch.zeros((), device=device, requires_grad=True)
        with torch.enable_grad(), self._tapped(anchor):
            logits_NV = predicted_logits(self.model, batch, device)
            if not logits_NV.isfinite().all():  # on CUDA, drawing from them would be fatal
                raise FloatingPointError(NOT_FINITE)
            labels_N = _drawn_labels(logits_NV.detach(), seed)
            loss = nn.functional.cross_entropy(logits_NV, labels_N, reduction="sum")
            # Neither the layers' weights nor what lies below the lowest parameter is asked for.
            own = [self.parameters[place] for place in self.diagonals]
            _, *gradients = differentiate(self.model, loss, [anchor, *own])
        for diagonal, gradient in zip(self.diagonals.values(), gradients, strict=True):
            if gradient is not None:
                diagonal += gradient.to(diagonal.dtype).square()
        self.num_tokens += len(labels_N)

    def reduce_(self) -> None:
        """Sums over ranks, then divides.

        Raises:
            ValueError: if no batch has a loss token.
            FloatingPointError: if a factor is not finite.
        """
        sums = [self.num_tokens, *self.diagonals.values()]
        for layer in self.layers.values():
            sums += [layer.input_sum, layer.output_sum, layer.num_positions]
        distributed.all_reduce_sum_(sums)
        with distributed.FailTogether():
            if not self.num_tokens:
                raise ValueError("the domains' held-out batches have no loss token to fit on.")
            if not all(bool(total.isfinite().all()) for total in sums):
                raise FloatingPointError(NOT_FINITE)
            for diagonal in self.diagonals.values():
                diagonal /= self.num_tokens
            for layer in self.layers.values():
                layer.input_sum /= layer.num_positions.clamp(min=1)
                layer.output_sum /= self.num_tokens

    @contextmanager
    def _tapped(self, anchor: Tensor) -> Iterator[None]:
        def tap(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            return _Tap.apply(output, inputs[0], anchor, self.layers[module])  # pyright: ignore[reportReturnType]

        handles = [module.register_forward_hook(tap) for module in self.layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _Tap(torch.autograd.Function):
    """The identity on a layer's output, which tells the layer what passes on the way back.

    A node of the graph, and no pair of hooks, because of gradient checkpointing: a forward pass
    that is recomputed runs its hooks twice, but each node's backward pass runs once, and the saved
    input is recomputed like every other. `anchor` makes autograd visit the node where no parameter
    below it is asked for.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, input_: Tensor, anchor: Tensor, layer: Layer) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(input_)
        return output.clone()  # a view could not be written to in place, as some models do

    @staticmethod
    def backward(ctx: Any, *output_gradients: Tensor) -> tuple[Tensor, None, None, None]:
        ctx.layer.add(*ctx.saved_tensors, *output_gradients)
        return output_gradients[0], None, None, None


def _drawn_labels(logits_NV: Tensor, seed: Sequence[int]) -> Tensor:
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    generator = torch.Generator(logits_NV.device).manual_seed(int(state[0]))
    return torch.multinomial(logits_NV.softmax(dim=1), 1, generator=generator)[:, 0]


def _kronecker_layers(
    model: nn.Module, parameters: Sequence[nn.Parameter], max_side: int
) -> dict[nn.Module, Layer]:
    places: dict[Tensor | None, int] = {own: place for place, own in enumerate(parameters)}
    num_owners: dict[Tensor | None, int] = dict.fromkeys(parameters, 0)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter in num_owners:
                num_owners[parameter] += 1
    layers = {}
    for name, module in model.named_modules():
        # A subclass may have another forward, or one that is passed by.
        if not isinstance(module, nn.Linear | Conv1D) or type(module) not in (nn.Linear, Conv1D):
            continue
        if num_owners.get(module.weight, 0) != 1:
            continue
        bias = module.bias if num_owners.get(module.bias, 0) == 1 else None
        transposed = type(module) is Conv1D
        num_outputs, num_inputs = module.weight.shape[:: -1 if transposed else 1]
        layers[module] = Layer(
            name=name,
            weight=places[module.weight],
            bias=None if bias is None else places[bias],
            transposed=transposed,
            # The appended 1 is no reason to drop a factor.
            input_sum=_zeros(num_inputs, max_side, module.weight, extra=bias is not None),
            output_sum=_zeros(num_outputs, max_side, module.weight),
            num_positions=torch.zeros((), dtype=torch.float64, device=module.weight.device),
        )
    return layers


def _zeros(side: int, max_side: int, weight: Tensor, *, extra: bool = False) -> Tensor:
    shape = (side + extra,) * (2 if side <= max_side else 1)
    return torch.zeros(shape, dtype=precision(weight), device=weight.device)
