"""Metrics of answers' log-likelihoods, as `evaluate.Metric`s that work offline.

`evaluate.load("accuracy")` asks the Hub for a script; these classes are the script. Both take
log-likelihoods in nats and return a mean over questions with its standard error (the sample's
standard deviation over the root of the number of questions; 0 for a single one, where lm-eval says
"N/A").
"""

# N questions, C choices of a question.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

FLOAT, WHOLE = datasets.Value("float64"), datasets.Value("int64")


class BitsPerByte(evaluate.Metric):
    """Bits that a model needs for the right answer, for each byte of it; lower is better.

    `- log-likelihood / (ln 2 x bytes)` of each question's right answer, averaged over questions
    (as in OLMES, Gu et al. 2024, arXiv 2406.08446). It does not depend on the tokenizer, and moves
    long before accuracy does.

    Example:
        >>> BitsPerByte(keep_in_memory=True).compute(
        ...     log_likelihoods=[-4 * math.log(2)], num_bytes=[2])
        {'bits_per_byte': 2.0, 'bits_per_byte_stderr': 0.0}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Bits per byte of the right answer.",
            citation="",
            inputs_description="log_likelihoods: nats; num_bytes: of the UTF-8 text they are for.",
            features=datasets.Features({"log_likelihoods": FLOAT, "num_bytes": WHOLE}),
        )

    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, log_likelihoods: Sequence[float], num_bytes: Sequence[int]
    ) -> dict[str, float]:
        nats_N = -np.asarray(log_likelihoods, dtype=np.float64)
        return _mean("bits_per_byte", nats_N / math.log(2) / np.asarray(num_bytes))


class NormalizedAccuracy(evaluate.Metric):
    """Share of questions whose right answer has the highest log-likelihood for each character.

    What lm-eval calls `acc_norm`: long answers have low likelihoods, and are not punished for it.

    Example:
        >>> NormalizedAccuracy(keep_in_memory=True).compute(
        ...     log_likelihoods=[[-3.0, -4.0]], num_characters=[[1, 2]], gold=[1])
        {'acc_norm': 1.0, 'acc_norm_stderr': 0.0}
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy of the choice with the highest log-likelihood per character.",
            citation="",
            inputs_description="log_likelihoods and num_characters by choice; gold: its index.",
            features=datasets.Features(
                {
                    "log_likelihoods": datasets.Sequence(FLOAT),
                    "num_characters": datasets.Sequence(WHOLE),
                    "gold": WHOLE,
                }
            ),
        )

    def _compute(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        log_likelihoods: Sequence[Sequence[float]],
        num_characters: Sequence[Sequence[int]],
        gold: Sequence[int],
    ) -> dict[str, float]:
        with np.errstate(
            divide="ignore"
        ):  # an empty choice is as unlikely as can be, as in lm-eval
            hits_N = [
                int(np.argmax(np.divide(nats_C, lengths_C)) == right)
                for nats_C, lengths_C, right in zip(
                    log_likelihoods, num_characters, gold, strict=True
                )
            ]
        return _mean("acc_norm", np.asarray(hits_N, dtype=np.float64))


def mean_and_error(values_N: Any) -> tuple[float, float]:
    """A mean and its standard error; 0 for a single value."""
    values = np.asarray(values_N, dtype=np.float64)
    error = values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), float(error)


def _mean(name: str, values_N: Any) -> dict[str, float]:
    mean, error = mean_and_error(values_N)
    return {name: mean, f"{name}_stderr": error}
