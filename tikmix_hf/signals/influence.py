"""Group influence: how much a share of each domain would lower the loss on each target.

A model, K domains' and J targets' batches go in; an `InfluenceMatrix` comes out (Wang et al.,
TiKMiX, arXiv 2508.17677, 2025, equations 1-8, with the sign turned so that more is better):

    S[j, k] = f_j^T H^-1 g_k,

f_j and g_k the gradients of the mean loss per token on target j and on held-out text of domain k,
H^-1 one of `preconditioners`. The paper sums over a domain's samples; a mean keeps the domain's
size out. The gradients of the fewer side are held while the other side's stream past, one at a time
(`pairing.py`). How a model gives gradients, and how ranks share the work: `passes.py`. Standard
errors: `sampling_error.py`.

Memory beyond a plain forward and backward pass, in fp32 gradients of the selected parameters (a
rank's shards of them, where the model is sharded): 1.5 J + 1 with J <= K targets held; with fewer
domains 1.5 K + 1, or 2 K + 1 where the preconditioner is not linear. `kfac` adds
2 (I^2 + O^2 + I O) numbers for a Linear layer of I x O while it is fitted, `ggn` some gradients.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from tqdm.auto import tqdm

from tikmix_hf import distributed
from tikmix_hf.signals import gradients, preconditioners
from tikmix_hf.signals.gradients import Batches
from tikmix_hf.signals.lookahead import LookaheadLosses, StepsAhead, losses_ahead
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.signals.pairing import Found, Pairing
from tikmix_hf.signals.passes import Passes, bare, is_sharded, open_passes
from tikmix_hf.signals.preconditioners import Apply, Fitting, Preconditioner
from tikmix_hf.signals.selection import ALL, check_selection
from tikmix_hf.signals.walk import check_batches

__all__ = ["GroupInfluence", "InfluenceMatrix"]


class GroupInfluence:
    """Measures influence on the live model, and leaves it as it was.

    Args:
        model: a causal language model; `model(**batch).loss` is the mean over the batch's loss
            tokens. DDP, torch.compile and DeepSpeed's engine are looked through; the shards of
            FSDP2 and ZeRO-3 stay where they are.
        preconditioner: "auto", which is `kfac` or, for a sharded model, `sign`; one of
            `preconditioners.available()`; or one with settings of your own.
        optimizer: the live optimizer; the Adam preconditioners and `ggn` read it.
        parameters: which parameters to measure on: "all", "lm_head", "last N blocks", or a regular
            expression for their names.
        offload: keep the held gradients in CPU memory.

    Raises:
        ValueError: for an unknown preconditioner or a malformed selection of parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preconditioner: str | Preconditioner = preconditioners.AUTO,
        optimizer: torch.optim.Optimizer | AcceleratedOptimizer | None = None,
        parameters: str = ALL,
        offload: bool = False,
    ) -> None:
        check_selection(parameters)
        self.model = bare(model)
        # An unknown name fails here, not mid-training.
        self.preconditioner = preconditioners.choose(preconditioner, sharded=is_sharded(self.model))
        self.optimizer = optimizer
        self.parameters, self.offload = parameters, offload
        self._apply: Apply | None = None
        self._apply_tokens = 0.0  # read for each gradient that it is applied to

    def measure(
        self,
        domain_batches: Mapping[str, Batches],
        target_batches: Mapping[str, Batches],
        *,
        refit: bool = True,
        progress: bool = False,
    ) -> InfluenceMatrix:
        """One measurement, the same on every rank.

        Args:
            domain_batches: held-out text of each domain, by name: a sequence of collated batches
                with `input_ids` and `labels`. Every rank is given all of them, indexes its own.
            target_batches: the same for each target.
            refit: fit the preconditioner to the model as it is now; otherwise the last fit serves.
            progress: show a bar on rank 0.

        Raises:
            ValueError: without domains or targets, for one without any loss token, for batches
                without labels, for a model sharded in a way that is not supported, and as the
                preconditioner.
            TypeError: for one batch where a sequence of batches belongs.
            FloatingPointError: naming the first batch with a non-finite loss or gradient.
            RuntimeError: if ranks disagree on what is measured, or another rank failed.
        """
        started = time.perf_counter()
        num_batches = check_batches(domain_batches, target_batches)
        fits = refit or self._apply is None
        with self._pairing(domain_batches, num_batches, fits=fits, progress=progress) as pairing:
            fewer_domains = len(domain_batches) < len(target_batches)
            pair = pairing.domains_held if fewer_domains else pairing.targets_held
            found = pair(domain_batches, target_batches)
        own_tokens = self._own_tokens(domain_batches, found, fits=fits)
        parts = [*found.targets_J, *found.domains_K]
        return InfluenceMatrix(
            values=found.values_JK,
            domain_stderr=found.domain_stderr_JK,
            target_stderr=found.target_stderr_JK,
            targets=tuple(target_batches),
            domains=tuple(domain_batches),
            preconditioner=self.preconditioner.name,
            seconds=distributed.solve_on_rank_0(lambda: time.perf_counter() - started),
            num_tokens=sum(part.num_tokens for part in parts) + round(own_tokens),
            domain_losses=np.array([part.mean_loss for part in found.domains_K]),
            target_losses=np.array([part.mean_loss for part in found.targets_J]),
            gradient_norms=np.array([part.batch_norm for part in found.domains_K]),
        )

    def losses_ahead(
        self,
        domain_batches: Mapping[str, Batches],
        target_batches: Mapping[str, Batches],
        ahead: StepsAhead,
        *,
        progress: bool = False,
    ) -> LookaheadLosses:
        """The targets' losses a step ahead, with the preconditioner of the last measurement.

        Args:
            domain_batches: as for `measure`.
            target_batches: as for `measure`.
            ahead: the mixtures, and how long the step is.
            progress: show a bar on rank 0.

        Raises:
            ValueError: as `measure`; for a sharded model.
            FloatingPointError: as `measure`; a loss a step ahead is not finite.
        """
        check_batches(domain_batches, target_batches)
        num_batches = sum(map(len, domain_batches.values()))
        fits = self._apply is None
        with self._pairing(domain_batches, num_batches, fits=fits, progress=progress) as pairing:
            return losses_ahead(pairing.passes, pairing, domain_batches, target_batches, ahead)

    @contextmanager
    def _pairing(
        self, domain_batches: Mapping[str, Batches], num_batches: int, *, fits: bool, progress: bool
    ) -> Iterator[Pairing]:
        """Opens the model and fits the preconditioner; afterwards the model is what it was."""
        hidden = not progress or distributed.rank() > 0
        with (
            gradients.undisturbed(self.model),
            ExitStack() as stack,
            tqdm(total=num_batches, desc="influence", leave=False, disable=hidden) as bar,
        ):
            with distributed.FailTogether():
                passes = open_passes(self.model, self.parameters)
                self.preconditioner.check(sharded=passes.sharded, optimizer=self.optimizer)
            stack.enter_context(passes.undisturbed())
            if fits:
                self._apply = None  # two fits are never held, nor an old one used where a new fails
                self._apply = self._fit(passes, domain_batches)
            assert self._apply is not None
            is_linear = self.preconditioner.side == "target"
            yield Pairing(passes, self._apply, linear=is_linear, offload=self.offload, bar=bar)

    def _own_tokens(
        self, domain_batches: Mapping[str, Batches], found: Found, *, fits: bool
    ) -> float:
        """Tokens that the preconditioner has read, in forward and backward passes."""
        lengths_K = [len(batches) for batches in domain_batches.values()]
        tokens_K = [part.num_tokens for part in found.domains_K]
        own = self.preconditioner
        fit_tokens = 0.0
        if fits:
            text = list(zip(lengths_K, tokens_K, strict=True))
            fit_tokens = sum(
                own.fit_passes(length, self.optimizer) * tokens for length, tokens in text
            )
            self._apply_tokens = sum(own.apply_passes(length) * tokens for length, tokens in text)
        # What is held is preconditioned whole and by one half.
        num_applied = 2 * min(len(found.targets_J), len(found.domains_K))
        return fit_tokens + num_applied * self._apply_tokens

    def _fit(self, passes: Passes, domain_batches: Mapping[str, Batches]) -> Apply:
        fitting = Fitting(
            model=passes.model,
            parameters=passes.parameters,
            optimizer=self.optimizer,
            batches=domain_batches,
            total=passes.total,
            sharded=passes.sharded,
        )
        return self.preconditioner.fit(fitting)
