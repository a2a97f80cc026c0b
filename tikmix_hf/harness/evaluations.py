"""Evaluation: one line of `evaluations.jsonl`, which joins scores to the run and its schedule.

In: what a suite scored at a step, and which samples training had read. Out: the JSON line, and the
file of these lines, which is replaced as a whole or not at all: where the disk is full the lines
that were there stay, and the new one waits for the next write.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tikmix_hf.files import drop_records_after, finite, read_records, write_text
from tikmix_hf.harness.scores import SuiteScores

logger = logging.getLogger(__name__)

EVALUATIONS = "evaluations.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far training was."""

    num_samples: int
    """That training had read."""
    tokens: Mapping[str, int]
    """Of those samples, by domain."""
    segment: int
    """Place in the schedule of the mixture that the last of these samples came under."""
    mixture: Mapping[str, float]
    """That mixture: shares of tokens by domain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What a suite scored at a step."""

    step: int
    """Optimizer steps done."""
    scores: SuiteScores
    """The suite's."""
    progress: Progress | None
    """None where training reads no InterleavedDomainDataset in order."""
    seconds: float
    """That it took."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain JSON types; what is not finite, as of a model that diverged, is None."""
        read = self.progress
        return {
            "step": self.step,
            "num_samples": None if read is None else read.num_samples,
            "num_tokens": None if read is None else sum(read.tokens.values()),
            "tokens": None if read is None else dict(read.tokens),
            "segment": None if read is None else read.segment,
            "mixture": None if read is None else dict(read.mixture),
            "seconds": round(self.seconds, 3),
            **finite(self.scores.to_dict()),
        }

    def __str__(self) -> str:
        """In one line: when, each task's metric, what failed, and what it cost."""
        parts = [
            f"{s.task} failed"
            if s.failure is not None
            else f"{s.task} {s.metric} {s.text(s.metric)}"
            for s in self.scores.tasks
        ]
        head = f"[tikmix] step {self.step}, suite {self.scores.suite}"
        return f"{head}: {', '.join(parts)} ({self.seconds:.1f} s)"


class EvaluationFile:
    """The lines of a run, some of which may be other suites'.

    Args:
        path: of the file; one process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    def resume(self, step: int, suite: str) -> SuiteScores | None:
        """Takes back lines after `step`; at step 0 another run's file is set aside.

        Returns:
            What a suite scored at that very step, if it was asked.
        """
        self._waiting = []
        drop_records_after(self.path, step)
        for line in read_records(self.path) if self.path.is_file() else ():
            if (line["suite"], line["step"]) == (suite, step):
                return SuiteScores.from_dict(line)
        return None

    def add(self, evaluation: Evaluation) -> None:
        """Adds a line; one that cannot be written is logged, and tried again with the next."""
        self._waiting.append(json.dumps(evaluation.to_dict(), allow_nan=False) + "\n")
        try:
            earlier = self.path.read_text("utf-8") if self.path.is_file() else ""
            write_text(self.path, earlier + "".join(self._waiting))
        except OSError as err:
            logger.error(
                "step %d: %s could not be written (%s); its earlier lines are whole, and %d wait "
                "for the next evaluation. Make room on the disk.",
                *(evaluation.step, self.path, err, len(self._waiting)),
            )
        else:
            self._waiting = []
