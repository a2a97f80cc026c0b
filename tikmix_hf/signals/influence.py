"""Group influence: how much a share of each domain would lower the loss on each target.

A model, K domains' and J targets' batches go in; an `InfluenceMatrix` comes out (Wang et al., TiKMiX,
arXiv 2508.17677, equations 1-8, with the sign turned so that more is better):

    S[j, k] = f_j^T H^-1 g_k,

f_j and g_k the gradients of the mean loss per token on target j and on held-out text of domain k, H^-1
one of `preconditioners`. The J target gradients are held (fp32), one domain is streamed at a time and
dropped. Beyond a plain forward and backward pass that costs J gradients of memory where the
preconditioner acts on the target side, J + 2 where it acts on the domain side.

Ranks: microbatch i is rank i mod R's. Target gradients and domain gradients that enter non-linearly are
summed over ranks; where S is linear in the domain's gradient only the dots are.

Standard errors speak of the domain side's sampling alone; the target gradients are taken as given.

* Linear in g_k (`identity`, `adam`): S is the ratio sum_m x_m / sum_m n_m over M microbatches, x_m the dot
  of the target with the microbatch's summed gradient and n_m its tokens, so that
  stderr^2 = M / (M - 1) * sum_m (x_m - S n_m)^2 / (sum_m n_m)^2 (Cochran, Sampling Techniques, 1977,
  equation 6.9). Nearly unbiased for microbatches that are drawn independently.
* Not linear (`sign`, `adam_unit`): S is computed from the even and from the odd microbatches too, and
  stderr^2 = |f_j|^2 * mean_j' ((S_even - S_odd)[j', k] / |f_j'|)^2 / 2. That is the variance of *half* the
  data. All the data has between half of it (where the gradient stands out of its noise, and averages
  as usual) and all of it (where noise decides the signs, which stay coins however many are averaged),
  so the standard error is conservative by up to a factor of sqrt(2). One difference, pooled over
  targets that may be alike: read it as an order of magnitude.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import get_total_norm
from tqdm.auto import tqdm

from tikmix_hf import distributed
from tikmix_hf.signals import gradients, preconditioners
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.signals.preconditioners import Preconditioner

# Shape letters: J targets, K domains, M microbatches of one domain or target, P parameters (a suffix
# _P is a list with one tensor per parameter), C columns of a ledger.

Batches = Sequence[Mapping[str, Any]]
Gradient = list[Tensor | None]
Absorb = Callable[[int, Gradient], None]

# The columns of a ledger, which has a row per microbatch that is zero on the ranks that did not see it:
# summed over ranks, every rank knows of every microbatch. Nats, tokens, tokens, largest |gradient|.
_LOSS, _LOSS_TOKENS, _TOKENS, _PEAK, _NUM_COLUMNS = range(5)


class GroupInfluence:
    """Measures influence on the live model, and leaves it as it was.

    Args:
        model: a causal language model whose forward returns an object with `.loss`, the mean over the
            batch's loss tokens. DDP is looked through; sharded parameters are refused.
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
            domain_batches: held-out text of each domain, by name: a sequence of collated batches with
                `input_ids` and `labels`. Every rank is given all of them and indexes its own.
            target_batches: the same for each target.
            progress: show a bar on rank 0.

        Raises:
            ValueError: without domains or targets, for one without any loss token, for batches
                without labels, and as the preconditioner.
            FloatingPointError: naming the first batch with a non-finite loss or gradient.
            RuntimeError: if ranks disagree on what is measured, or another rank failed.
        """
        started = time.perf_counter()
        _check_batches(domain_batches, target_batches)
        num_batches = sum(len(own) for own in [*domain_batches.values(), *target_batches.values()])
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
            domain_losses=np.array([_loss(ledger_MC) for ledger_MC in ledgers_K]),
            target_losses=np.array([_loss(ledger_MC) for ledger_MC in ledgers_J]),
        )


class _Part(NamedTuple):
    """What all ranks together have measured of one domain."""

    ledger_MC: np.ndarray
    values_J: np.ndarray
    stderr_J: np.ndarray


class _Measurement:
    """The tensors of one measurement; they die with it."""

    def __init__(self, settings: GroupInfluence, num_targets: int, bar: tqdm) -> None:
        self.model, self.num_targets, self.bar = settings.model, num_targets, bar
        self.reentrant = gradients.checkpoints_reentrantly(self.model)
        with distributed.FailTogether():
            self.parameters = gradients.trainable_parameters(self.model)
            self.precondition: Preconditioner = preconditioners.load(settings.preconditioner)(
                self.parameters, settings.optimizer, settings.damping
            )
            self.targets_PJ = self._zeros(num_targets)
        # Long enough to keep an accelerator busy, short enough that temporaries do not count.
        self.span_length = min(max(sum(p.numel() for p in self.parameters) // 64, 2**16), 2**22)

    def hold_targets(self, target_batches: Mapping[str, Batches]) -> list[np.ndarray]:
        """Fills `targets_PJ` with gradients of the mean loss per token; returns the ledgers."""
        ledgers_J = []
        with distributed.FailTogether():
            for j, (name, batches) in enumerate(target_batches.items()):
                sum_P = [target_J[j] for target_J in self.targets_PJ]
                ledgers_J.append(
                    self._walk(f"target {name!r}", batches, functools.partial(_add, [sum_P]))
                )
        distributed.all_reduce_sum_([*self.targets_PJ, *ledgers_J])
        ledgers_JMC = [
            _read(f"target {name!r}", ledger)
            for name, ledger in zip(target_batches, ledgers_J, strict=True)
        ]
        for j, ledger_MC in enumerate(ledgers_JMC):
            for target_J in self.targets_PJ:
                target_J[j] /= ledger_MC[:, _LOSS_TOKENS].sum()
        return ledgers_JMC

    def linear(self, domain_batches: Mapping[str, Batches]) -> list[_Part]:
        """Every domain, where the dots of its microbatches add up to its own."""
        for p, span in self._spans():
            target_Jn = self.targets_PJ[p].flatten(1)[:, span]
            target_Jn.copy_(self.precondition(target_Jn, p, span))
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
            estimate = _ratio(dots_MJ.cpu().numpy(), ledger_MC[:, _LOSS_TOKENS])
            parts_K.append(_Part(ledger_MC, *estimate))
        return parts_K

    def nonlinear(self, domain_batches: Mapping[str, Batches]) -> list[_Part]:
        """Every domain, where its gradient must be whole before it is preconditioned."""
        norms_J = torch.stack(
            [
                get_total_norm([target_J[j] for target_J in self.targets_PJ])
                for j in range(self.num_targets)
            ]
        )
        halves = [self._zeros(), self._zeros()]
        parts_K = []
        for name, batches in domain_batches.items():
            torch._foreach_zero_([*halves[0], *halves[1]])
            with distributed.FailTogether():
                ledger = self._walk(f"domain {name!r}", batches, functools.partial(_add, halves))
            distributed.all_reduce_sum_([*halves[0], *halves[1], ledger])
            ledger_MC = _read(f"domain {name!r}", ledger)
            whole_J, even_J, odd_J = self._dots_of_updates(halves).cpu().numpy()
            split = all(ledger_MC[half::2, _LOSS_TOKENS].any() for half in (0, 1))
            stderr_J = _pooled(even_J - odd_J, norms_J.cpu().double().numpy())
            parts_K.append(
                _Part(ledger_MC, whole_J, stderr_J if split else np.full_like(stderr_J, np.nan))
            )
        return parts_K

    def _walk(self, what: str, batches: Batches, absorb: Absorb) -> Tensor:
        """Passes this rank's microbatches through the model and `absorb`; returns its ledger."""
        ledger_MC = self._float64(len(batches), _NUM_COLUMNS)
        for m in range(distributed.rank(), len(batches), distributed.world_size()):
            batch = batches[m]
            try:
                num_loss_tokens = gradients.num_loss_tokens(batch)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{what}, batch {m}: {error}") from error
            if num_loss_tokens:
                ledger_MC[m, _LOSS_TOKENS] = num_loss_tokens
                ledger_MC[m, _TOKENS] = batch["input_ids"].numel()
                self._pass(batch, ledger_MC[m], functools.partial(absorb, m))
            self.bar.update()
        return ledger_MC

    def _pass(self, batch: Mapping[str, Any], row_C: Tensor, absorb: Callable[..., None]) -> None:
        """One forward and backward pass; on return nothing holds the gradient any more."""
        loss_sum, gradient_P = gradients.batch_gradient(
            self.model, self.parameters, batch, reentrant=self.reentrant
        )
        row_C[_LOSS] = loss_sum
        present = [gradient for gradient in gradient_P if gradient is not None]
        row_C[_PEAK] = get_total_norm(present, norm_type=torch.inf)
        absorb(gradient_P)

    def _note_dots(self, dots_MJ: Tensor, m: int, gradient_P: Gradient) -> None:
        """dots_MJ[m, j] = target j . gradient, in fp32 pieces that float64 adds up."""
        for p, span in self._spans():
            gradient = gradient_P[p]
            if gradient is not None:
                dots_MJ[m] += self._dot(p, span, gradient.reshape(-1)[span])

    def _dots_of_updates(self, halves: Sequence[list[Tensor]]) -> Tensor:
        """(3, J): targets . preconditioned gradient of all the data, its even and its odd half."""
        dots_3J, squares_3 = self._float64(3, self.num_targets), self._float64(3)
        for p, span in self._spans():
            even_n, odd_n = (half_P[p].view(-1)[span] for half_P in halves)
            for i, gradient_n in enumerate((even_n + odd_n, even_n, odd_n)):
                update_n = self.precondition(gradient_n, p, span)
                dots_3J[i] += self._dot(p, span, update_n)
                squares_3[i] += update_n.square().sum()
        return dots_3J / squares_3.sqrt()[:, None] if self.precondition.unit_norm else dots_3J

    def _dot(self, p: int, span: slice, piece_n: Tensor) -> Tensor:
        """(J,) targets . piece. Not a matrix product: those may run in TF32."""
        return (self.targets_PJ[p].flatten(1)[:, span] * piece_n).sum(1)

    def _spans(self) -> Iterator[tuple[int, slice]]:
        """Every parameter's position, and slices that cover its flattened elements."""
        for p, parameter in enumerate(self.parameters):
            for start in range(0, parameter.numel(), self.span_length):
                yield p, slice(start, start + self.span_length)

    def _zeros(self, *leading: int) -> list[Tensor]:
        """Accumulators for every parameter: fp32, or float64 where the parameter is."""
        return [
            torch.zeros(
                *leading,
                *parameter.shape,
                dtype=torch.promote_types(parameter.dtype, torch.float32),
                device=parameter.device,
            )
            for parameter in self.parameters
        ]

    def _float64(self, *shape: int) -> Tensor:
        return torch.zeros(*shape, dtype=torch.float64, device=self.parameters[0].device)


