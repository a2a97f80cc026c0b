"""What influence says at a checkpoint, by every preconditioner and at other budgets.

In: a checkpoint of `fidelity_truth` and a `Measurement`. Out: an `InfluenceMatrix`, kept under the
checkpoint's folder as `predictions/NAME.json` and not measured again. Real runs are not needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fidelity_text import Text, pools_of_rounds
from fidelity_truth import Setting, checkpoint
from tqdm.auto import tqdm

from tikmix_hf.signals import GroupInfluence, InfluenceMatrix

BUDGET = (16, 16, 16, 16)
"""Rows of each domain and target in each round, unless a variant says otherwise."""


# 12 products with a matrix per target and round are what it costs.
OWN_BUDGET = {"ggn": (sum(BUDGET),)}
OWN_CHECKPOINTS = {"ggn": (("small", 300),)}
"""Sizes and steps that a preconditioner is tried at; all where it is not here."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One way to measure."""

    preconditioner: str
    """One of `preconditioners.available()`, with its default settings."""
    variant: str = ""
    """What differs from the default, for people; part of the name."""
    rows_by_round: Sequence[int] = BUDGET
    """Rows of each domain and target in each round; the matrix is the rounds' mean."""
    first_row: int = 0
    """Row of the pools that the first round begins with."""
    parameters: str = "all"
    """As of `GroupInfluence`."""

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.preconditioner} {self.variant}".strip()


def default(preconditioner: str) -> Measurement:
    """`BUDGET`; one round where rounds cost more than their text."""
    rows = OWN_BUDGET.get(preconditioner, BUDGET)
    return Measurement(preconditioner=preconditioner, rows_by_round=rows)


def budgets(preconditioner: str) -> list[Measurement]:
    """Other rows and other budgets."""
    ways = {
        "other rows": {"first_row": sum(BUDGET)},
        "8 rows": {"rows_by_round": (8,)},
        "16 rows": {"rows_by_round": (16,)},
        "32 rows": {"rows_by_round": (16, 16)},
        "256 rows": {"rows_by_round": (16,) * 16},
        "64 rows in one round": {"rows_by_round": (sum(BUDGET),)},
    }
    return [
        Measurement(preconditioner=preconditioner, variant=variant, **way)
        for variant, way in ways.items()
    ]


def parts(preconditioner: str) -> list[Measurement]:
    """Gradients by a part of the parameters alone."""
    return [
        Measurement(preconditioner=preconditioner, variant=part, parameters=part)
        for part in ("last 1 blocks", "lm_head")
    ]


def predict(setting: Setting, text: Text, measurement: Measurement) -> InfluenceMatrix:
    """The measurement at the setting's checkpoint, read or made."""
    path = setting.folder / "predictions" / f"{measurement.name}.json"
    if path.exists():
        return InfluenceMatrix.load(path)
    model, optimizer = checkpoint(setting, text)
    # `ggn` differentiates forwards, which fused attention cannot.
    model.set_attn_implementation("eager")
    engine = GroupInfluence(
        model,
        preconditioner=measurement.preconditioner,
        optimizer=optimizer,
        parameters=measurement.parameters,
    )
    rows = measurement.first_row, measurement.rows_by_round
    rounds = list(
        zip(
            pools_of_rounds(text.domain_pools, *rows),
            pools_of_rounds(text.target_pools, *rows),
            strict=True,
        )
    )
    bar = tqdm(rounds, desc=f"{setting.folder.name}, {measurement.name}", leave=False)
    # One fit serves all rounds, as in an update of a run.
    matrix = InfluenceMatrix.mean(
        [engine.measure(*sides, refit=not number) for number, sides in enumerate(bar)]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix.save(path)
    return matrix
