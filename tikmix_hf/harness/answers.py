"""Answers: what lm-eval logged of multiple-choice questions, as input of our metrics.

In: an lm-eval task and its logged samples. Out: log-likelihoods and lengths of the choices, which
of them is right, and from those bits per byte and normalised accuracy.
"""

# C choices of a question.

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lm_eval.api.task import ConfigurableTask

from tikmix_hf.harness.metrics import BitsPerByte, NormalizedAccuracy

Sample = Mapping[str, Any]


class Answer(NamedTuple):
    """One question's."""

    nats_C: list[float]
    """Log-likelihood of each choice."""
    bytes_C: list[int]
    """UTF-8 bytes that each log-likelihood is for, the space before the choice among them."""
    characters_C: list[int]
    """Characters of each choice without that space, which lm-eval normalises by."""
    right: tuple[int, ...]
    """Which of them are right; mostly one."""

    @property
    def gold(self) -> int:
        """The right choice that is the most likely."""
        return max(self.right, key=lambda one: self.nats_C[one])

    @property
    def gold_by_character(self) -> int:
        """The right choice that is the most likely for its length: any of several is right."""
        return max(self.right, key=lambda one: self.nats_C[one] / max(self.characters_C[one], 1))


def multiple_choice(task: ConfigurableTask, samples: Sequence[Sample]) -> Iterable[Answer]:
    """Reads answers off logged samples; those without a right choice are left out."""
    for sample in samples:
        doc = sample["doc"]
        choices = task.doc_to_choice(doc)
        nats_C = [float(nats) for nats, _ in sample["filtered_resps"][: len(choices)]]
        right = task.doc_to_text(doc) if task.multiple_input else sample["target"]
        right = [_index(one, choices) for one in (right if isinstance(right, list) else [right])]
        known = [one for one in right if one is not None and one < len(choices)]
        if not known:
            continue
        yield Answer(
            nats_C=nats_C,
            bytes_C=[len(args[1].encode()) for args in sample["arguments"][: len(choices)]],
            characters_C=[len(choice) for choice in choices],
            right=tuple(known),
        )


def bits_per_byte(sample: Sample) -> float | None:
    """Of a logged question's right choice; None where no single choice is known to be right."""
    right, arguments = sample["target"], sample["arguments"]
    is_choice = isinstance(right, int) and 0 <= right < len(arguments) > 1
    if not is_choice or len(arguments) != len(sample["filtered_resps"]):
        return None
    nats, _ = sample["filtered_resps"][right]
    return -float(nats) / math.log(2) / len(arguments[right][1].encode())


def scores(answers: Sequence[Answer]) -> tuple[dict[str, float], dict[str, float]]:
    """Bits per byte and normalised accuracy of answers, and their standard errors."""
    bits = BitsPerByte(keep_in_memory=True).compute(
        log_likelihoods=[answer.nats_C[answer.gold] for answer in answers],
        num_bytes=[answer.bytes_C[answer.gold] for answer in answers],
    )
    normalised = NormalizedAccuracy(keep_in_memory=True).compute(
        log_likelihoods=[answer.nats_C for answer in answers],
        num_characters=[answer.characters_C for answer in answers],
        gold=[answer.gold_by_character for answer in answers],
    )
    assert bits is not None, "this process computes them"
    assert normalised is not None, "this process computes them"
    found = {**bits, **normalised}
    values = {name: value for name, value in found.items() if not name.endswith("_stderr")}
    return values, {name: found[f"{name}_stderr"] for name in values}


def _index(right: Any, choices: Sequence[str]) -> int | None:
    """A right answer's place, which tasks give as a number or as the text itself."""
    if isinstance(right, int):
        return right
    return choices.index(right) if right in choices else None