def _add(sums: Sequence[list[Tensor]], m: int, gradient_P: Gradient) -> None:
    """Adds microbatch m to the sum that is its turn."""
    pairs = [
        (total, gradient)
        for total, gradient in zip(sums[m % len(sums)], gradient_P, strict=True)
        if gradient is not None
    ]
    torch._foreach_add_(*map(list, zip(*pairs, strict=True)))


def _read(what: str, ledger: Tensor) -> np.ndarray:
    """The reduced ledger, checked; every rank holds the same and so raises the same.

    Raises:
        FloatingPointError: naming the first batch with a non-finite loss or gradient.
        ValueError: if no batch has a loss token.
    """
    ledger_MC = ledger.cpu().numpy()
    for m, row_C in enumerate(ledger_MC):
        for column, quantity in ((_LOSS, "loss"), (_PEAK, "gradient")):
            if not np.isfinite(row_C[column]):
                raise FloatingPointError(f"{what}, batch {m}: the {quantity} is not finite.")
    if not ledger_MC[:, _LOSS_TOKENS].any():
        raise ValueError(
            f"{what} has no loss token in its {len(ledger_MC)} batches; give it text whose `labels` "
            f"are not all {gradients.IGNORED_LABEL}."
        )
    return ledger_MC


def _loss(ledger_MC: np.ndarray) -> float:
    """Mean nats per token."""
    return ledger_MC[:, _LOSS].sum() / ledger_MC[:, _LOSS_TOKENS].sum()


