"""Training loss by domain, from the forward passes that training makes anyway.

The live model and the ordinals of the rows that each of its forward passes reads go in; out comes
the mean loss per token of every domain, step by step, the same on every rank. A forward hook takes
the logits and the labels of a training pass and keeps each row's summed token loss; which domain a
row is of follows from its ordinal. The Trainer is not subclassed, its own loss is not touched, and
what it costs is one more cross-entropy, without gradient.
"""

# Shape letters: K domains, B rows of a batch, T tokens, V vocabulary, S stretches of steps.

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tikmix_hf import distributed
from tikmix_hf.signals.gradients import IGNORED_LABEL
from tikmix_hf.signals.passes import bare

# A checkpoint keeps what was read since the last update; this bounds it.
MOST_STRETCHES = 512


class TrainLosses(NamedTuple):
    """What training told since it was last asked."""

    means: NDArray[np.float64]
    """(S, K) nats per token in each of S stretches of equally many steps; NaN where a stretch has
    no token of the domain. A stretch is one step, unless there are more than 512 of them."""
    tokens: NDArray[np.float64]
    """(S, K) loss tokens."""
    steps: NDArray[np.float64]
    """(S,) steps in each stretch; the last may have fewer than the others."""
    seconds: float
    """What listening took on this rank, without waiting for the accelerator."""


class TrainLossMeter:
    """Listens to a model in training.

    Args:
        num_domains: K.
    """

    def __init__(self, num_domains: int) -> None:
        self._num_domains = num_domains
        self._handle: torch.utils.hooks.RemovableHandle | None = None
        self._rows: list[tuple[Tensor, Tensor]] = []
        self.clear()

    def clear(self) -> None:
        """Forgets what was heard."""
        self._stretch_steps = 1
        self._stretches: list[NDArray[np.float64]] = []  # (2, K) each: loss sums, tokens
        self._steps_in_last = 0
        self._waiting: list[Tensor] = []  # (2, K) a step, still on the device
        self._seconds = 0.0

    def attach(self, model: nn.Module) -> None:
        """Listens to the forward passes of `model` from now on."""
        self.detach()
        self._handle = bare(model).register_forward_hook(self._hear, with_kwargs=True)

    def detach(self) -> None:
        """Listens no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
        self._rows.clear()

    def end_step(self, domains_of_batches: Sequence[NDArray[np.int64]]) -> None:
        """Books an optimizer step.

        Args:
            domains_of_batches: (B,) domains of the rows of each batch that this rank read in it.

        Raises:
            ValueError: the batches that were heard are not those.
        """
        started = time.perf_counter()
        heard, self._rows = self._rows, []
        lengths = [len(losses) for losses, _ in heard]
        expected = [len(domains_B) for domains_B in domains_of_batches]
        if lengths != expected:
            raise ValueError(
                f"`mixer` requires `train_losses`, which need a training step to run the model "
                f"once over each of its batches, with the dataset's rows one by one: {expected} "
                f"rows; heard {lengths}. Collators that join rows (padding-free) cannot be used."
            )
        device = heard[0][0].device if heard else torch.device("cpu")
        booked_2K = torch.zeros(2, self._num_domains, dtype=_precision(device), device=device)
        for (losses_B, tokens_B), domains_B in zip(heard, domains_of_batches, strict=True):
            both_2B = torch.stack([losses_B, tokens_B]).to(booked_2K)
            booked_2K.index_add_(1, torch.from_numpy(domains_B).to(device), both_2B)
        distributed.all_reduce_sum_([booked_2K])
        self._waiting.append(booked_2K)
        self._seconds += time.perf_counter() - started

    def read(self) -> TrainLosses:
        """What was heard since `clear`, at least one step."""
        self._settle()
        stretches_S2K = np.stack(self._stretches)
        sums_SK, tokens_SK = stretches_S2K[:, 0], stretches_S2K[:, 1]
        means_SK = np.full(sums_SK.shape, np.nan)
        np.divide(sums_SK, tokens_SK, out=means_SK, where=tokens_SK > 0)
        steps_S = np.full(len(self._stretches), float(self._stretch_steps))
        steps_S[-1] = self._steps_in_last
        return TrainLosses(means_SK, tokens_SK, steps_S, self._seconds)

    @property
    def has_heard(self) -> bool:
        """Whether there is something to read."""
        return bool(self._stretches or self._waiting)

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types."""
        self._settle()
        return {
            "stretch_steps": self._stretch_steps,
            "steps_in_last": self._steps_in_last,
            "stretches": [stretch_2K.tolist() for stretch_2K in self._stretches],
        }

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Takes up what `state` returned, through JSON."""
        self.clear()
        self._stretch_steps = saved["stretch_steps"]
        self._steps_in_last = saved["steps_in_last"]
        self._stretches = [np.array(stretch) for stretch in saved["stretches"]]

    def _settle(self) -> None:
        """Brings waiting steps into stretches, and makes these longer where they are too many."""
        for step_2K in self._waiting:
            booked_2K = step_2K.to("cpu", torch.float64).numpy()
            if self._stretches and self._steps_in_last < self._stretch_steps:
                self._stretches[-1] = self._stretches[-1] + booked_2K
                self._steps_in_last += 1
                continue
            if len(self._stretches) == MOST_STRETCHES:
                pairs = zip(self._stretches[::2], self._stretches[1::2], strict=True)
                self._stretches = [first + second for first, second in pairs]
                self._stretch_steps *= 2
            self._stretches.append(booked_2K)
            self._steps_in_last = 1
        self._waiting.clear()

    def _hear(
        self, module: nn.Module, args: tuple[Any, ...], inputs: Mapping[str, Any], output: Any
    ) -> None:
        """Keeps the rows' losses of a training pass; measuring and evaluating are none."""
        if not module.training:
            return
        started = time.perf_counter()
        labels_BT, logits_BTV = inputs.get("labels"), output.get("logits")
        if labels_BT is None or logits_BTV is None or logits_BTV.shape[:2] != labels_BT.shape:
            raise ValueError(
                "`mixer` requires `train_losses`, which need the model to be given `labels` and to "
                "return `logits` for each of them. Switch off label_smoothing_factor, fused losses "
                "(liger) and custom losses, or take a mixer that measures for itself."
            )
        self._rows.append(row_losses(logits_BTV.detach(), labels_BT))
        self._seconds += time.perf_counter() - started


@torch.no_grad()
def row_losses(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's summed token loss (B,) in nats, and its number of loss tokens (B,).

    Rows one by one: no copy of all logits in fp32 is made.
    """
    losses, tokens = [], []
    for logits_TV, labels_T in zip(logits_BTV, labels_BT, strict=True):
        losses.append(
            functional.cross_entropy(
                logits_TV[:-1].float(), labels_T[1:], ignore_index=IGNORED_LABEL, reduction="sum"
            )
        )
        tokens.append((labels_T[1:] != IGNORED_LABEL).sum())
    return torch.stack(losses), torch.stack(tokens)


def _precision(device: torch.device) -> torch.dtype:
    """Sums are kept in float64 where the device knows it."""
    return torch.float32 if device.type == "mps" else torch.float64
