"""Plan: how often to measure and how much, so that it costs a stated share of the run.

In: the size of a run and of what an update measures, a budget, and whatever the user fixed. Out: a
`Plan`, the steps of the updates and the rows of each. All of it is arithmetic on tokens that are
known before the first step: no clock, so every rank and a resumed run plan the same.

With T tokens in the run, c(n) tokens in an update of n rows of every part (the K domains and J
targets) and budget b, U updates cost the share U c(n) / T of the run; the rules below choose U and
n so that it is at most b.

| the user gave | the plan |
|---|---|
| nothing | as many updates as leave each part `USUAL_ROWS` rows, 1 to `MOST_UPDATES`, evenly spread; rows from the budget |
| the steps | rows from the budget, `LEAST_ROWS` to `MOST_ROWS` |
| the rows | updates from the budget, 1 to `MOST_UPDATES`, evenly spread |
| both | both stand |

A token's cost is that of one forward and backward pass, as in training. An audited token is read
once more, forward, a third of that work; what the preconditioner reads is counted at its most.
"""  # noqa: E501 - rows of a table are one line each

# Shape letters: J targets, K domains.

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEAST_ROWS = 16
# Fewer agree less with much more text on the ranking of domains (`eval/results/ranking.md`).
USUAL_ROWS = 128
MOST_ROWS = 4096
MOST_UPDATES = 20
# Rows come in eights, so that four rounds of two microbatches are of equal size.
_ROWS_APART = 8
# A forward pass takes 2 operations per parameter and token, the backward pass 4 (Kaplan et al.
# 2020, arXiv 2001.08361, table 1).
FORWARD_ONLY = 1 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A domain or target, as far as measuring it costs something."""

    num_rows: int
    """Rows there are to measure."""
    tokens_per_row: float
    """Mean over these rows."""
    passes: float = 1.0
    """Passes over an update's rows: 1 for their gradient, `FORWARD_ONLY` for each time they are
    read forward, and what the preconditioner reads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSize:
    """What a plan is made for."""

    max_steps: int
    """Optimizer steps of the run."""
    last_step: int
    """Last step at which an update could still change something; 0 where there is none."""
    num_tokens: float
    """Tokens that the run trains on."""
    parts: tuple[Part, ...]
    """The K domains and J targets; empty where nothing is measured."""
    least_gap: int = 1
    """Optimizer steps from one update to the next, at least."""

    def tokens_per_update(self, num_rows: int) -> float:
        """Tokens of an update of `num_rows` rows of every part, of all rows where it has fewer."""
        return sum(
            min(num_rows, part.num_rows) * part.tokens_per_row * part.passes for part in self.parts
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """When to update and how much to measure."""

    steps: tuple[int, ...]
    """Optimizer steps of the updates, increasing."""
    num_rows: int
    """Rows of each part that an update measures, in all its rounds."""
    tokens_per_update: float
    """What an update measures if no round is saved."""
    share: float
    """Of the run's tokens, for all updates."""
    budget: float
    """The share that was allowed."""
    is_given: bool
    """Whether the user fixed both the steps and the rows."""
    run: RunSize
    """What the plan was made for."""
    num_late: int = 0
    """Steps that were asked for and left out: they come after `run.last_step`."""

    @property
    def warning(self) -> str | None:
        """What of the user's wishes does not hold, and the mend; None where all of it does."""
        return " ".join(filter(None, (self._lateness, self._overspending))) or None

    @property
    def _lateness(self) -> str | None:
        """How many steps are left out, and why."""
        if not self.num_late:
            return None
        return (
            f"{self.num_late} of {self.num_late + len(self.steps)} steps asked for are left out: "
            f"they come after step {self.run.last_step} of {self.run.max_steps}, the last at which "
            "an update could still be of use."
        )

    @property
    def _overspending(self) -> str | None:
        """Why the budget does not hold, and the mend."""
        if self.is_given or self.share <= self.budget * (1 + 1e-9):
            return None
        rounded = _rounded_up(self.share)
        agreement = f"budget={rounded}" if rounded <= 1 else "both every_steps and num_rows"
        return (
            f"`budget` {self.budget:.2%} of the run's {self.run.num_tokens:,.0f} tokens does not "
            f"pay for {_updates(len(self.steps))} of {self.num_rows} rows of each of the "
            f"{len(self.run.parts)} domains and targets, which are planned all the same and take "
            f"{self.share:.2%}. Short runs cannot pay for a measurement: train on at least "
            f"{self.share / self.budget * self.run.num_tokens:,.0f} tokens, or pass "
            f"{agreement} to agree."
        )

    def is_due(self, step: int) -> bool:
        """Whether an update is planned at the end of a step."""
        place = bisect_left(self.steps, step)
        return self.steps[place : place + 1] == (step,)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "steps": list(self.steps),
            "num_rows": self.num_rows,
            "tokens_per_update": round(self.tokens_per_update),
            "run_tokens": round(self.run.num_tokens),
            "share": self.share,
            "budget": self.budget,
        }

    def __str__(self) -> str:
        """The plan in one line."""
        if not self.run.parts:
            return f"[tikmix] plan: {_updates(len(self.steps))}, nothing measured"
        when = f" at steps {', '.join(map(str, self.steps[:3]))}" if self.steps else ""
        more = ", ..." if len(self.steps) > 3 else ""
        limit = "" if self.is_given else f", budget {self.budget:.2%}"
        return (
            f"[tikmix] plan: {_updates(len(self.steps))}{when}{more}, {self.num_rows} rows of each "
            f"of {len(self.run.parts)} domains and targets, {self.tokens_per_update:,.0f} tokens "
            f"an update: {self.share:.2%} of the run's tokens{limit}"
        )


