"""Records: lines of `influence.jsonl` and `evaluations.jsonl`, checked and typed.

In: plain JSON of a run, of this version or another, whole or not. Out: `Update` and `Score`. What
is not as it should be raises ValueError, so that the reader can leave that line out and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.report import values

Array = NDArray[np.float64]
Shares = Mapping[str, float]

# J targets, K domains, R rounds.


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Influence:
    """What an update measured."""

    values: Array
    """(J, K) influence."""
    stderr: Array
    """(J, K) its standard error; NaN where it is not known."""
    targets: tuple[str, ...]
    domains: tuple[str, ...]
    preconditioner: str
    target_losses: Array
    """(J,) mean loss per token, nats."""

    def in_force(self, mixture: Shares) -> Array:
        """(J,) influence of a mixture."""
        return self.values @ np.array([mixture.get(name, 0.0) for name in self.domains])


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """What an update found of the last one's prediction."""

    from_step: int
    predicted: Shares
    """By target: influence of the mixture that was trained on."""
    realised: Shares
    """By target: by how many nats per token its loss fell."""
    spearman: float | None
    correlation: float | None
    num_intervals: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """One line of `influence.jsonl`."""

    step: int
    from_sample: int | None
    mixture: Shares
    """In force before."""
    proposed: Shares
    change: float
    notes: tuple[str, ...]
    requested: Shares
    """Tokens since the last update, by domain."""
    realised: Shares
    epochs: Shares
    tokens: float
    planned_tokens: float | None
    costs: Mapping[str, Shares]
    """Signal to its tokens and seconds."""
    seconds: float
    planned_seconds: float | None
    time_share: float
    token_share: float
    audit: Audit | None
    influence: Influence | None

    @property
    def after(self) -> Shares:
        """The mixture that follows."""
        return self.mixture if self.from_sample is None else self.proposed


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """What a task of a suite scored at a step; None for the step at a run's end."""

    suite: str
    task: str
    metric: str
    value: float
    error: float | None
    step: int | None
    num_questions: int


def update(line: Any) -> Update:
    """Reads one line of `influence.jsonl`.

    Raises:
        ValueError: says what is missing or wrong.
    """
    line = values.mapping(line, "the line")
    audit, influence = line.get("audit"), line.get("influence")
    costs = values.mapping(line.get("costs") or {}, "costs")
    return Update(
        step=values.whole(line, "step"),
        from_sample=None if line.get("from_sample") is None else values.whole(line, "from_sample"),
        mixture=values.named(line.get("mixture"), "mixture"),
        proposed=values.named(line.get("proposed"), "proposed"),
        change=values.number(line, "change"),
        notes=tuple(map(str, notes)) if isinstance(notes := line.get("notes"), list) else (),
        requested=values.amounts(line.get("requested_tokens"), "requested_tokens"),
        realised=values.amounts(line.get("realised_tokens"), "realised_tokens"),
        epochs=values.amounts(line.get("epochs"), "epochs"),
        tokens=values.amount(values.number(line, "tokens"), "tokens"),
        planned_tokens=values.planned(line, "planned_tokens"),
        costs={k: values.amounts(v, k) for k, v in costs.items()},
        seconds=values.amount(values.number(line, "seconds"), "seconds"),
        planned_seconds=values.planned(line, "planned_seconds"),
        time_share=values.amount(values.number(line, "time_share"), "time_share"),
        token_share=values.amount(values.number(line, "token_share"), "token_share"),
        audit=None if audit is None else _audit(values.mapping(audit, "audit")),
        influence=None if influence is None else _influence(values.mapping(influence, "influence")),
    )


def scores(suite: str, tasks: Any, step: int | None) -> list[Score]:
    """Reads the tasks of a suite; those that failed, or diverged, are left out.

    Raises:
        ValueError: says what is missing or wrong.
    """
    found = []
    for task, own in values.mapping(tasks, "tasks").items():
        own = values.mapping(own, f"tasks.{task}")
        metric = str(own.get("metric"))
        found_values = values.mapping(own.get("values") or {}, "values")
        errors = values.mapping(own.get("standard_errors") or {}, "standard_errors")
        value = values.optional(found_values, metric)
        if value is not None:
            error, asked = values.optional(errors, metric), values.optional(own, "num_questions")
            found.append(
                Score(
                    suite=suite,
                    task=task,
                    metric=metric,
                    value=value,
                    error=error,
                    step=step,
                    num_questions=round(asked or 0),
                )
            )
    return found


def evaluation(line: Any) -> list[Score]:
    """Reads one line of `evaluations.jsonl`.

    Raises:
        ValueError: says what is missing or wrong.
    """
    line = values.mapping(line, "the line")
    return scores(str(line.get("suite")), line.get("tasks"), values.whole(line, "step"))


def _audit(line: Mapping[str, Any]) -> Audit:
    predicted, realised = (values.named(line.get(side), side) for side in ("predicted", "realised"))
    if set(predicted) != set(realised):
        raise ValueError("`audit` must predict and find the same targets")
    return Audit(
        from_step=values.whole(line, "from_step"),
        predicted=predicted,
        realised=realised,
        spearman=values.optional(line, "spearman"),
        correlation=values.optional(line, "correlation"),
        num_intervals=values.whole(line, "num_intervals"),
    )


def _influence(line: Mapping[str, Any]) -> Influence:
    targets, domains = (_names(line, side) for side in ("targets", "domains"))
    shape = len(targets), len(domains)
    if not all(shape):
        raise ValueError("`influence` must name its targets and domains")
    values_JK = _array(line, "values", shape)
    if not np.isfinite(values_JK).all():
        raise ValueError("`influence.values` must be finite")
    # Both sides' finite text; where one is not known, the spread of the rounds.
    stderr_JK = np.hypot(_array(line, "domain_stderr", shape), _array(line, "target_stderr", shape))
    rounds = line.get("rounds")
    if isinstance(rounds, Sequence) and len(rounds) > 1:
        rounds_RJK = _array(line, "rounds", (len(rounds), *shape))
        spread_JK = rounds_RJK.std(axis=0, ddof=1) / np.sqrt(len(rounds))
        stderr_JK = np.where(np.isnan(stderr_JK), spread_JK, stderr_JK)
    return Influence(
        values=values_JK,
        stderr=stderr_JK,
        targets=targets,
        domains=domains,
        preconditioner=str(line.get("preconditioner")),
        target_losses=_array(line, "target_losses", shape[:1]),
    )


def _names(line: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = line.get(key) or []
    if not isinstance(names, list):
        raise ValueError(f"`influence.{key}` must be a list; got {str(names)[:40]!r}")
    return tuple(map(str, names))


def _array(line: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> Array:
    """An array of that shape; NaN throughout where the line has none."""
    if line.get(key) is None:
        return np.full(shape, np.nan)
    try:
        array = np.array(line[key], dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError) as err:
        raise ValueError(f"`influence.{key}` must be numbers ({err})") from err
    if array.shape != shape:
        raise ValueError(f"`influence.{key}` must have the shape {shape}; got {array.shape}")
    return array
