"""Measurer: reads held-out text with the live model.

In: settings, domains and targets, what the mixer needs; then the live model, update by update. Out:
the influence of one round of fresh rows, losses by forward passes alone, and what an update is
worth in tokens.
"""

# Shape letters: J targets, K domains, R rounds, N mixtures.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.domains import Domains
from tikmix_hf.rows import row_lengths
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.excess import mean_excess_losses
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix
from tikmix_hf.signals.lookahead import LookaheadLosses, StepsAhead
from tikmix_hf.signals.losses import Losses, mean_losses
from tikmix_hf.signals.passes import open_passes
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.updates.heldout import HeldoutBatches, Portion, in_batches
from tikmix_hf.updates.measurement import Measurement
from tikmix_hf.updates.needs import INFLUENCE, Needs
from tikmix_hf.updates.plan import LEAST_ROWS, Part

# A round needs two microbatches of every part, or there is no standard error.
_LEAST_ROWS = 2


class Measurer:
    """Reads held-out rows of domains and targets with the live model.

    Args:
        settings: how.
        domains: whose held-out rows are measured.
        targets: tokenised rows by name.
        preconditioner: stand-in for the inverse Hessian: "auto", by name, or with settings.
        needs: what is measured at an update.
        reference: the model that excess losses are taken against.
        progress: show a bar.

    Attributes:
        num_rows: rows of each part an update measures; to be set before the first.
        per_device: rows in a batch of the training; to be set before the first update.
        progress: show a bar.
        num_tokens: read so far in rounds that went well.
    """

    def __init__(
        self,
        settings: Measurement,
        domains: Domains,
        targets: Mapping[str, datasets.Dataset],
        *,
        preconditioner: str | Preconditioner,
        needs: Needs = INFLUENCE,
        reference: nn.Module | None = None,
        progress: bool,
    ) -> None:
        self.settings, self.progress = settings, progress
        self.needs, self.reference = needs, reference
        self.domains = {domain.name: domain.heldout for domain in domains}
        self.targets = dict(targets)
        self.preconditioner = preconditioner
        # An unknown name fails here; whether the model is sharded is known at `check`.
        self._chosen = preconditioners.choose(preconditioner, sharded=False)
        self._optimizer: Any = None
        self.num_rows = self.per_device = 1
        self.num_tokens = 0
        self._engine: GroupInfluence | None = None

    def parts(self, num_rows: int | None) -> tuple[Part, ...]:
        """What measuring the K domains and J targets costs, at the most; those that cost anything.

        Args:
            num_rows: rows of each that an update measures; None where that is still open.
        """
        num_rounds = self._num_rounds(LEAST_ROWS if num_rows is None else num_rows)
        domain_passes = self.needs.domain_passes(
            self._preconditioner_passes(num_rounds), num_rounds
        )
        target_passes = self.needs.target_passes(num_rounds, audit=self.settings.audit)
        return tuple(
            Part(
                num_rows=len(rows),
                tokens_per_row=float(row_lengths(rows).mean()),
                passes=passes,
            )
            for parts, passes in ((self.domains, domain_passes), (self.targets, target_passes))
            for rows in parts.values()
            if passes
        )

    def _preconditioner_passes(self, num_rounds: int) -> float:
        """What the preconditioner reads of a domain's rows of an update, in passes over them.

        A fit reads text of the first round; what is applied in every round reads that text again.
        """
        own = self._chosen
        least = 1 if self.settings.batch_size else self._usual_batches()
        # Whole batches are read, of which a share of few may be more than the same of many.
        lengths = range(least, 2 * least + 2)
        fit_passes = max(own.fit_passes(length, self._optimizer) for length in lengths)
        apply_passes = max(own.apply_passes(length) for length in lengths)
        num_applied = 2 * min(len(self.domains), len(self.targets))
        return fit_passes / num_rounds / own.refresh_updates + num_applied * apply_passes

    @property
    def warning(self) -> str | None:
        """Which part has too few rows for a second round, where more are asked; None for none."""
        parts = {
            **{f"held-out domain {name!r}": rows for name, rows in self.domains.items()},
            **{f"target {name!r}": rows for name, rows in self.targets.items()},
        }
        name, num_rows = min(
            ((n, len(rows)) for n, rows in parts.items()), key=lambda part: part[1]
        )
        is_enough = self.settings.num_rounds == 1 or num_rows >= 2 * _LEAST_ROWS
        if is_enough or not self.needs.gradients:
            return None
        return (
            f"`num_rounds` {self.settings.num_rounds} becomes 1 for all parts, so without noise "
            f"guard: {name} has {num_rows} rows, and every round needs {_LEAST_ROWS}. Give it at "
            f"least {self.settings.num_rounds * _LEAST_ROWS}, or leave it out."
        )

    def check(self, model: nn.Module, optimizer: Any) -> None:
        """Refuses what no update could measure.

        Args:
            model: the live model.
            optimizer: the live optimizer; before its first step it cannot tell all.

        Raises:
            ValueError: names `parameters`, `preconditioner` or `model`, and the mend.
        """
        if not self.needs.gradients:
            return
        passes = open_passes(model, self.settings.parameters)
        self._chosen = preconditioners.choose(self.preconditioner, sharded=passes.sharded)
        self._optimizer = optimizer
        self._chosen.check(sharded=passes.sharded, optimizer=optimizer)

    def portions(self, update: int) -> tuple[Portion, ...]:
        """The rounds of an update, which has that many others before it."""
        num_rounds = self._num_rounds(self.num_rows)
        return tuple(
            Portion(update, self.num_rows, number, num_rounds) for number in range(num_rounds)
        )

    def _num_rounds(self, num_rows: int) -> int:
        """Of an update of so many rows of each part."""
        fewest = min(num_rows, *map(len, (*self.domains.values(), *self.targets.values())))
        return min(self.settings.num_rounds, max(1, fewest // _LEAST_ROWS))

    def measure(self, model: nn.Module, optimizer: Any, portion: Portion) -> InfluenceMatrix:
        """Measures one round; the same on every rank.

        The preconditioner is fitted in the first round of every `refresh_updates`-th update, and in
        this process's first round.

        Args:
            model: the live model, left as it was.
            optimizer: the live optimizer.
            portion: the round.
        """
        if self._engine is None:
            self._engine = GroupInfluence(
                model,
                preconditioner=self.preconditioner,
                optimizer=optimizer,
                parameters=self.settings.parameters,
                offload=self.settings.offload,
            )
        refresh = self._engine.preconditioner.refresh_updates
        matrix = self._engine.measure(
            self._batches(self.domains, portion),
            self._batches(self.targets, portion),
            refit=portion.round == 0 and portion.update % refresh == 0,
            progress=self.progress,
        )
        self.num_tokens += matrix.num_tokens
        return matrix

    def release(self) -> None:
        """Drops a fit that serves one update alone, and its memory."""
        if self._engine and self._engine.preconditioner.refresh_updates == 1:
            self.forget()

    def forget(self) -> None:
        """Drops what was fitted, and with it the model."""
        self._engine = None

    def target_losses(
        self, model: nn.Module, portions: Sequence[Portion]
    ) -> tuple[np.ndarray, int]:
        """Reads the targets' rows of some rounds once more, forward.

        Returns:
            (R, J) mean loss per token, and the tokens read by all ranks.
        """
        rounds = [mean_losses(model, self._batches(self.targets, portion)) for portion in portions]
        return np.stack([losses.means for losses in rounds]), sum(r.num_tokens for r in rounds)

    def probe_losses(self, model: nn.Module, update: int) -> Losses:
        """(J,) mean loss per token of the targets' rows of an update."""
        return mean_losses(model, self._batches(self.targets, self._whole(update)))

    def excess_losses(self, model: nn.Module, update: int) -> Losses:
        """(K,) mean excess loss per token of the domains' rows of an update."""
        assert self.reference is not None
        batches = self._batches(self.domains, self._whole(update))
        return mean_excess_losses(model, self.reference, batches)

    def losses_ahead(self, update: int, ahead: StepsAhead) -> LookaheadLosses:
        """(N, J) losses a step ahead, of the model that the last round measured."""
        assert self._engine is not None
        portion = self.portions(update)[0]
        return self._engine.losses_ahead(
            self._batches(self.domains, portion),
            self._batches(self.targets, portion),
            ahead,
            progress=self.progress,
        )

    def _whole(self, update: int) -> Portion:
        """All rows of an update at once."""
        return Portion(update, self.num_rows)

    def identity(self) -> dict[str, Any]:
        """Which rows and batches an update reads, beside what its portions say."""
        return {"seed": self.settings.seed, "batch_size": self.settings.batch_size}

    def _batches(
        self, parts: Mapping[str, datasets.Dataset], portion: Portion
    ) -> dict[str, HeldoutBatches]:
        return in_batches(
            parts,
            portion,
            most_rows=self.settings.batch_size or self.per_device,
            least_batches=1 if self.settings.batch_size else self._usual_batches(),
            collate=self.settings.data_collator,
            seed=self.settings.seed,
        )

    @staticmethod
    def _usual_batches() -> int:
        """Of every part and round, at least: two for each process."""
        return 2 * distributed.world_size()
