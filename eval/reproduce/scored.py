"""How a reproduction's models are scored: multiple-choice benchmarks through the harness.

In: a model and the data folder. Out: bits per byte of the right answers and accuracies. Models of
this size answer at chance, so bits per byte decide (what moves first), and accuracy is told.
Without a data folder the bits per byte of the targets' judged text stand in.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import arena_judge
import numpy as np
from arena_data import EMBEDDED, ArenaText, data_folder

from reproduce.study import Setting
from tikmix_hf import harness

TASKS = {
    "arc_easy": "arc/arc_easy.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "openbookqa": "openbookqa/openbookqa.yaml",
    "piqa": "piqa/piqa.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
}
"""To lm-eval's definition. Of the first three, another split is a target; the others are out of
domain."""
BITS, ACCURACY = "bits_per_byte", "acc_norm"


def score(setting: Setting, text: ArenaText, model: Any) -> dict[str, dict[str, float]]:
    """Scores a model.

    Returns:
        By task, `bits_per_byte` and, of questions, `acc_norm`; by target, `text`, the bits per
        byte of its judged text.
    """
    rows = arena_judge.judged_rows(
        text.judged, setting.arena.training.judged_rows, text.token_bytes_V
    )
    judged = arena_judge.bits_per_byte(model, rows)
    if setting.arena.data == EMBEDDED:
        return {BITS: judged, ACCURACY: {}, "text": judged}
    found = harness.evaluate(
        model,
        text.tokenizer,
        suite(setting.limit),
        data_dir=data_folder(setting.arena) / "benchmarks",
        progress=False,
        raises=True,
    )
    by_metric = {
        metric: {task.task: task.values[metric] for task in found.tasks}
        for metric in (BITS, ACCURACY)
    }
    return {**by_metric, "text": judged}


def suite(limit: int) -> harness.Suite:
    """The benchmarks, without solved examples."""
    tasks = [
        harness.SuiteTask(task=name, lm_eval=path, metric=BITS) for name, path in TASKS.items()
    ]
    return harness.Suite(name="reproduce", tasks=tuple(tasks), limit=limit)


def mean_bits(scores: dict[str, dict[str, float]]) -> float:
    """Mean over tasks of the bits per byte; lower is better."""
    return float(np.mean(list(scores[BITS].values())))
