"""Losses of batches, by forward passes alone, of a model that is left as it was.

Batches by name go in; out comes each name's mean loss per token, the same on every rank, and the
same number that a measurement of influence reports for the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import Batches
from tikmix_hf.signals.passes import Passes, bare, open_passes
from tikmix_hf.signals.walk import turns

# Shape letters: J names, M microbatches, C columns of a ledger (see `walk.py`).
_LOSS, _LOSS_TOKENS, _TOKENS = range(3)


class Losses(NamedTuple):
    """What forward passes over batches tell."""

    means: np.ndarray
    """(J,) float64, nats per token."""
    num_tokens: int
    """Tokens (padding included) in all forward passes of all ranks."""


def mean_losses(model: nn.Module, batches: Mapping[str, Batches]) -> Losses:
    """Reads every batch once, without gradients.

    Args:
        model: as for `GroupInfluence`.
        batches: collated batches by name, J names. Every rank is given all of them, indexes its
            own.

    Raises:
        ValueError: for batches without labels, or without any loss token.
        FloatingPointError: naming the first batch whose loss is not finite.
        RuntimeError: another rank failed.
    """
    model = bare(model)
    with gradients.undisturbed(model), torch.no_grad():
        with distributed.FailTogether():
            passes = open_passes(model)
        for module in model.modules():  # nothing is kept for a backward pass: no checkpoints
            module.training = False
        with passes.undisturbed(), distributed.FailTogether():
            ledgers_J = [_walk(name, part, passes) for name, part in batches.items()]
        for module in model.modules():
            if isinstance(module, FSDPModule):  # no backward pass gives the last shards back
                module.reshard()
    distributed.all_reduce_sum_(ledgers_J)
    ledgers_JMC = [ledger.cpu().numpy() for ledger in ledgers_J]
    for name, ledger_MC in zip(batches, ledgers_JMC, strict=True):
        _check(name, ledger_MC)
    sums_JC = np.array([ledger_MC.sum(axis=0) for ledger_MC in ledgers_JMC])
    return Losses(sums_JC[:, _LOSS] / sums_JC[:, _LOSS_TOKENS], int(sums_JC[:, _TOKENS].sum()))


def _walk(name: str, batches: Batches, passes: Passes) -> Tensor:
    """The ledger of this rank's microbatches."""
    ledger_MC = torch.zeros(len(batches), 3, dtype=torch.float64, device=passes.device)
    for turn in turns(repr(name), batches, passes):
        if not (turn.num_loss_tokens or passes.sharded):
            continue
        loss_sum = gradients.loss_sum(passes.model, turn.batch, passes.device)
        if turn.num_loss_tokens:  # otherwise it only kept the other ranks company
            ledger_MC[turn.number, _LOSS] = loss_sum
            ledger_MC[turn.number, _LOSS_TOKENS] = turn.num_loss_tokens
            ledger_MC[turn.number, _TOKENS] = gradients.num_tokens(turn.batch)
    return ledger_MC


def _check(name: str, ledger_MC: np.ndarray) -> None:
    for m in np.flatnonzero(~np.isfinite(ledger_MC[:, _LOSS]))[:1]:
        raise FloatingPointError(f"{name!r}, batch {m}: the loss is not finite.")
    if not ledger_MC[:, _LOSS_TOKENS].any():
        raise ValueError(f"{name!r} has no loss token in its {len(ledger_MC)} batches.")
