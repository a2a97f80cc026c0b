"""Dry run: influence on a model as it is, without training it.

In: a loaded model (or several checkpoints), domains and targets. Out: the `InfluenceMatrix` of
held-out rows, measured in rounds of fresh rows. What mixers make of it: `proposals.py`.

Several checkpoints are weighted as AutoMixer weights them (ACL 2025, arXiv
2506.21910): I_joint = sum_c weight_c I(checkpoint c). Unlike there, each target's row is first
divided by its largest magnitude beyond the mixture in force, because gradients shrink as a model
trains: otherwise the least trained checkpoint would outweigh the others whatever the weights say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray

from tikmix_hf.checks import check_count
from tikmix_hf.collate import PackedCollator
from tikmix_hf.commands.gains import scales
from tikmix_hf.domains import Domains
from tikmix_hf.signals.influence import GroupInfluence, InfluenceMatrix
from tikmix_hf.updates.heldout import HeldoutBatches, Portion, in_batches

# Shape letters: J targets, K domains, R rounds, C checkpoints.


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """Which held-out rows are measured.

    Raises:
        ValueError: names the setting, its value and the mend.
    """

    num_rows: int = 64
    """Rows of each domain and target, over all rounds."""
    num_rounds: int = 4
    """Rounds, each of rows of its own."""
    batch_size: int = 8
    """Rows in a batch, at most."""
    seed: int = 0
    """Draws the rows."""
    progress: bool = False
    """Whether to show a bar."""

    def __post_init__(self) -> None:
        for name in ("num_rows", "num_rounds", "batch_size"):
            check_count(name, getattr(self, name))
        if self.num_rows < self.num_rounds:
            raise ValueError(
                f"`num_rows` must give each of {self.num_rounds} rounds a row; got "
                f"{self.num_rows}. Raise it, or lower `num_rounds`."
            )

    def batches(self, parts: Mapping[str, Dataset], round_: int) -> dict[str, HeldoutBatches]:
        """Returns the batches of one round, by name.

        A part with fewer rows than `num_rows` deals those it has out to the rounds.

        Raises:
            ValueError: a part has fewer rows than there are rounds.
        """
        for name, rows in parts.items():
            if len(rows) < self.num_rounds:
                raise ValueError(
                    f"`num_rounds` must be at most the held-out rows of {name!r}, {len(rows)}; got "
                    f"{self.num_rounds}. Hold out more (`heldout`), or lower `num_rounds`."
                )
        return in_batches(
            parts,
            Portion(0, self.num_rows, round_, self.num_rounds),
            most_rows=self.batch_size,
            least_batches=2,
            collate=PackedCollator(),
            seed=self.seed,
        )


def measure(
    engine: GroupInfluence, domains: Domains, targets: Mapping[str, Dataset], reading: Reading
) -> InfluenceMatrix:
    """Measures all rounds; the same on every rank.

    Raises:
        ValueError: too few held-out rows, too little memory, and as `GroupInfluence.measure`.
    """
    heldout = {domain.name: domain.heldout for domain in domains}
    rounds = []
    try:
        for round_ in range(reading.num_rounds):
            matrix = engine.measure(
                reading.batches(heldout, round_),
                reading.batches(targets, round_),
                refit=round_ == 0,
                progress=reading.progress,
            )
            rounds.append(matrix)
    except torch.OutOfMemoryError as err:
        raise ValueError(
            "the measurement does not fit into memory. Lower --batch_size, hold the targets' "
            'gradients elsewhere (--offload), or measure fewer parameters (--parameters "last 2 '
            'blocks").'
        ) from err
    return InfluenceMatrix.mean(rounds)


def aggregate(
    matrices: Sequence[InfluenceMatrix], weights: Sequence[float] | None, mixture: NDArray[Any]
) -> InfluenceMatrix:
    """Returns the weighted mean over checkpoints, target by target in a unit of its own.

    The checkpoints were measured on the same rows, so their errors may agree: they add, and not
    their squares, which is an upper bound. Round r of the mean is the mean of all rounds r.

    Args:
        matrices: one of each checkpoint; a single one is returned as it is.
        weights: one of each, scaled to sum to 1; None weighs them alike.
        mixture: (K,) the mixture in force.

    Raises:
        ValueError: `weights` are not one number of each, not negative and not all zero.
    """
    if len(matrices) == 1:
        return matrices[0]
    weights = [1.0] * len(matrices) if weights is None else weights
    units = [_unit_rows(matrix, mixture) for matrix in matrices]
    mean = InfluenceMatrix.mean(units, weights)
    shares_C = np.array(weights) / np.sum(weights)

    def total(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.tensordot(shares_C, np.stack(arrays), axes=1)

    rounds = [unit.rounds for unit in units if unit.rounds is not None]
    return dataclasses.replace(
        mean,
        domain_stderr=total([unit.domain_stderr for unit in units]),
        target_stderr=total([unit.target_stderr for unit in units]),
        rounds=total(rounds) if len(rounds) == len(units) else None,
    )


def _unit_rows(matrix: InfluenceMatrix, mixture_K: NDArray[Any]) -> InfluenceMatrix:
    """Every row divided by its largest magnitude beyond the mixture in force."""
    scale_J1 = scales(matrix.values, mixture_K)[:, None]
    return dataclasses.replace(
        matrix,
        values=matrix.values / scale_J1,
        domain_stderr=matrix.domain_stderr / scale_J1,
        target_stderr=matrix.target_stderr / scale_J1,
        rounds=None if matrix.rounds is None else matrix.rounds / scale_J1,
    )
