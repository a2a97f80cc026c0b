"""Records: lines of `influence.jsonl` and `evaluations.jsonl`, checked and typed.

In: plain JSON of a run, of this version or another, whole or not. Out: `Update` and `Score`. What
is not as it should be raises ValueError, so that the reader can leave that line out and say so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    line = _mapping(line, "the line")
    audit, influence = line.get("audit"), line.get("influence")
    return Update(
        step=_whole(line, "step"),
        from_sample=None if line.get("from_sample") is None else _whole(line, "from_sample"),
        mixture=named(line.get("mixture"), "mixture"),
        proposed=named(line.get("proposed"), "proposed"),
        change=_of(line, "change"),
        notes=tuple(map(str, notes)) if isinstance(notes := line.get("notes"), list) else (),
        requested=amounts(line.get("requested_tokens"), "requested_tokens"),
        realised=amounts(line.get("realised_tokens"), "realised_tokens"),
        epochs=amounts(line.get("epochs"), "epochs"),
        tokens=_amount(_of(line, "tokens"), "tokens"),
        planned_tokens=_planned(line, "planned_tokens"),
        costs={k: amounts(v, k) for k, v in _mapping(line.get("costs") or {}, "costs").items()},
        seconds=_amount(_of(line, "seconds"), "seconds"),
        planned_seconds=_planned(line, "planned_seconds"),
        time_share=_amount(_of(line, "time_share"), "time_share"),
        token_share=_amount(_of(line, "token_share"), "token_share"),
        audit=None if audit is None else _audit(_mapping(audit, "audit")),
        influence=None if influence is None else _influence(_mapping(influence, "influence")),
    )


def scores(suite: str, tasks: Any, step: int | None) -> list[Score]:
    """Reads the tasks of a suite; those that failed, or diverged, are left out.

    Raises:
        ValueError: says what is missing or wrong.
    """
    found = []
    for task, own in _mapping(tasks, "tasks").items():
        own = _mapping(own, f"tasks.{task}")
        metric = str(own.get("metric"))
        values = _mapping(own.get("values") or {}, "values")
        errors = _mapping(own.get("standard_errors") or {}, "standard_errors")
        value = optional(values, metric)
        if value is not None:
            error, asked = optional(errors, metric), optional(own, "num_questions")
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
    line = _mapping(line, "the line")
    return scores(str(line.get("suite")), line.get("tasks"), _whole(line, "step"))


def named(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name.

    Raises:
        ValueError: says what is wrong.
    """
    return {
        name: finite(value, f"{place}.{name}") for name, value in _mapping(values, place).items()
    }


def known(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name, without names whose number is None.

    Raises:
        ValueError: says what is wrong.
    """
    values = _mapping(values, place)
    return named({name: value for name, value in values.items() if value is not None}, place)


def amounts(values: Any, place: str) -> dict[str, float]:
    """Finite numbers by name, none below zero.

    Raises:
        ValueError: says what is wrong.
    """
    return {name: _amount(value, f"{place}.{name}") for name, value in named(values, place).items()}


def finite(value: Any, place: str) -> float:
    """A finite number.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"`{place}` must be a number; got {str(value)[:40]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"`{place}` must be finite; got {str(value)[:40]}")
    return number


def optional(line: Mapping[str, Any], key: str) -> float | None:
    """A finite number, or None where there is none.

    Raises:
        ValueError: it is something else.
    """
    return None if line.get(key) is None else finite(line[key], key)


def _audit(line: Mapping[str, Any]) -> Audit:
    predicted, realised = (named(line.get(side), side) for side in ("predicted", "realised"))
    if set(predicted) != set(realised):
        raise ValueError("`audit` must predict and find the same targets")
    return Audit(
        from_step=_whole(line, "from_step"),
        predicted=predicted,
        realised=realised,
        spearman=optional(line, "spearman"),
        correlation=optional(line, "correlation"),
        num_intervals=_whole(line, "num_intervals"),
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


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"`{place}` must be an object; got {str(value)[:40]!r}")
    return value


def _of(line: Mapping[str, Any], key: str) -> float:
    return finite(line.get(key), key)


def _planned(line: Mapping[str, Any], key: str) -> float | None:
    value = optional(line, key)
    return None if value is None else _amount(value, key)


def _amount(value: float, place: str) -> float:
    if finite(value, place) < 0:
        raise ValueError(f"`{place}` must be at least 0; got {value}")
    return value


def _whole(line: Mapping[str, Any], key: str) -> int:
    return round(_amount(_of(line, key), key))