def _ratio(dots_MJ: np.ndarray, tokens_M: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sum of dots / sum of tokens and its standard error, both (J,); see the module's docstring."""
    values_J = dots_MJ.sum(0) / tokens_M.sum()
    num_samples = np.count_nonzero(tokens_M)
    if num_samples < 2:
        return values_J, np.full_like(values_J, np.nan)
    squares_J = np.square(dots_MJ - tokens_M[:, None] * values_J).sum(0)
    return values_J, np.sqrt(num_samples / (num_samples - 1) * squares_J) / tokens_M.sum()


def _pooled(differences_J: np.ndarray, norms_J: np.ndarray) -> np.ndarray:
    """Standard errors (J,) from the difference of two halves; see the module's docstring."""
    known = norms_J > 0  # a target without gradient has no influence to be unsure of
    relative = np.square(differences_J[known] / norms_J[known])
    return norms_J * np.sqrt(relative.mean() / 2) if known.any() else norms_J


def _check_batches(domain_batches: Mapping[str, Batches], target_batches: Mapping[str, Batches]):
    """Same names and numbers of batches on every rank, at least one of each."""
    plan = []
    for argument, parts in (("domain_batches", domain_batches), ("target_batches", target_batches)):
        if not parts:
            raise ValueError(f"`{argument}` must name at least one; got none.")
        for name, batches in parts.items():
            if isinstance(batches, Mapping):
                raise TypeError(
                    f"`{argument}`[{name!r}] must be a sequence of batches; got one batch. Put it "
                    f"in a list."
                )
            plan.append((argument, name, len(batches)))
    distributed.check_identical("the names and numbers of batches", repr(plan).encode())
