"""What a fit reads of the held-out text: an even share of its batches, and the model's predictions.

A `Fitting` goes in; batches, and the logits at their loss tokens, come out. Whoever sums over them
sums over ranks too: each rank sees only its own part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from tikmix_hf import distributed
from tikmix_hf.checks import check_count
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import IGNORED_LABEL, Gradient, num_loss_tokens
from tikmix_hf.signals.preconditioners.base import Fitting, Preconditioner, Side

Batch = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadsText(Preconditioner):
    """A preconditioner that reads a share of the domains' text.

    Raises:
        ValueError: for a setting out of its range.
    """

    side: ClassVar[Side] = "target"
    takes_shards: ClassVar[bool] = False

    share: float = 0.25
    """Of each domain's held-out batches, in (0, 1]."""
    seed: int = 0
    """Of what is drawn at random."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(
                "`share` must be above 0 and at most 1 (of each domain's batches); got "
                f"{self.share!r}."
            )
        check_count("seed", self.seed, least=0)

    def share_read(self, num_batches: int) -> float:
        """Of a domain's batches, those that are taken: `share`, rounded up to whole ones."""
        return math.ceil(self.share * num_batches) / num_batches


def batches_of_this_rank(fitting: Fitting, share: float) -> list[tuple[int, Batch]]:
    """This rank's part of `share` of every domain's batches, each with its number in the whole.

    A domain's M batches are cut into ceil(share M) runs, and of each run the first batch with a
    loss token is taken: evenly spaced, and at least one of a domain that has any. The numbers run
    over the runs of all domains, and run i is rank i mod R's: neither what is taken nor its number
    depends on how many ranks there are. A run without any loss token gives nothing.

    Raises:
        ValueError, TypeError: for a batch without labels.
    """
    runs = [
        (batches, range(place * len(batches) // number, (place + 1) * len(batches) // number))
        for batches in fitting.batches.values()
        for number in [math.ceil(share * len(batches))]
        for place in range(number)
    ]
    numbered = []
    for i in range(distributed.rank(), len(runs), distributed.world_size()):
        batches, run = runs[i]
        # Lazily: batches may be made as they are asked for.
        candidates = (batches[m] for m in run)
        first = next((batch for batch in candidates if num_loss_tokens(batch)), None)
        if first is not None:
            numbered.append((i, first))
    return numbered


def predicted_logits(model: nn.Module, batch: Batch, device: torch.device) -> Tensor:
    """(N, V), at least fp32: the logits that predict the batch's N loss tokens, in order."""
    inputs: Any = send_to_device(dict(batch), device)
    counted = inputs.pop("labels")[..., 1:] != IGNORED_LABEL
    logits = model(**inputs, use_cache=False).logits[..., :-1, :][counted]
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def differentiate(
    model: nn.Module,
    output: Tensor,
    by: Sequence[Tensor],
    *,
    cotangent: Tensor | None = None,
) -> Gradient:
    """The gradient of `output`, dotted with `cotangent`; None where it does not depend on one."""
    if not gradients.checkpoints_reentrantly(model):
        return list(torch.autograd.grad(output, by, cotangent, allow_unused=True))
    # torch refuses autograd.grad through reentrant checkpoints.
    output.backward(cotangent)
    gradient = [tensor.grad for tensor in by]
    for parameter in model.parameters():
        parameter.grad = None
    return gradient
