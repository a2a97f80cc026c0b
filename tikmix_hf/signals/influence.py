"""Group influence: how much a share of each domain would lower the loss on each target.

A model, K domains' and J targets' batches go in; an `InfluenceMatrix` comes out (Wang et al.,
TiKMiX, arXiv 2508.17677, 2025, equations 1-8, with the sign turned so that more is better):

    S[j, k] = f_j^T H^-1 g_k,

f_j and g_k the gradients of the mean loss per token on target j and on held-out text of domain k,
H^-1 one of `preconditioners`. The paper sums over a domain's samples; a mean keeps the domain's
size out. The J target gradients are held, in at least fp32; one domain at a time is streamed and
dropped. Beyond a plain forward and backward pass that takes the memory of J gradients where the
preconditioner acts on the target side, of J + 2 where it acts on the domain side.

Over R ranks, microbatch i is rank i mod R's. The target gradients are summed over ranks once. Where
S is linear in the domain's gradient, only dots with it are; where it is not, the gradient itself.
Standard errors: `sampling_error`.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from tikmix_hf import distributed
from tikmix_hf.signals import gradients, preconditioners, sampling_error
from tikmix_hf.signals.gradients import Gradient
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.signals.target_gradients import TargetGradients

__all__ = ["GroupInfluence", "InfluenceMatrix"]

# Shape letters: J targets, K domains, M microbatches of one of them, C columns of a ledger.
# A ledger has a row for every microbatch, zero on the ranks that did not see it: summed over ranks,
# it tells every rank the same about each.
_LOSS = 0  # nats, summed over tokens
_LOSS_TOKENS = 1
_TOKENS = 2
_CHECK = 3  # the sum of the gradient's elements, which is finite only if they all are
_NUM_COLUMNS = 4

Batches = Sequence[Mapping[str, Any]]


class GroupInfluence:
    """Measures influence on the live model, and leaves it as it was.

    Args:
        model: a causal language model; `model(**batch).loss` is the mean over the batch's loss
            tokens. DDP is looked through; sharded parameters are refused.
        preconditioner: one of `preconditioners.available()`.
        optimizer: the live optimizer; the Adam preconditioners read it at every measurement.
        damping: of the Adam preconditioners, relative to mean(sqrt(v)).

    Raises:
        ValueError: for an unknown preconditioner.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preconditioner: str = "sign",
        optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None = None,
        damping: float = 0.1,
    ) -> None:
        preconditioners.load(preconditioner)  # an unknown name fails here, not mid-training
        self.model = model.module if isinstance(model, DistributedDataParallel) else model
        self.preconditioner = preconditioner
        self.optimizer = optimizer
        self.damping = damping

    def measure(
        self,
        domain_batches: Mapping[str, Batches],
        target_batches: Mapping[str, Batches],
        *,
        progress: bool = False,
    ) -> InfluenceMatrix:
        """One measurement, the same on every rank.

        Args:
            domain_batches: held-out text of each domain, by name: a sequence of collated batches
                with `input_ids` and `labels`. Every rank is given all of them, indexes its own.
            target_batches: the same for each target.
            progress: show a bar on rank 0.

        Raises:
            ValueError: without domains or targets, for one without any loss token, for batches
                without labels, and as the preconditioner.
            TypeError: for one batch where a sequence of batches belongs.
            FloatingPointError: naming the first batch with a non-finite loss or gradient.
            RuntimeError: if ranks disagree on what is measured, or another rank failed.
        """
        started = time.perf_counter()
        num_batches = _check_batches(domain_batches, target_batches)
        with (
            gradients.undisturbed(self.model),
            tqdm(total=num_batches, disable=not progress or distributed.rank() > 0) as bar,
        ):
            measurement = _Measurement(self, len(target_batches), bar)
            ledgers_J = measurement.hold_targets(target_batches)
            if measurement.precondition.side == "target":
                parts_K = measurement.linear(domain_batches)
            else:
                parts_K = measurement.nonlinear(domain_batches)
        ledgers_K = [part.ledger_MC for part in parts_K]
        return InfluenceMatrix(
            values=np.stack([part.values_J for part in parts_K], axis=1),
            stderr=np.stack([part.stderr_J for part in parts_K], axis=1),
            targets=tuple(target_batches),
            domains=tuple(domain_batches),
            preconditioner=self.preconditioner,
            seconds=distributed.solve_on_rank_0(lambda: time.perf_counter() - started),
            num_tokens=int(sum(ledger[:, _TOKENS].sum() for ledger in ledgers_J + ledgers_K)),
            domain_losses=np.array([_mean_loss(ledger_MC) for ledger_MC in ledgers_K]),
            target_losses=np.array([_mean_loss(ledger_MC) for ledger_MC in ledgers_J]),
        )


