"""Downstream benchmarks through lm-evaluation-harness, in the training loop and after it.

`evaluate` scores a live model on a `Suite`, `EvalCallback` does so while the Trainer trains. It
needs the extra `eval`: pip install "tikmix-hf[eval]". `benchmark_targets` makes influence targets
of a benchmark's other splits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tikmix_hf.harness.callback import EvalCallback
    from tikmix_hf.harness.scores import SuiteScores, TaskScores
    from tikmix_hf.harness.scoring import Harness, evaluate
    from tikmix_hf.harness.suite import Suite, SuiteTask
    from tikmix_hf.harness.targets import benchmark_targets, check_targets_apart

__all__ = [
    "EvalCallback",
    "Harness",
    "Suite",
    "SuiteScores",
    "SuiteTask",
    "TaskScores",
    "benchmark_targets",
    "check_targets_apart",
    "evaluate",
]

_ROOMS = {
    "EvalCallback": "callback",
    "Harness": "scoring",
    "Suite": "suite",
    "SuiteScores": "scores",
    "SuiteTask": "suite",
    "TaskScores": "scores",
    "benchmark_targets": "targets",
    "check_targets_apart": "targets",
    "evaluate": "scoring",
}
_OF_THE_EXTRA = ("lm_eval", "yaml")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        try:
            room = import_module(f"tikmix_hf.harness.{_ROOMS[name]}")
        except ModuleNotFoundError as err:
            if (err.name or "").partition(".")[0] not in _OF_THE_EXTRA:
                raise
            raise ImportError(
                f"tikmix_hf.harness.{name} needs {err.name}, which is not installed. Run "
                'pip install "tikmix-hf[eval]".'
            ) from err
        return getattr(room, name)
    raise AttributeError(f"module 'tikmix_hf.harness' has no attribute {name!r}")
