"""UpdateRecord: one line of the run's account of itself.

In: what an update measured, decided and cost. Out: the JSON line of `influence.jsonl`, the scalars
for TensorBoard, W&B and their kin, and the line that a person reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import total_variation
from tikmix_hf.signals.influence import InfluenceMatrix
from tikmix_hf.updates.audit import Comparison
from tikmix_hf.updates.noise_guard import Verdict

# Shape letters: K domains.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class UpdateRecord:
    """What happened at one update."""

    step: int
    """Optimizer steps done."""
    domains: tuple[str, ...]
    """Names of the K domains."""
    mixture: NDArray[np.float64]
    """(K,) the last mixture announced before this update."""
    proposed: NDArray[np.float64]
    """(K,) what follows from the measurement; `mixture` itself where nothing does."""
    unguarded: NDArray[np.float64]
    """(K,) the mixer's own answer, before the noise guard."""
    verdict: Verdict | None
    """The noise guard's; None where it had nothing to judge."""
    from_sample: int | None
    """First sample under the new mixture; None where nothing changes."""
    notes: tuple[str, ...]
    """What the mixer or the callback has to say, in words."""
    influence: InfluenceMatrix | None
    """The measurement, the mean of its rounds; None where it failed."""
    num_rounds: int
    """Rounds that were measured."""
    proposal_change: float | None
    """Share of tokens that the last round moved in the proposal; None with fewer than two."""
    audit: Comparison | None
    """What the last update predicted against what came; None where there is nothing to check."""
    requested: NDArray[np.float64]
    """(K,) tokens that the mixtures in force asked for since the last update."""
    realised: NDArray[np.int64]
    """(K,) tokens that training read since the last update."""
    epochs: NDArray[np.float64]
    """(K,) how often the domain's rows were gone through since the run began."""
    num_tokens: int
    """Tokens that this update measured; one that was only read forward counts a third."""
    costs: dict[str, dict[str, float]]
    """Tokens and seconds by signal, of `audit` and of the `mixer` itself; those of `train_losses`
    are part of training's own passes and not of `seconds`."""
    planned_tokens: int
    """Tokens that the plan gives an update, if no round is saved."""
    seconds: float
    """Wall time of this update; logged, never decided upon."""
    planned_seconds: float | None
    """Time that training took for as many tokens as planned; None before it read any."""
    time_share: float
    """All updates' share of the wall time since training began in this process."""
    token_share: float
    """Tokens measured so far, per token trained so far."""

    @property
    def change(self) -> float:
        """Share of tokens that changed domain: total variation, between 0 and 1."""
        return total_variation(self.mixture, self.proposed)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "step": self.step,
            "from_sample": self.from_sample,
            "mixture": self._named(self.mixture),
            "proposed": self._named(self.proposed),
            "change": self.change,
            "unguarded": self._named(self.unguarded),
            "guard": None if self.verdict is None else self.verdict.to_dict(),
            "notes": list(self.notes),
            "num_rounds": self.num_rounds,
            "proposal_change": self.proposal_change,
            "requested_tokens": self._named(self.requested),
            "realised_tokens": self._named(self.realised),
            "epochs": self._named(self.epochs),
            "tokens": self.num_tokens,
            "costs": self.costs,
            "planned_tokens": self.planned_tokens,
            "seconds": self.seconds,
            "planned_seconds": self.planned_seconds,
            "time_share": self.time_share,
            "token_share": self.token_share,
            "audit": None if self.audit is None else self.audit.to_dict(),
            "influence": None if self.influence is None else self.influence.to_dict(),
        }

    def scalars(self) -> dict[str, float]:
        """Returns flat numbers for metric loggers, all under `tikmix/`."""
        applied_K = self.proposed if self.from_sample is not None else self.mixture
        tables = {
            "mixture": applied_K,
            "proposed": self.proposed,
            "requested_share": _shares(self.requested),
            "realised_share": _shares(self.realised),
            "epochs": self.epochs,
        }
        scalars = {
            f"tikmix/{table}/{name}": float(value)
            for table, values_K in tables.items()
            for name, value in zip(self.domains, values_K, strict=True)
        }
        numbers = {
            "change": self.change,
            "rounds": self.num_rounds,
            "proposal_change": self.proposal_change,
            "tokens": self.num_tokens,
            "planned_tokens": self.planned_tokens,
            "seconds": self.seconds,
            "planned_seconds": self.planned_seconds,
            "time_share": self.time_share,
            "token_share": self.token_share,
        }
        for signal, cost in self.costs.items():
            numbers |= {f"cost/{signal}/{unit}": value for unit, value in cost.items()}
        if self.verdict is not None:
            numbers |= {f"guard/{name}": v for name, v in self.verdict.to_dict().items()}
        if self.audit is not None:
            numbers |= {f"audit/{name}": value for name, value in self.audit.scalars().items()}
        scalars |= {f"tikmix/{name}": float(v) for name, v in numbers.items() if v is not None}
        return scalars | self._influence_scalars()

    def _influence_scalars(self) -> dict[str, float]:
        """What was measured; nothing where it failed."""
        scalars: dict[str, float] = {}
        if self.influence is None:
            return scalars
        for target, row, loss in zip(
            self.influence.targets,
            self.influence.values,
            self.influence.target_losses,
            strict=True,
        ):
            scalars[f"tikmix/target_loss/{target}"] = float(loss)
            for domain, value in zip(self.influence.domains, row, strict=True):
                scalars[f"tikmix/influence/{target}/{domain}"] = float(value)
        return scalars

    def __str__(self) -> str:
        """The update in one line: when, what changed most, why, and what it cost."""
        head = f"[tikmix] step {self.step}"
        planned = "" if self.planned_seconds is None else f"{self.planned_seconds:.1f} planned, "
        cost = f"{self.seconds:.1f} s, {planned}{self.time_share:.1%} of the time so far"
        audit = None if self.audit is None else self.audit.note
        notes = "".join(f"; {note}" for note in (*self.notes, audit) if note)
        if self.from_sample is None:
            return f"{head}: mixture kept{notes} ({cost})"
        order = np.argsort(-np.abs(self.proposed - self.mixture), kind="stable")
        moves = ", ".join(
            f"{self.domains[k]} {self.mixture[k]:.3f} -> {self.proposed[k]:.3f}" for k in order[:4]
        )
        more = f", {len(order) - 4} more" if len(order) > 4 else ""
        return (
            f"{head}: from sample {self.from_sample:,} on {moves}{more}; "
            f"{self.change:.1%} of tokens moved{notes} ({cost})"
        )

    def _named(self, values_K: NDArray[Any]) -> dict[str, float]:
        return dict(zip(self.domains, values_K.tolist(), strict=True))


RECORDS = "influence.jsonl"


def append_record(path: Path, record: UpdateRecord) -> None:
    """Adds the record's line to a JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record.to_dict(), allow_nan=False) + "\n")


def _shares(values_K: NDArray[Any]) -> NDArray[np.float64]:
    return values_K / max(float(values_K.sum()), 1.0)