class _Part(NamedTuple):
    """What all ranks together have measured of one domain."""

    ledger_MC: np.ndarray
    values_J: np.ndarray
    stderr_J: np.ndarray


class _Measurement:
    """The tensors of one measurement, which die with it."""

    def __init__(self, settings: GroupInfluence, num_targets: int, bar: tqdm) -> None:
        self.model, self.num_targets, self.bar = settings.model, num_targets, bar
        with distributed.FailTogether():
            self.parameters = gradients.trainable_parameters(self.model)
            self.precondition: Preconditioner = preconditioners.load(settings.preconditioner)(
                self.parameters, settings.optimizer, settings.damping
            )
            self.targets = TargetGradients(self.parameters, num_targets)

    def hold_targets(self, target_batches: Mapping[str, Batches]) -> list[np.ndarray]:
        """Fills `targets` with gradients of the mean loss per token; returns the ledgers."""
        ledgers_J = []
        with distributed.FailTogether():
            for j, (name, batches) in enumerate(target_batches.items()):
                add = functools.partial(_add_in_turn, [self.targets[j]])
                ledgers_J.append(self._walk(f"target {name!r}", batches, add))
        distributed.all_reduce_sum_([*self.targets.stacked_P, *ledgers_J])
        ledgers_JMC = [
            _read(f"target {name!r}", ledger)
            for name, ledger in zip(target_batches, ledgers_J, strict=True)
        ]
        for j, ledger_MC in enumerate(ledgers_JMC):
            for total in self.targets[j]:
                total /= ledger_MC[:, _LOSS_TOKENS].sum()
        return ledgers_JMC

    def linear(self, domain_batches: Mapping[str, Batches]) -> list[_Part]:
        """Every domain, where the dots of its microbatches add up to its own."""
        self.targets.precondition_(self.precondition)
        ledgers_K, dots_KMJ = [], []
        with distributed.FailTogether():
            for name, batches in domain_batches.items():
                dots_KMJ.append(self._float64(len(batches), self.num_targets))
                note = functools.partial(self._note_dots, dots_KMJ[-1])
                ledgers_K.append(self._walk(f"domain {name!r}", batches, note))
        distributed.all_reduce_sum_([*ledgers_K, *dots_KMJ])
        parts_K = []
        for name, ledger, dots_MJ in zip(domain_batches, ledgers_K, dots_KMJ, strict=True):
            ledger_MC = _read(f"domain {name!r}", ledger)
            estimate = sampling_error.ratio_estimate(
                dots_MJ.cpu().numpy(), ledger_MC[:, _LOSS_TOKENS]
            )
            parts_K.append(_Part(ledger_MC, *estimate))
        return parts_K

    def nonlinear(self, domain_batches: Mapping[str, Batches]) -> list[_Part]:
        """Every domain, where its gradient must be whole before it is preconditioned."""
        norms_J = self.targets.norms().cpu().numpy()
        with distributed.FailTogether():
            even_P, odd_P = (gradients.accumulator(self.parameters) for _ in range(2))
        parts_K = []
        for name, batches in domain_batches.items():
            for total in (*even_P, *odd_P):
                total.zero_()
            with distributed.FailTogether():
                add = functools.partial(_add_in_turn, [even_P, odd_P])
                ledger = self._walk(f"domain {name!r}", batches, add)
            distributed.all_reduce_sum_([*even_P, *odd_P, ledger])
            ledger_MC = _read(f"domain {name!r}", ledger)
            dots_3J = self.targets.dots_of_updates(self.precondition, even_P, odd_P)
            values_J, even_J, odd_J = dots_3J.cpu().numpy()
            tokens_M = ledger_MC[:, _LOSS_TOKENS]
            stderr_J = sampling_error.split_half(even_J, odd_J, norms_J, tokens_M)
            parts_K.append(_Part(ledger_MC, values_J, stderr_J))
        return parts_K

    def _walk(self, what: str, batches: Batches, absorb: Callable[[int, Gradient], None]) -> Tensor:
        """Gives `absorb` the gradients of this rank's microbatches; returns its ledger."""
        ledger_MC = self._float64(len(batches), _NUM_COLUMNS)
        for m in range(distributed.rank(), len(batches), distributed.world_size()):
            batch = batches[m]
            try:
                num_loss_tokens = gradients.num_loss_tokens(batch)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{what}, batch {m}: {error}") from error
            if num_loss_tokens:  # the mean over no token is not a number
                ledger_MC[m, _LOSS_TOKENS] = num_loss_tokens
                ledger_MC[m, _TOKENS] = batch["input_ids"].numel()
                self._pass(batch, ledger_MC[m], functools.partial(absorb, m))
            self.bar.update()
        return ledger_MC

    def _pass(
        self, batch: Mapping[str, Any], row_C: Tensor, absorb: Callable[[Gradient], None]
    ) -> None:
        """One forward and backward pass. On return nobody holds its gradient any more."""
        loss_sum, gradient_P = gradients.batch_gradient(self.model, self.parameters, batch)
        row_C[_LOSS] = loss_sum
        for gradient in gradient_P:
            if gradient is not None:
                row_C[_CHECK] += gradient.sum(dtype=torch.float32)
        absorb(gradient_P)

    def _note_dots(self, dots_MJ: Tensor, m: int, gradient_P: Gradient) -> None:
        dots_MJ[m] = self.targets.dots(gradient_P)

    def _float64(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self.parameters[0].device)


