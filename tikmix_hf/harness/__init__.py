"""Downstream benchmarks through lm-evaluation-harness, in the training loop and after it.

`evaluate` scores a live model on a `Suite`, `EvalCallback` does so while the Trainer trains. It
needs the extra `eval`: pip install "tikmix-hf[eval]".
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tikmix_hf.harness.callback import EvalCallback
    from tikmix_hf.harness.scores import SuiteScores, TaskScores
    from tikmix_hf.harness.scoring import Harness, evaluate
    from tikmix_hf.harness.suite import Suite, SuiteTask

__all__ = [
    "EvalCallback",
    "Harness",
    "Suite",
    "SuiteScores",
    "SuiteTask",
    "TaskScores",
    "evaluate",
]

_ROOMS = {
    "EvalCallback": "callback",
    "Harness": "scoring",
    "Suite": "suite",
    "SuiteScores": "scores",
    "SuiteTask": "suite",
    "TaskScores": "scores",
    "evaluate": "scoring",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"tikmix_hf.harness.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'tikmix_hf.harness' has no attribute {name!r}")
