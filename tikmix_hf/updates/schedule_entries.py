"""Entries of a run's schedule: what it says of the run, and of updates that changed the mixture.

In: live objects. Out: a `Run`, and records of JSON types that a repeated run makes alike: costs are
in tokens, and seconds are in the log alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from tikmix_hf.mixers import Mixer
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.schedule import Run, provenance
from tikmix_hf.signals.matrix import InfluenceMatrix
from tikmix_hf.updates.costs import Costs

# Shape letters: J targets, K domains.

MAX_ENTRIES = 100_000
"""Influences that a schedule keeps, over all updates of a run: some 4 MB, in checkpoints too."""


def run_of(layout: BatchLayout, max_steps: int, model: nn.Module) -> Run:
    """What is known of a run before its first step.

    Args:
        layout: how it cuts samples into batches.
        max_steps: optimizer steps.
        model: that it trains.
    """
    return Run(
        num_samples=layout.samples_before(max_steps),
        samples_per_step=layout.batch * layout.accumulation,
        model=type(model).__name__,
        num_parameters=_num_parameters(model),
    )


def update_record(
    step: int, mixer: Mixer[Any], notes: Sequence[str], measured: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """How a mixture came about.

    Args:
        step: optimizer steps done.
        mixer: that chose it.
        notes: what there is to say.
        measured: what `measured` returned, where something was.
    """
    return {
        "step": step,
        "mixer": mixer.describe(),
        "notes": list(notes),
        **(measured or {}),
        "versions": provenance.versions(),
    }


def measured(
    targets: Sequence[str], costs: Costs, influence: InfluenceMatrix | None, num_updates: int
) -> dict[str, Any]:
    """What an update measured, for its record.

    Args:
        targets: names of what the mixture is chosen for.
        costs: of the update so far.
        influence: None where none was measured.
        num_updates: of the whole run; so many matrices must fit, or none is kept.
    """
    tokens = {name: cost["tokens"] for name, cost in costs.to_dict().items() if cost["tokens"]}
    record: dict[str, Any] = {"targets": list(targets), "cost": {"tokens": tokens}}
    if influence is None:
        return record
    num_entries = influence.values.size * num_updates
    if num_entries > MAX_ENTRIES:
        why = f"{num_entries:,} entries in all updates, of at most {MAX_ENTRIES:,}"
        return {**record, "influence_left_out": f"{why}; they are in influence.jsonl"}
    stderr = [[_or_none(value) for value in row] for row in influence.stderr.tolist()]
    record["influence"] = {
        "targets": list(influence.targets),
        "domains": list(influence.domains),
        "preconditioner": influence.preconditioner,
        "num_tokens": influence.num_tokens,
        "values": influence.values.tolist(),
        "stderr": stderr,
    }
    return record


def _or_none(value: float) -> float | None:
    """None for what is not known."""
    return value if math.isfinite(value) else None


def _num_parameters(model: nn.Module) -> int:
    """Elements of all parameters, whole where ZeRO-3 leaves this rank a shard."""
    return sum(
        int(vars(parameter).get("ds_numel", parameter.numel())) for parameter in model.parameters()
    )
