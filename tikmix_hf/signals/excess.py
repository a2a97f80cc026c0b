"""Excess loss: how much a reference model knows that the model in training does not.

Batches by name go in, and a second model; out comes each name's mean over tokens of

    max(loss of the token - the reference model's loss of the token, 0)

in nats, as DoReMi clips it (Xie et al., arXiv 2305.10429, 2023, algorithm 1).
"""

# Shape letters: K names, B rows, T tokens, V vocabulary.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.nn import functional

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import IGNORED_LABEL, Batches
from tikmix_hf.signals.losses import Losses
from tikmix_hf.signals.passes import bare, open_passes
from tikmix_hf.signals.walk import turns


def mean_excess_losses(
    model: nn.Module, reference: nn.Module, batches: Mapping[str, Batches]
) -> Losses:
    """Reads every batch once with each model, without gradients.

    Args:
        model: as for `GroupInfluence`, whole on every rank.
        reference: with the same vocabulary; moved to the model's device.
        batches: collated batches by name. Every rank is given all of them, indexes its own.

    Returns:
        Means in nats per token, and the tokens read by both models together.

    Raises:
        ValueError: for a sharded model, another vocabulary, or a name without any loss token.
        FloatingPointError: naming the first name whose losses are not finite.
    """
    model = bare(model)
    with gradients.undisturbed(model), torch.no_grad(), distributed.FailTogether():
        passes = open_passes(model)
        if passes.sharded:
            raise ValueError(
                "`reference_model` needs a model that is whole on every rank; this one is sharded "
                "(FSDP2 or ZeRO-3). Use a mixer that needs no excess losses."
            )
        reference = reference.to(passes.device).eval()
        ledger_K3 = torch.zeros(len(batches), 3, dtype=torch.float64, device=passes.device)
        for k, (name, part) in enumerate(batches.items()):
            for turn in turns(repr(name), part, passes):
                if turn.num_loss_tokens:
                    inputs = send_to_device(dict(turn.batch), passes.device)
                    ledger_K3[k, 2] += 2 * gradients.num_tokens(inputs)
                    ledger_K3[k, 1] += turn.num_loss_tokens
                    ledger_K3[k, 0] += _excess(model, reference, inputs)
    distributed.all_reduce_sum_([ledger_K3])
    sums_K3 = ledger_K3.cpu().numpy()
    for name, (loss, num_loss_tokens, _) in zip(batches, sums_K3, strict=True):
        if not num_loss_tokens:
            raise ValueError(f"{name!r} has no loss token in its {len(batches[name])} batches.")
        if not np.isfinite(loss):
            raise FloatingPointError(f"{name!r}: the excess loss is not finite.")
    return Losses(sums_K3[:, 0] / sums_K3[:, 1], int(sums_K3[:, 2].sum()))


def _excess(model: nn.Module, reference: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """() the clipped differences of a batch, summed over its tokens."""
    labels_BT = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    own_BT, known_BT = (
        _token_losses(one(**inputs, use_cache=False).logits, labels_BT)
        for one in (model, reference)
    )
    return (own_BT - known_BT).clamp(min=0).sum(dtype=torch.float64)


def _token_losses(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Loss of every predicted token, 0 where the loss leaves it out."""
    highest = int(labels_BT.max())
    if highest >= logits_BTV.shape[-1]:
        raise ValueError(
            f"`reference_model` must know the tokens of the model; its vocabulary has "
            f"{logits_BTV.shape[-1]} entries, and the text has token {highest}."
        )
    return torch.stack(
        [
            functional.cross_entropy(
                logits_TV[:-1].float(), labels_T[1:], ignore_index=IGNORED_LABEL, reduction="none"
            )
            for logits_TV, labels_T in zip(logits_BTV, labels_BT, strict=True)
        ]
    )
