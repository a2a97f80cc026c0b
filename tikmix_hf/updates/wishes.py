"""What the user wishes of cost and times, and the size of the run that it is planned for.

In: what the user wishes, the dataset, how it is cut into batches, what is measured. Out: a `Plan`,
the same before the first step and after a resume.
"""

# Shape letters: K domains.

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tikmix_hf.checks import check_count
from tikmix_hf.dataset import InterleavedDomainDataset
from tikmix_hf.order.layout import BatchLayout
from tikmix_hf.updates.plan import Part, Plan, RunSize, check_budget, make_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What the user says about cost and times.

    Raises:
        ValueError: names the argument, its value and the mend.
    """

    budget: float = 0.01
    """Share of the run's tokens that all measurements together may take."""
    every_steps: int | None = None
    """Optimizer steps from one update to the next; None leaves them to the plan."""
    at_steps: Sequence[int] | None = None
    """The steps of the updates; replaces `every_steps`."""
    num_rows: int | None = None
    """Rows of each part that an update measures; None leaves them to the plan."""

    def __post_init__(self) -> None:
        check_budget(self.budget)
        for argument in ("every_steps", "num_rows"):
            if getattr(self, argument) is not None:
                count = check_count(argument, getattr(self, argument))
                object.__setattr__(self, argument, count)
        if self.at_steps is None:
            return
        steps = tuple(check_count("at_steps", step) for step in self.at_steps)
        if not steps:
            raise ValueError("`at_steps` must name a step; got none. Leave it out for every_steps.")
        object.__setattr__(self, "at_steps", steps)

    def plan(self, run: RunSize) -> Plan:
        """Returns the plan of a run."""
        steps = self.at_steps
        if steps is None and self.every_steps is not None:
            # The end of the run is no step between two updates, unless it is observed.
            stop = max(run.last_step + 1, run.max_steps)
            steps = range(self.every_steps, stop, self.every_steps)
        return make_plan(run, budget=self.budget, steps=steps, num_rows=self.num_rows)

    def objection(self, plan: Plan) -> str | None:
        """Why none of the steps that the user named is left in a plan; None where one is."""
        argument = "every_steps" if self.at_steps is None else "at_steps"
        value = getattr(self, argument)
        if value is None or plan.steps:
            return None
        return (
            f"`{argument}` must leave an update by step {plan.run.last_step} of "
            f"{plan.run.max_steps}, the last at which it could still be of use; got {value!r}. "
            "Name earlier steps, train longer, or leave it out."
        )


def plan_run(
    wishes: Wishes,
    dataset: InterleavedDomainDataset,
    layout: BatchLayout,
    parts: Sequence[Part],
    *,
    max_steps: int,
    observe: bool,
    num_probe_steps: int = 0,
) -> Plan:
    """Plans a run's measurements.

    Args:
        wishes: of the user.
        dataset: what training reads; its first mixture says how long a row is.
        layout: how a step cuts it.
        parts: the K domains and J targets that are measured.
        max_steps: optimizer steps of the run.
        observe: whether updates are of use even where no sample is left to change.
        num_probe_steps: optimizer steps from the mixer's question to its answer.

    Raises:
        ValueError: the steps of updates leave no room for their probes.
    """
    shares_K = dataset.schedule.segments[0].mixture
    row_tokens_K = dataset.domains.num_tokens / [domain.num_rows for domain in dataset.domains]
    # Shares are of tokens: a domain of share w has w / row_tokens samples for every token.
    tokens_per_sample = 1 / np.sum(shares_K / row_tokens_K)
    run = RunSize(
        max_steps=max_steps,
        last_step=max_steps
        if observe
        else max(_last_useful_step(layout, max_steps) - num_probe_steps, 0),
        num_tokens=float(layout.samples_before(max_steps) * tokens_per_sample),
        parts=tuple(parts),
        least_gap=num_probe_steps + 1,
    )
    plan = wishes.plan(run)
    for earlier, later in itertools.pairwise(plan.steps):
        if later - earlier < run.least_gap:
            raise ValueError(
                f"`every_steps` must be above {num_probe_steps}, the steps from the mixer's "
                f"question to the end of its probes; got {later - earlier}, from step {earlier} "
                f"to {later}. Update less often, or set fewer or shorter probes."
            )
    return plan


def check_room(
    dataset: InterleavedDomainDataset, plan: Plan, *, step: int, num_probes: int = 0
) -> None:
    """Refuses a dataset whose schedule has no room, or is not this run's to change.

    Args:
        dataset: what training reads; its schedule has the changes of the steps done.
        plan: of the run.
        step: optimizer steps done; from 1 on the run is a resumed one.
        num_probes: mixtures that are tried before each update.

    Raises:
        ValueError: names `dataset` or `max_updates`.
    """
    last = dataset.schedule.segments[-1].from_sample
    if last and not step:
        raise ValueError(
            f"`dataset` already changes its mixture up to sample {last}, by a replay or by "
            "another run, and the mixer would change it too. Make a new "
            "InterleavedDomainDataset, or pass mixer='static' or observe=True."
        )
    num_left = sum(planned > step for planned in plan.steps)
    num_left *= num_probes + 2 if num_probes else 1  # each probe, back again, and the update
    num_made = len(dataset.schedule.segments) - 1
    if num_made + num_left > dataset.max_updates:
        made = f" left, after {num_made} changes" if step else ""
        raise ValueError(
            f"`max_updates` of the dataset must cover the run's {num_left} updates{made}; got "
            f"{dataset.max_updates}. Construct the dataset with a larger one."
        )


def _last_useful_step(layout: BatchLayout, max_steps: int) -> int:
    """The last step that leaves samples that no loader has read; 0 where there is none."""
    end = layout.samples_before(max_steps)
    steps = range(max_steps, 0, -1)
    return next((step for step in steps if layout.first_free_sample(step) < end), 0)
