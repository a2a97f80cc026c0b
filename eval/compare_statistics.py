"""Paired differences of scores, with bootstrap intervals.

In: `Run`s of several names and seeds. Out: a `Line` for each task. A difference is the mean over
the seeds that both have of one run's score less the baseline's. Resampled are questions (each with
the mean over seeds of its paired difference) where all of these runs kept their samples, or the
seeds' differences (Efron 1979, percentile intervals). A single seed without samples has none.
"""

# S seeds, Q questions, B resamples.

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from compare_results import Run
from numpy.typing import NDArray

LOWER_IS_BETTER = frozenset(
    {"bits_per_byte", "perplexity", "word_perplexity", "byte_perplexity", "loss", "brier_score"}
)
QUESTIONS, SEEDS, NOTHING = "questions", "seeds", "nothing"
RESAMPLES = 10_000
CHUNK = 256
"""Resamples drawn at a time, so that memory stays small."""
ENDS = (2.5, 97.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """To the baseline, in the metric's own direction."""

    value: float
    """Mean over common seeds."""
    low: float | None
    """Lower end of the 95 % interval; None: nothing to resample."""
    high: float | None
    """Upper end."""
    over: str
    """What was resampled: QUESTIONS, SEEDS or NOTHING."""
    seeds: tuple[int | None, ...]
    """In common with the baseline; None: of results without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One task's."""

    task: str
    """Name."""
    metric: str
    """Which stands for it."""
    means: Mapping[str, float]
    """Run to its mean over `seeds`; runs without a score are not there."""
    differences: Mapping[str, Difference]
    """Run to its difference, the baseline's own left out."""
    best: tuple[str, ...]
    """Runs with the best mean; none where runs have no seed in common."""
    seeds: tuple[int | None, ...]
    """Those that all runs with a score have; where there is none, means are over each run's own."""

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return -1 if self.metric in LOWER_IS_BETTER else 1

    @property
    def better(self) -> str:
        """The better direction, in a word."""
        return "lower" if self.sign < 0 else "higher"

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "task": self.task,
            "metric": self.metric,
            "better": self.better,
            "means": dict(self.means),
            "differences": {
                name: {**asdict(own), "seeds": known(own.seeds)}
                for name, own in self.differences.items()
            },
            "best": list(self.best),
            "seeds": known(self.seeds),
        }


def compare(runs: Sequence[Run], task: str, baseline: str) -> Line:
    """One task of all runs.

    Args:
        runs: of all names and seeds.
        task: its name.
        baseline: name of the runs that others are compared with.
    """
    scored: dict[str, dict[int | None, Run]] = {}
    metric = next(run.tasks[task]["metric"] for run in runs if task in run.tasks)
    for run in runs:
        if run.value(task) is not None:
            scored.setdefault(run.name, {})[run.seed] = run
    shared = common_seeds(list(scored.values()))
    means = {}
    for name, own in scored.items():
        values = [_value(own[seed], task) for seed in shared or own]
        means[name] = math.fsum(values) / len(values)
    differences = {}
    for name, own in scored.items():
        both = common_seeds([own, scored.get(baseline, {})])
        if name != baseline and both:
            pairs = [(own[seed], scored[baseline][seed]) for seed in both]
            differences[name] = difference(pairs, task)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    top = max((sign * mean for mean in means.values()), default=math.nan)
    best = tuple(name for name, mean in means.items() if shared and sign * mean == top)
    return Line(
        task=task, metric=metric, means=means, differences=differences, best=best, seeds=shared
    )


def known(seeds: Iterable[int | None]) -> list[int]:
    """The seeds of results that tell one, sorted."""
    return sorted(seed for seed in seeds if seed is not None)


def common_seeds(scored: Sequence[Mapping[int | None, Run]]) -> tuple[int | None, ...]:
    """Seeds that all of several runs have, sorted."""
    every = [set(own) for own in scored]
    shared = set.intersection(*every) if every else set()
    return tuple(sorted(shared, key=lambda seed: -1 if seed is None else seed))


def difference(pairs: Sequence[tuple[Run, Run]], task: str) -> Difference:
    """Mean difference of paired runs, with its interval.

    Args:
        pairs: a run and the baseline's of the same seed.
        task: name.
    """
    gaps_S = np.array([_value(own, task) - _value(other, task) for own, other in pairs])
    resampled, over = by_question(pairs, task), QUESTIONS
    if resampled is None:
        resampled, over = gaps_S, SEEDS
    if len(resampled) < 2:
        low, high, over = None, None, NOTHING
    else:
        low, high = bootstrap(resampled, np.random.default_rng(0))
    return Difference(
        value=float(gaps_S.mean()),
        low=low,
        high=high,
        over=over,
        seeds=tuple(own.seed for own, _ in pairs),
    )


def by_question(pairs: Sequence[tuple[Run, Run]], task: str) -> NDArray[np.float64] | None:
    """(Q,) mean over pairs of each question's difference; None where samples are missing."""
    sides = [run.questions.get(task) for pair in pairs for run in pair]
    if any(side is None for side in sides):
        return None
    known = [side for side in sides if side is not None]
    if any(side.keys() != known[0].keys() for side in known):
        return None
    keys = sorted(known[0])
    values = np.array([[side[key] for key in keys] for side in known])
    return (values[0::2] - values[1::2]).mean(axis=0)


def bootstrap(values: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, from RESAMPLES resamples."""
    means = []
    for start in range(0, RESAMPLES, CHUNK):
        num = min(CHUNK, RESAMPLES - start)
        drawn = rng.integers(len(values), size=(num, len(values)))
        means.append(values[drawn].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), ENDS)
    return float(low), float(high)


def _value(run: Run, task: str) -> float:
    value = run.value(task)
    assert value is not None, "runs without a score were left out"
    return value
