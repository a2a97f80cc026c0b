"""Measurement: which held-out text an update measures, and how.

In: settings, domains and targets; then the live model, update by update. Out: the influence of one
round of fresh rows, the losses of rows that an earlier update measured, and what an update is worth
in tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
from torch import nn

from tikmix_hf import distributed
from tikmix_hf.checks import check_count
from tikmix_hf.collate import PackedCollator
from tikmix_hf.domains import Domains
from tikmix_hf.rows import row_lengths
from tikmix_hf.signals import preconditioners
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix
from tikmix_hf.signals.losses import mean_losses
from tikmix_hf.signals.passes import open_passes
from tikmix_hf.signals.preconditioners import Preconditioner
from tikmix_hf.signals.selection import ALL, check_selection
from tikmix_hf.updates.heldout import Collator, HeldoutBatches, Portion, in_batches
from tikmix_hf.updates.plan import FORWARD_ONLY, LEAST_ROWS, Part

# Shape letters: J targets, R rounds.

# A round needs two microbatches of every part, or there is no standard error.
_LEAST_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Settings of a measurement.

    Raises:
        ValueError: names the setting, its value and the mend.
    """

    num_rounds: int = 4
    """Rounds of fresh rows that an update's rows are measured in, at most; 1 measures all rows at
    once, without noise guard. Fewer where a part has less than two rows for each."""
    tolerance: float = 0.02
    """Share of tokens that one more round may move for the rounds after it to be saved; 0 saves
    none."""
    audit: bool = True
    """Whether to check at each update what the last one predicted, on the same rows."""
    parameters: str = ALL
    """Which parameters gradients are taken by: "all", "lm_head", "last N blocks", or a regular
    expression for their names."""
    offload: bool = False
    """Whether the held gradients wait in CPU memory."""
    batch_size: int | None = None
    """Rows in a batch; None takes the training's, or fewer, so that every process has two batches
    of each part and round where there are rows enough."""
    data_collator: Collator = field(default_factory=PackedCollator)
    """Collates measured rows; labels that it leaves out are the tokens."""
    seed: int = 0
    """Decides which held-out rows each update reads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_rounds", check_count("num_rounds", self.num_rounds))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", check_count("batch_size", self.batch_size))
        if not 0 <= self.tolerance <= 1:
            raise ValueError(
                "`tolerance` must be a share of tokens in [0, 1]; got "
                f"{self.tolerance!r}. 0 measures every round."
            )
        check_selection(self.parameters)


class Measurer:
    """Reads held-out rows of domains and targets with the live model.

    Args:
        settings: how.
        domains: whose held-out rows are measured.
        targets: tokenised rows by name.
        preconditioner: stand-in for the inverse Hessian: "auto", by name, or with settings.
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
        progress: bool,
    ) -> None:
        self.settings, self.progress = settings, progress
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
        """What measuring the K domains and J targets costs, at the most.

        Args:
            num_rows: rows of each that an update measures; None where that is still open.
        """
        num_rounds = self._num_rounds(LEAST_ROWS if num_rows is None else num_rows)
        sides = (
            (self.domains, self._preconditioner_passes(num_rounds)),
            (self.targets, FORWARD_ONLY * self.settings.audit),
        )
        return tuple(
            Part(
                num_rows=len(rows),
                tokens_per_row=float(row_lengths(rows).mean()),
                extra_passes=extra_passes,
            )
            for parts, extra_passes in sides
            for rows in parts.values()
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
        if self.settings.num_rounds == 1 or num_rows >= 2 * _LEAST_ROWS:
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