def _add_in_turn(sums: Sequence[list[Tensor]], m: int, gradient_P: Gradient) -> None:
    gradients.add_(sums[m % len(sums)], gradient_P)


def _read(what: str, ledger: Tensor) -> np.ndarray:
    """The summed ledger, checked; every rank holds the same one and so raises the same.

    Raises:
        FloatingPointError: naming the first batch with a non-finite loss or gradient.
        ValueError: if no batch has a loss token.
    """
    ledger_MC = ledger.cpu().numpy()
    for m, row_C in enumerate(ledger_MC):
        for column, quantity in ((_LOSS, "loss"), (_CHECK, "gradient")):
            if not np.isfinite(row_C[column]):
                raise FloatingPointError(f"{what}, batch {m}: the {quantity} is not finite.")
    if not ledger_MC[:, _LOSS_TOKENS].any():
        raise ValueError(
            f"{what} has no loss token in its {len(ledger_MC)} batches; give it text whose "
            f"`labels` are not all {gradients.IGNORED_LABEL}."
        )
    return ledger_MC


def _mean_loss(ledger_MC: np.ndarray) -> float:
    """Nats per token."""
    return ledger_MC[:, _LOSS].sum() / ledger_MC[:, _LOSS_TOKENS].sum()


def _check_batches(
    domain_batches: Mapping[str, Batches], target_batches: Mapping[str, Batches]
) -> int:
    """The number of batches, once every rank is known to have the same plan."""
    plan = []
    with distributed.FailTogether():
        for argument, parts in (
            ("domain_batches", domain_batches),
            ("target_batches", target_batches),
        ):
            if not parts:
                raise ValueError(
                    f"`{argument}` must name at least one sequence of batches; got none."
                )
            for name, batches in parts.items():
                if isinstance(batches, Mapping):
                    raise TypeError(
                        f"`{argument}`[{name!r}] must be a sequence of batches; got one batch. "
                        f"Put it in a list."
                    )
                plan.append((argument, name, len(batches)))
    distributed.check_identical("the names and numbers of batches", repr(plan).encode())
    return sum(num_batches for *_, num_batches in plan)
