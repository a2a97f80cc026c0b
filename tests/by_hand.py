"""The influence taken by hand, from the logits: no loss of the model, of a Trainer or of an engine.

In: a model as it stands, the domains and targets of `tiny`. Out: every gradient's dot with every
other, over all rows that are held out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tiny import make_targets
from torch import nn


def influence_by_hand(model: nn.Module, dataset: Any) -> np.ndarray:
    """(J, K), the dots of gradients of the mean loss per token over all rows that are held out."""
    moved = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]

    def gradient(heldout: Dataset) -> torch.Tensor:
        ids = torch.as_tensor(heldout["input_ids"][:])
        logits = model(input_ids=ids).logits[:, :-1].double()
        loss = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).mean()
        pieces = torch.autograd.grad(loss, moved, allow_unused=True)
        return torch.cat([g.double().flatten() for g in pieces if g is not None])

    domains_KP = torch.stack([gradient(domain.heldout) for domain in dataset.domains])
    targets_JP = torch.stack([gradient(heldout) for heldout in make_targets().values()])
    return (targets_JP @ domains_KP.T).numpy()


def as_batch(heldout: Dataset) -> dict[str, torch.Tensor]:
    ids = torch.as_tensor(heldout["input_ids"][:])
    return {"input_ids": ids, "labels": ids}
