"""Subsets: what lm-eval found of a task's parts, each by itself and all together.

In: lm-eval's results and logged samples, by subset (a domain of the run's own, a subject of MMLU),
and the answers of multiple-choice questions. Out: values and standard errors by metric. Together,
subsets count by their questions, and their errors add up as those of independent parts.
"""

# N questions of a subset.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tikmix_hf.harness.answers import Answer, scores

# lm-eval says it of metrics without a standard error.
_NO_ERROR = "N/A"
_ROLLING = ("bits_per_byte", "loglikelihood_rolling")

Read = tuple[float, float | None]
"""A value, and its standard error if it has one."""


def by_subset(
    found: Any, answers: Mapping[str, Sequence[Answer]]
) -> dict[str, dict[str, dict[str, float] | int]]:
    """Each subset's, as `TaskScores.subsets` holds them."""
    subsets = {}
    for subset, sizes in found["n-samples"].items():
        values, errors = _with_ours(_read(found, subset), answers.get(subset, ()))
        subsets[subset] = {
            "values": values,
            "standard_errors": errors,
            "num_questions": sizes["effective"],
        }
    return subsets


def pooled(
    found: Any, answers: Mapping[str, Sequence[Answer]]
) -> tuple[dict[str, float], dict[str, float]]:
    """Values and standard errors over the questions of all subsets."""
    by_label: dict[str, dict[str, Read]] = {}
    for subset in found["results"]:
        for label, read in _read(found, subset).items():
            by_label.setdefault(label, {})[subset] = read
    sizes = {subset: own["effective"] for subset, own in found["n-samples"].items()}
    together = {
        label: pool([(sizes[subset], *read) for subset, read in own.items()])
        for label, own in by_label.items()
    }
    return _with_ours(together, [answer for own in answers.values() for answer in own])


def pool(parts: Sequence[tuple[int, float, float | None]]) -> Read:
    """The mean of parts, each weighted by its number of questions, which comes first."""
    total = sum(size for size, _, _ in parts)
    value = sum(size * value for size, value, _ in parts) / total
    if any(error is None for _, _, error in parts):
        return value, None
    return value, math.sqrt(sum((size * (error or 0.0)) ** 2 for size, _, error in parts)) / total


def weighted_mean_and_error(values_N: Any, weights_N: Any) -> tuple[float, float]:
    """A weighted mean of questions' values, and its standard error as that of a ratio.

    Of bits per byte with bytes as weights it is all bits over all bytes; with weights that are
    equal, the mean and its usual error (Cochran 1977, Sampling Techniques, equation 6.13, without
    the correction for finite populations). The error of a single question is 0.
    """
    values_N, weights_N = np.asarray(values_N, np.float64), np.asarray(weights_N, np.float64)
    total, number = weights_N.sum(), len(values_N)
    mean = float((values_N * weights_N).sum() / total)
    square = ((weights_N * (values_N - mean)) ** 2).sum() * number / max(number - 1, 1)
    return mean, float(np.sqrt(square) / total)


def bits_and_bytes(pairs: Sequence[tuple[float, int]]) -> tuple[list[float], list[int]]:
    """Bits per byte of whole texts, and their bytes, of what lm-eval logs: nats and bytes."""
    bits = [-nats / math.log(2) / num_bytes for nats, num_bytes in pairs]
    return bits, [num_bytes for _, num_bytes in pairs]


def _with_ours(
    read: Mapping[str, Read], answers: Sequence[Answer]
) -> tuple[dict[str, float], dict[str, float]]:
    """Adds our metrics of multiple-choice answers; of the same name, lm-eval's stands."""
    values = {label: value for label, (value, _) in read.items()}
    errors = {label: error for label, (_, error) in read.items() if error is not None}
    if not answers:
        return values, errors
    added, added_errors = scores(answers)
    return {**added, **values}, {**added_errors, **errors}


def _read(found: Any, subset: str) -> dict[str, Read]:
    """lm-eval's own metrics of a subset; of a metric with several filters, each."""
    results = found["results"][subset]
    filters = {key.partition(",")[2] for key in results if "," in key}
    read = {}
    for key, value in results.items():
        name, comma, used = key.partition(",")
        if not comma or name.endswith("_stderr"):
            continue
        error = results.get(f"{name}_stderr,{used}", _NO_ERROR)
        if (name, found["configs"][subset]["output_type"]) == _ROLLING:
            # lm-eval has no error of all bits over all bytes.
            pairs = [sample[name] for sample in found["samples"][subset]]
            error = weighted_mean_and_error(*bits_and_bytes(pairs))[1]
        label = name if len(filters) == 1 else key
        read[label] = (float(value), None if error == _NO_ERROR else float(error))
    return read
