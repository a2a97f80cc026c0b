"""One target's or domain's microbatches, walked through once, and the account of it.

Batches go in, their gradients are handed to whoever asked; out comes a `Part`: losses and tokens,
the same on every rank, or one error on every rank that names the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from tikmix_hf import distributed
from tikmix_hf.signals import gradients
from tikmix_hf.signals.gradients import Batches, Gradient
from tikmix_hf.signals.passes import Passes

# Shape letters: M microbatches, C columns of a ledger, G groups of microbatches whose gradients
# come as one sum. A ledger has a row for every microbatch, zero on the ranks that did not see it:
# summed over ranks, it tells every rank the same about each.
_LOSS = 0  # nats, summed over tokens
_LOSS_TOKENS = 1
_TOKENS = 2
_CHECK = 3  # the sum of the gradient's elements, which is finite only if they all are
_SQUARES = 4  # the gradient's squared norm
_NUM_COLUMNS = 5

Absorb = Callable[[int, Gradient], None]


class Part(NamedTuple):
    """What all ranks together have seen of one target or domain."""

    loss_tokens_G: np.ndarray
    num_tokens: int
    """Padding included."""
    mean_loss: float
    """Nats per token."""
    gradient_size: float
    """How large its gradients are beside those of other parts: root of the sum of their squares."""

    @property
    def batch_norm(self) -> float:
        """Root mean square, over microbatches, of the norm of a microbatch's mean gradient."""
        return self.gradient_size * float(np.count_nonzero(self.loss_tokens_G)) ** 0.5

    @property
    def num_loss_tokens(self) -> float:
        """All that the mean loss is a mean of."""
        return float(self.loss_tokens_G.sum())

    @property
    def halves(self) -> tuple[float, float]:
        """Loss tokens of the even and of the odd groups."""
        return float(self.loss_tokens_G[::2].sum()), float(self.loss_tokens_G[1::2].sum())


class Turn(NamedTuple):
    """One microbatch of this rank."""

    group: int
    number: int | None
    """None where this rank only keeps the others company."""
    batch: Mapping[str, Any]
    num_loss_tokens: int
    """Tokens whose loss counts; 0 where none does, and then every token of `batch` is a label,
    since the mean over no token is not a number."""


def turns(what: str, batches: Batches, passes: Passes) -> Iterator[Turn]:
    """This rank's microbatches, one after the other.

    Raises:
        ValueError, TypeError: for a batch that is not collated, named by `what` and its number.
    """
    for group, m in passes.turns(len(batches)):
        with passes.preparing():
            batch = batches[m or 0]
            try:
                num_loss_tokens = 0 if m is None else gradients.num_loss_tokens(batch)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{what}, batch {m}: {error}") from error
        if not num_loss_tokens:
            batch = {**batch, "labels": batch["input_ids"].clone()}
        yield Turn(group, m, batch, num_loss_tokens)


def walk(what: str, batches: Batches, passes: Passes, absorb: Absorb, bar: tqdm) -> Tensor:
    """Hands the gradients of this rank's microbatches to `absorb`, by group.

    Args:
        what: the name for messages, such as "domain 'web'".
        batches: all microbatches; only those whose turn is here are asked for.
        passes: how the model gives gradients.
        absorb: called with the number of the group and the gradient of its sum of token losses.
        bar: moved on by one for every microbatch.

    Returns:
        The ledger of this rank, to be summed over ranks and then `settle`d.
    """
    ledger_MC = torch.zeros(len(batches), _NUM_COLUMNS, dtype=torch.float64, device=passes.device)
    for group, m, batch, num_loss_tokens in turns(what, batches, passes):
        if num_loss_tokens:
            ledger_MC[m, _LOSS_TOKENS] = num_loss_tokens
            ledger_MC[m, _TOKENS] = gradients.num_tokens(batch)
            _pass(batch, passes, ledger_MC[m], functools.partial(absorb, group))
        elif passes.sharded:  # the other ranks wait for this one
            gradient_P = passes.gradient(batch, counts=False).gradient
            # It holds its shards of the group's gradient all the same.
            _note_gradient(gradient_P, ledger_MC[group * passes.lanes])
            absorb(group, gradient_P)
        bar.update()
    return ledger_MC


def _pass(
    batch: Mapping[str, Any], passes: Passes, row_C: Tensor, absorb: Callable[[Gradient], None]
) -> None:
    """One forward and backward pass. On return nobody holds its gradient any more."""
    loss_sum, gradient_P = passes.gradient(batch)
    row_C[_LOSS] = loss_sum
    _note_gradient(gradient_P, row_C)
    absorb(gradient_P)


def _note_gradient(gradient_P: Gradient, row_C: Tensor) -> None:
    for gradient in gradient_P:
        if gradient is not None:
            wide = torch.promote_types(gradient.dtype, torch.float32)
            row_C[_CHECK] += gradient.sum(dtype=wide)
            row_C[_SQUARES] += torch.linalg.vector_norm(gradient, dtype=wide).double().square()


def settle(what: str, ledger: Tensor, lanes: int) -> Part:
    """Reads a ledger that was summed over ranks; every rank returns, or raises, the same.

    Raises:
        FloatingPointError: naming the first batch with a non-finite loss or gradient.
        ValueError: if no batch has a loss token.
    """
    ledger_MC = ledger.cpu().numpy()
    for m, row_C in enumerate(ledger_MC):
        for column, quantity in ((_LOSS, "loss"), (_CHECK, "gradient")):
            if not np.isfinite(row_C[column]):
                raise FloatingPointError(f"{what}, batch {m}: the {quantity} is not finite.")
    loss_tokens_M = ledger_MC[:, _LOSS_TOKENS]
    if not loss_tokens_M.any():
        raise ValueError(
            f"{what} has no loss token in its {len(ledger_MC)} batches; give it text whose "
            f"`labels` are not all {gradients.IGNORED_LABEL}."
        )
    return Part(
        loss_tokens_G=np.add.reduceat(loss_tokens_M, np.arange(0, len(loss_tokens_M), lanes)),
        num_tokens=int(ledger_MC[:, _TOKENS].sum()),
        mean_loss=float(ledger_MC[:, _LOSS].sum() / loss_tokens_M.sum()),
        gradient_size=float(np.sqrt(ledger_MC[:, _SQUARES].sum()) / loss_tokens_M.sum()),
    )


def check_batches(
    domain_batches: Mapping[str, Batches], target_batches: Mapping[str, Batches]
) -> int:
    """The number of batches, once every rank is known to have the same plan.

    Raises:
        ValueError: without domains or targets.
        TypeError: for one batch where a sequence of batches belongs.
        RuntimeError: if ranks disagree on what is measured.
    """
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
