"""Models of the reproductions: trained on a mixture, and asked for their influence.

In: a `Setting`, its text, a mixture, a seed. Out: a Llama with the mean of its last weights, the
weights at steps on the way, or an `InfluenceMatrix` from rows that are dealt out once. Runs of one
seed share initialisation and order of rows, so that only their mixtures differ.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from arena_data import ArenaText
from arena_judge import CurveCallback
from arena_training import make_model, train
from datasets import Dataset
from torch import Tensor
from transformers import LlamaForCausalLM, TrainerCallback

from reproduce.study import Setting
from tikmix_hf import GroupInfluence, InfluenceMatrix, InterleavedDomainDataset

# J targets, K domains, N rows, T tokens of a row.

PRECONDITIONER = "kfac"
BATCH_ROWS = 8
AVERAGE_STEPS = 50
"""Last steps whose weights are averaged, as in the arena."""
Batches = dict[str, list[dict[str, Tensor]]]
Weights = Mapping[str, Tensor]


class Trained(NamedTuple):
    """A run."""

    model: LlamaForCausalLM
    """With the mean of the last weights."""
    kept: dict[int, dict[str, Tensor]]
    """Weights at the steps that were asked for."""
    cost: dict[str, float]
    """`tokens`, `flops`, `seconds` and `num_parameters`."""


class KeepWeights(TrainerCallback):
    """Keeps a copy of the weights at some steps.

    Args:
        steps: which.

    Attributes:
        kept: copies by step.
    """

    def __init__(self, steps: Collection[int]) -> None:
        self.steps = frozenset(steps)
        self.kept: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Copies them where a step is due."""
        if state.global_step in self.steps:
            self.kept[state.global_step] = copy.deepcopy(kwargs["model"].state_dict())


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What makes a run, beside its mixture."""

    seed: int
    """Of initialisation and order of rows."""
    steps: int | None = None
    """Optimizer steps; None: the setting's."""
    start: Weights | None = None
    """Weights to go on from; None: a fresh initialisation."""
    keep: Collection[int] = ()
    """Steps whose weights to keep."""
    changes: Mapping[str, Any] | None = None
    """LlamaConfig settings that differ from the arena's."""


def run(setting: Setting, text: ArenaText, mixture: Any, own: Run) -> Trained:
    """Trains a model.

    Args:
        setting: what of.
        text: on what.
        mixture: which InterleavedDomainDataset takes.
        own: how.
    """
    arena, steps = setting.arena, own.steps or setting.steps
    model = make_model(arena, text, own.seed, own.changes)
    if own.start is not None:
        model.load_state_dict(own.start)
    # Going on reads other rows than came before it.
    order = own.seed if own.start is None else own.seed + 1_000
    dataset = InterleavedDomainDataset(
        text.domains, mixture, num_samples=steps * arena.training.batch_rows, seed=order
    )
    average = CurveCallback(
        make_model(arena, text, own.seed, own.changes),
        {},
        every_steps=steps,
        average_steps=AVERAGE_STEPS,
    )
    keeper = KeepWeights(own.keep)
    cost = train(model, dataset, arena, callbacks=[average, keeper])
    return Trained(average.averaged, keeper.kept, cost)


def influence(
    model: LlamaForCausalLM, text: ArenaText, num_rows: int, *, part: int = 0
) -> InfluenceMatrix:
    """One measurement; those of different parts share no row.

    Args:
        model: at which weights.
        text: whose held-out domains and measured targets.
        num_rows: of each.
        part: which rows: part 1 comes after part 0.
    """
    engine = GroupInfluence(model, preconditioner=PRECONDITIONER)
    first = part * num_rows
    domains, targets = (
        {name: batches(rows[first : first + num_rows]) for name, rows in pools.items()}
        for pools in (domain_pools(text, first + num_rows), target_pools(text, first + num_rows))
    )
    return engine.measure(domains, targets)


def domain_pools(text: ArenaText, num_rows: int) -> dict[str, Tensor]:
    """(num_rows, T) of each domain: held-out rows, and where they are too few, training rows."""
    pools = {}
    for domain in text.domains:
        rows = _shuffled(domain.heldout, num_rows)
        if len(rows) < num_rows:
            rows = torch.cat([rows, _shuffled(domain.train, num_rows - len(rows))])
        pools[domain.name] = _enough(rows, num_rows, domain.name)
    return pools


def target_pools(text: ArenaText, num_rows: int) -> dict[str, Tensor]:
    """(num_rows, T) of each target's measured rows."""
    return {
        name: _enough(_shuffled(rows, num_rows), num_rows, name)
        for name, rows in text.measured.items()
    }


def batches(rows_NT: Tensor) -> list[dict[str, Tensor]]:
    """Collated batches of BATCH_ROWS rows, the last one perhaps shorter."""
    return [{"input_ids": part, "labels": part} for part in rows_NT.split(BATCH_ROWS)]


def _shuffled(rows: Dataset, num: int) -> Tensor:
    """The first rows of a fixed random order."""
    order_N = np.random.default_rng(0).permutation(len(rows))[:num]
    return torch.from_numpy(np.array(rows[order_N.tolist()]["input_ids"], np.int64))


def _enough(rows_NT: Tensor, num: int, name: str) -> Tensor:
    if len(rows_NT) < num:
        raise ValueError(
            f"`--rows` asks for {num} rows of {name!r}, which has {len(rows_NT)}; ask for fewer."
        )
    return rows_NT
