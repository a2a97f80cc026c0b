"""Products with the Gauss-Newton matrix of the mean loss per token.

A vector u over the parameters goes in, G u comes out (see `ggn` for G). One product is a
forward-mode pass for J u and a plain forward and backward pass for J^T: no double backward, and
gradient checkpointing saves memory as it does in training.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.preconditioners._predictions import Batch, differentiate, predicted_logits

# Shape letters: N loss tokens of a batch, V vocabulary, P parameters.

NUM_PROBES = 4
"""Random vectors that estimate the mean of G's diagonal."""
PASSES_PER_PRODUCT = 2.0
"""In forward and backward passes: forward mode takes three products of matrices where a plain
forward pass takes one, and a forward and a backward pass follow it."""


class GaussNewton:
    """u -> G u, the same on every rank; a collective.

    Args:
        model: a causal language model.
        parameters: what G's rows belong to.
        batches: this rank's held-out text, perhaps none.

    Raises:
        ValueError: if no rank has a loss token.
    """

    def __init__(
        self, model: nn.Module, parameters: Sequence[nn.Parameter], batches: Sequence[Batch]
    ) -> None:
        self.model, self.parameters, self.batches = model, parameters, batches
        names = {parameter: name for name, parameter in model.named_parameters()}
        self.names = [names[parameter] for parameter in parameters]
        num_tokens = torch.tensor(
            float(sum(gradients.num_loss_tokens(batch) for batch in batches)),
            dtype=torch.float64,
            device=parameters[0].device,
        )
        distributed.all_reduce_sum_([num_tokens])
        if not num_tokens:
            raise ValueError("the domains' held-out batches have no loss token to fit on.")
        self.num_tokens = float(num_tokens)

    def __call__(self, vector_P: Sequence[Tensor]) -> list[Tensor]:
        """G u, in at least fp32, in tensors of its own."""
        product_P = gradients.accumulator(self.parameters)
        with distributed.FailTogether():
            for batch in self.batches:
                gradients.add_(product_P, self._of_batch(batch, vector_P))
        distributed.all_reduce_sum_(product_P)
        return product_P

    def _of_batch(self, batch: Batch, vector_P: Sequence[Tensor]) -> gradients.Gradient:
        change_NV = self._jacobian_product(batch, vector_P)
        with torch.enable_grad():
            logits_NV = predicted_logits(self.model, batch, self.parameters[0].device)
            shares_NV = logits_NV.detach().softmax(dim=1)
            mean_N1 = (shares_NV * change_NV).sum(dim=1, keepdim=True)
            curved_NV = shares_NV * (change_NV - mean_N1) / self.num_tokens
            return differentiate(self.model, logits_NV, self.parameters, cotangent=curved_NV)

    def _jacobian_product(self, batch: Batch, vector_P: Sequence[Tensor]) -> Tensor:
        """(N, V): how fast the logits change as the parameters move along u."""
        with (
            torch.no_grad(),
            forward_ad.dual_level(),
            sdpa_kernel(SDPBackend.MATH),  # the others have no forward-mode derivative
            _checkpoints_off(self.model),
            warnings.catch_warnings(),
        ):
            # The first forward-mode pass of a process compiles torch's own formulas with it.
            warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
            warnings.filterwarnings("ignore", "`torch.jit.script", DeprecationWarning)
            duals = {
                f"model.{name}": forward_ad.make_dual(own.detach(), vector.to(own.dtype))
                for name, own, vector in zip(self.names, self.parameters, vector_P, strict=True)
            }
            logits_NV = torch.func.functional_call(
                _Predicting(self.model), duals, (batch, self.parameters[0].device)
            )
            change_NV = forward_ad.unpack_dual(logits_NV).tangent
            return torch.zeros_like(logits_NV) if change_NV is None else change_NV


class _Predicting(nn.Module):
    """`predicted_logits` as a module, which `functional_call` can lend parameters to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, device: torch.device) -> Tensor:
        return predicted_logits(self.model, batch, device)


def mean_diagonal(product: GaussNewton, seed: int) -> float:
    """The mean of G's diagonal: the mean of z^T G z / P over random signs z (Hutchinson, 1990)."""
    generator = torch.Generator().manual_seed(seed)
    num_elements = sum(own.numel() for own in product.parameters)
    total = 0.0
    for _ in range(NUM_PROBES):
        signs_P = [
            torch.randint(0, 2, own.shape, generator=generator)
            .mul_(2)
            .sub_(1)
            .to(own.device, gradients.precision(own))
            for own in product.parameters
        ]
        total += dot(signs_P, product(signs_P))
    return total / num_elements / NUM_PROBES


def check_attention(model: nn.Module) -> None:
    """Raises ValueError where attention is neither plain nor PyTorch's own."""
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            kind = module.config._attn_implementation
            if kind not in (None, "eager", "sdpa"):
                raise ValueError(
                    f"`preconditioner` 'ggn' needs forward-mode derivatives, which attention "
                    f'{kind!r} does not have; load the model with attn_implementation="eager".'
                )


def dot(one_P: Sequence[Tensor], other_P: Sequence[Tensor]) -> float:
    """Summed over all tensors, in float64."""
    products = [(a * b).sum(dtype=torch.float64) for a, b in zip(one_P, other_P, strict=True)]
    return float(torch.stack(products).sum())


@contextmanager
def _checkpoints_off(model: nn.Module) -> Iterator[None]:
    """Without a graph there is nothing to save, and a checkpoint may refuse forward mode."""
    layers = [own for own in model.modules() if isinstance(own, GradientCheckpointingLayer)]
    flags = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = False  # no more than the layer itself looks at
        yield
    finally:
        for layer, flag in zip(layers, flags, strict=True):
            layer.training = flag