def make_plan(
    run: RunSize, *, budget: float, steps: Sequence[int] | None, num_rows: int | None
) -> Plan:
    """Plans a run's measurements by the module's table.

    Args:
        run: its size.
        budget: share of the run's tokens that all measurements together may take, in (0, 1].
        steps: steps of the updates; None leaves them to the plan. Those after `run.last_step` are
            left out.
        num_rows: rows of each part an update measures; None leaves them to the plan.

    Raises:
        ValueError: `budget` is out of range.

    Example:
        A run of 200 steps and 1,000,000 tokens, two parts of many rows of 100 tokens: an update of
        128 rows takes 25,600, so a budget of 6 % pays for two.

        >>> part = Part(num_rows=10_000, tokens_per_row=100.0)
        >>> run = RunSize(max_steps=200, last_step=199, num_tokens=1e6, parts=(part, part))
        >>> plan = make_plan(run, budget=0.06, steps=None, num_rows=None)
        >>> plan.steps, plan.num_rows, plan.share
        ((67, 133), 144, 0.0576)
    """
    check_budget(budget)
    num_late = 0
    is_given = steps is not None and num_rows is not None
    allowed = budget * run.num_tokens
    if steps is None:
        one_update = run.tokens_per_update(USUAL_ROWS if num_rows is None else num_rows)
        num_updates = MOST_UPDATES if not one_update else int(allowed / one_update)
        most = min(MOST_UPDATES, max(1, run.max_steps // run.least_gap - 1))
        planned = _spread(min(max(num_updates, 1), most), run)
    else:
        asked = sorted(set(steps))
        planned = tuple(step for step in asked if step <= run.last_step)
        num_late = len(asked) - len(planned)
    if num_rows is None:
        num_rows = _rows_for(allowed / len(planned), run) if planned else USUAL_ROWS
    tokens_per_update = run.tokens_per_update(num_rows)
    return Plan(
        steps=planned,
        num_rows=num_rows,
        tokens_per_update=tokens_per_update,
        share=len(planned) * tokens_per_update / run.num_tokens,
        budget=budget,
        is_given=is_given,
        run=run,
        num_late=num_late,
    )


def check_budget(budget: float) -> None:
    """Refuses what is no share (ValueError)."""
    if not (isinstance(budget, (int, float)) and budget is not True and 0 < budget <= 1):
        raise ValueError(
            f"`budget` must be a share of the run's tokens in (0, 1]; got {budget!r}. 0.01 lets "
            "all measurements together read one token for every hundred trained on."
        )


def _spread(num_updates: int, run: RunSize) -> tuple[int, ...]:
    """Steps that cut the run into pieces of about equal length."""
    pieces = num_updates + 1
    steps = {round(run.max_steps * i / pieces) for i in range(1, pieces)}
    return tuple(sorted({max(1, min(step, run.last_step)) for step in steps if run.last_step}))


def _rows_for(allowed: float, run: RunSize) -> int:
    """The most rows, in eights, whose update takes at most `allowed` tokens; `LEAST_ROWS` at least.

    More rows than the largest part has would measure the same.
    """
    largest = max((part.num_rows for part in run.parts), default=USUAL_ROWS)
    choices = range(LEAST_ROWS, min(MOST_ROWS, largest) + 1, _ROWS_APART)
    fits = [rows for rows in choices if run.tokens_per_update(rows) <= allowed]
    return fits[-1] if fits else LEAST_ROWS


def _updates(number: int) -> str:
    return "1 update" if number == 1 else f"{number} updates"


def _rounded_up(share: float) -> float:
    """To two digits."""
    digits = 1 - math.floor(math.log10(share))
    return round(math.ceil(share * 10**digits - 1e-9) / 10**digits, max(digits, 0))
