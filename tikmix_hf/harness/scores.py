"""What a model scored: TaskScores and SuiteScores, as JSON and as a table.

In: numbers by task. Out: plain JSON types, Markdown, and flat scalars for metric loggers. A task
that failed stands there with its error and without numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScores:
    """One task's."""

    task: str
    """Name in the suite."""
    metric: str
    """The one that stands for the task."""
    values: Mapping[str, float] = field(default_factory=dict)
    """By metric; a mean over questions."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """Standard errors by metric, where there is one."""
    subsets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a task that has several, such as the domains: each one's `values`, `standard_errors` and
    `num_questions`."""
    num_questions: int = 0
    """That were asked."""
    num_fewshot: int = 0
    """Solved examples before each."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Where the rows came from, by split; empty: the Hub."""
    version: str = ""
    """Of lm-eval's task."""
    seconds: float = 0.0
    """That it took."""
    failure: str | None = None
    """Why there are no values."""
    samples: Sequence[Mapping[str, Any]] = ()
    """Each question with its prompts, answers' log-likelihoods and scores, if asked for."""

    @property
    def value(self) -> float | None:
        """Of `metric`; None where the task failed."""
        return self.values.get(self.metric)

    def text(self, metric: str) -> str:
        """A value with its standard error, for people."""
        error = self.errors.get(metric)
        return f"{self.values[metric]:.4f}" + ("" if error is None else f" ± {error:.4f}")

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types, without the samples."""
        return {
            "metric": self.metric,
            "values": dict(self.values),
            "standard_errors": dict(self.errors),
            "subsets": {name: dict(own) for name, own in self.subsets.items()},
            "num_questions": self.num_questions,
            "num_fewshot": self.num_fewshot,
            "files": dict(self.files),
            "version": self.version,
            "seconds": round(self.seconds, 3),
            "failure": self.failure,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteScores:
    """A suite's."""

    suite: str
    """Name."""
    tasks: tuple[TaskScores, ...]
    """In the suite's order."""

    def __getitem__(self, task: str) -> TaskScores:
        """A task's scores by its name; KeyError where there is none."""
        for scores in self.tasks:
            if scores.task == task:
                return scores
        raise KeyError(task)

    @property
    def failures(self) -> dict[str, str]:
        """Why tasks failed, by name."""
        return {s.task: s.failure for s in self.tasks if s.failure is not None}

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types, without the samples."""
        return {"suite": self.suite, "tasks": {s.task: s.to_dict() for s in self.tasks}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SuiteScores:
        """The inverse of `to_dict`."""
        tasks = (
            TaskScores(
                task=name,
                errors=own["standard_errors"],
                **{key: value for key, value in own.items() if key != "standard_errors"},
            )
            for name, own in record["tasks"].items()
        )
        return cls(suite=record["suite"], tasks=tuple(tasks))

    def scalars(self) -> dict[str, float]:
        """Returns flat numbers for metric loggers: `eval/TASK/METRIC` and `..._stderr`.

        Of subsets only the metric that stands for the task: `eval/TASK/METRIC/SUBSET`.
        """
        flat: dict[str, float] = {}
        for scores in self.tasks:
            for metric, value in scores.values.items():
                flat[f"eval/{scores.task}/{metric}"] = value
            for metric, error in scores.errors.items():
                flat[f"eval/{scores.task}/{metric}_stderr"] = error
            for subset, own in scores.subsets.items():
                flat[f"eval/{scores.task}/{scores.metric}/{subset}"] = own["values"][scores.metric]
        return flat

    def to_markdown(self) -> str:
        """A table with a line for each task; the metric that stands for it comes first."""
        lines = ["| task | metric | value | others | questions | shots |", "|" + "---|" * 6]
        for s in self.tasks:
            if s.failure is not None:
                lines.append(f"| {s.task} | {s.metric} | failed: {s.failure} | | | |")
                continue
            others = ", ".join(f"{name} {s.text(name)}" for name in s.values if name != s.metric)
            lines.append(
                f"| {s.task} | {s.metric} | {s.text(s.metric)} | {others} | {s.num_questions:,} | "
                f"{s.num_fewshot} |"
            )
        return "\n".join(lines) + "\n"
