"""Asking: lm-eval's `evaluate`, but for its bootstrap.

In: a `LiveModel` and lm-eval's tasks. Out: what lm-eval found. It estimates the standard errors of
perplexities and their kin from 100,000 resamples in a pool of processes, which it would fork in the
middle of training. Here there is no pool: means have their usual standard error, the same as
lm-eval's to the last digit, and other metrics have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import lm_eval
from lm_eval.api.metrics import mean, mean_stderr
from lm_eval.api.task import ConfigurableTask

from tikmix_hf.harness.language_model import LiveModel


def ask(
    language_model: LiveModel, tasks: Mapping[str, ConfigurableTask], *, limit: int | None
) -> dict[str, Any]:
    """Asks the first `limit` questions of each task; returns lm-eval's `EvalResults`."""
    wanted: Any = {"tasks": dict(tasks), "groups": {}, "group_map": {}}
    found: Any = lm_eval.evaluate(
        language_model, wanted, limit=limit, bootstrap_iters=0, log_samples=True
    )
    assert found is not None, "every rank is rank 0 of 1 to lm-eval"
    for name, task in tasks.items():
        results = found["results"][name]
        for key in [key for key in results if "," in key]:
            metric, _, used = key.partition(",")
            if metric.endswith("_stderr") or task.aggregation().get(metric, mean) is not mean:
                continue
            values = [
                sample[metric] for sample in found["samples"][name] if sample["filter"] == used
            ]
            if len(values) > 1:
                results[f"{metric}_stderr,{used}"] = mean_stderr(values)
    return found


def fingerprint(tasks: Mapping[str, ConfigurableTask]) -> bytes:
    """Tells apart tasks whose requests have been built, by every prompt and answer in them."""
    digest = hashlib.blake2b(digest_size=16)
    for name, task in tasks.items():
        digest.update(name.encode())
        for request in task.instances:
            digest.update(repr(request.arguments).encode())
    return digest.digest()
