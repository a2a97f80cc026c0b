"""Benchmarks as influence targets: the loss on the right answer, given the question.

In: a suite, a tokenizer, and a split that the suite does not report. Out: for each task a
`datasets.Dataset` for `TikMixCallback(targets=...)`, whose rows have `input_ids` (the question
without solved examples, then its right answer) and `labels` (-100 on the question). Prompts,
answers and tokens are those that lm-eval scores: the loss of a row, summed over its tokens, is
minus the log-likelihood that the harness finds for the right answer.

TiKMiX (Wang et al. 2025, arXiv 2508.17677, section 2) takes benchmarks as targets and does not say
which split. Here it is never the scored one, and rows that stand in both are refused.
"""

# N rows.

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, Features, Value
from transformers import PreTrainedTokenizerBase

from tikmix_hf.checks import check_count
from tikmix_hf.harness.pairs import Pair, encode, pairs_of, ready
from tikmix_hf.harness.suite import BENCHMARK, Suite, SuiteTask
from tikmix_hf.rows import check_rows
from tikmix_hf.signals.gradients import IGNORED_LABEL

REFUSE, DROP = "refuse", "drop"
logger = logging.getLogger(__name__)

_BYTES = 4  # of a token
_KEY = 16
"""Tokens at the end of rows, at most, by which they are sorted before they are compared."""
_INTEGERS = datasets.Sequence(Value("int32"))


def benchmark_targets(
    suite: Suite | str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data_dir: str | Path | None = None,
    split: str | Mapping[str, str] = "train",
    max_length: int | None = None,
    shared: str = REFUSE,
) -> dict[str, Dataset]:
    """Makes a target of each of a suite's benchmarks.

    Args:
        suite: a `Suite`, or what `Suite.load` takes; `Suite.load("paper").only(["arc_easy"])` for
            some of its tasks.
        tokenizer: the model's.
        data_dir: folder with the benchmarks' rows (`data.py`); None asks the Hub or its cache.
        split: whose rows become targets, such as "train" or "validation"; one for all, or by task.
        max_length: tokens of a row, at most; longer questions lose their beginning, as in lm-eval.
        shared: what to do with rows that the suite is scored on too, question and answer: "refuse"
            them with an error, or "drop" them and log how many. Rows of different text are told
            apart by what `max_length` leaves of them, as `check_targets_apart` tells them.

    Returns:
        Rows by task, each with `input_ids` and `labels`, of different lengths.

    Raises:
        ValueError: a setting is wrong, the split is the scored one or missing, or has rows of the
            scored one; says which.
        FileNotFoundError: the rows are nowhere; says what to put where.

    Example:
        >>> arc = Suite.load("quick").only(["arc_easy"])
        >>> targets = benchmark_targets(arc, tokenizer, data_dir="benchmarks", shared="drop")
        >>> TikMixCallback(train, targets=targets, every_steps=500)
    """
    suite = suite if isinstance(suite, Suite) else Suite.load(suite)
    if shared not in (REFUSE, DROP):
        raise ValueError(f"`shared` must be {REFUSE!r} or {DROP!r}; got {shared!r}.")
    if max_length is not None:
        check_count("max_length", max_length, least=2)
    names = [task.task for task in suite.tasks]
    if not isinstance(split, str) and (missing := sorted(set(names) ^ set(split))):
        raise ValueError(
            f"`split` must name a split for each task of the suite ({', '.join(names)}); the tasks "
            f"that only one of them has: {', '.join(missing)}."
        )
    found = {}
    for task in suite.tasks:
        wanted = split if isinstance(split, str) else split[task.task]
        found[task.task] = _pairs(task, wanted, data_dir)
    scored = [_Scored(task, tokenizer, data_dir) for task in suite.tasks]
    return {
        name: _target(
            pairs,
            scored,
            tokenizer,
            max_length=max_length,
            drops=shared == DROP,
            where=f"{name}'s {split if isinstance(split, str) else split[name]}",
        )
        for name, pairs in found.items()
    }


def check_targets_apart(
    targets: Mapping[str, Dataset],
    suite: Suite | str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data_dir: str | Path | None = None,
) -> None:
    """Refuses targets, wherever they come from, with rows that a suite's scores are made of.

    A row is taken for a scored one if either ends with all tokens of the other: whatever was cut on
    the left of it or put there, such as solved examples. So it must end with a question and its
    answer, as the rows of `benchmark_targets` do.

    Args:
        targets: tokenised rows by name, as `TikMixCallback` takes them.
        suite: what is reported; tasks made of held-out text are left out.
        tokenizer: that made the targets.
        data_dir: folder with the benchmarks' rows; None asks the Hub or its cache.

    Raises:
        ValueError: a row stands in both; says which target, task and row.
        FileNotFoundError: the suite's rows are nowhere.
    """
    suite = suite if isinstance(suite, Suite) else Suite.load(suite)
    for name, rows in targets.items():
        check_rows(rows, f"`targets[{name!r}]`")
    for task in suite.tasks:
        if task.kind != BENCHMARK:
            continue
        scored = _Scored(task, tokenizer, data_dir)
        for name, rows in targets.items():
            if found := [n for n, row in enumerate(rows["input_ids"]) if scored.has_tokens(row)]:
                raise ValueError(
                    f"`targets[{name!r}]` must not have rows that {task.task} of the suite "
                    f"{suite.name!r} is scored on; got {len(found)}, such as row {found[0]}. Make "
                    "them of another split, or leave those rows out with targets.select."
                )


class _Scored:
    """The questions that a task is scored on, with their answers.

    Args:
        task: of kind "benchmark".
        tokenizer: of the rows that they are compared with.
        data_dir: folder with the benchmarks' rows; None asks the Hub or its cache.
    """

    def __init__(
        self, task: SuiteTask, tokenizer: PreTrainedTokenizerBase, data_dir: str | Path | None
    ) -> None:
        self.task = task.task
        pairs = list(pairs_of(task, ready(task, data_dir), None))
        self._texts = {_hash(pair) for pair in pairs}
        encoded = (encode(pair, tokenizer) for pair in pairs)
        rows = {_as_bytes([*question, *answer]) for question, answer in encoded}
        self._key = min([_KEY * _BYTES, *map(len, rows)])
        self._by_end: dict[bytes, list[bytes]] = {}
        for row in rows:
            self._by_end.setdefault(row[-self._key :], []).append(row)

    def has(self, pair: Pair, tokens: Sequence[int]) -> bool:
        """Whether a question and its answer are scored, whole or as their tokens are left."""
        return _hash(pair) in self._texts or self.has_tokens(tokens)

    def has_tokens(self, tokens: Sequence[int]) -> bool:
        """Whether these or a scored row's end with all tokens of the other."""
        row = _as_bytes(tokens)
        if len(row) < self._key:
            near = (one for own in self._by_end.values() for one in own)
        else:
            near = self._by_end.get(row[-self._key :], ())
        return any(one.endswith(row) or row.endswith(one) for one in near)


def _pairs(task: SuiteTask, split: str, data_dir: str | Path | None) -> list[Pair]:
    """A split that is to become a target."""
    if task.kind != BENCHMARK:
        raise ValueError(
            f"`suite` must have benchmarks alone; {task.task} is made of the domains' held-out "
            "text. Take that text itself as a target."
        )
    return list(pairs_of(task, ready(task, data_dir), split))


def _target(
    pairs: Sequence[Pair],
    scored: Sequence[_Scored],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    drops: bool,
    where: str,
) -> Dataset:
    rows = [
        _row(encode(pair, tokenizer), max_length, f"row {number} of {where}")
        for number, pair in enumerate(pairs)
    ]
    both = {
        number: own.task
        for own in scored
        for number, (pair, row) in enumerate(zip(pairs, rows, strict=True))
        if own.has(pair, row["input_ids"])
    }
    by = ", ".join(sorted(set(both.values())))
    if both and not drops:
        raise ValueError(
            f"`split` must have no rows that the suite is scored on; {len(both)} of the "
            f"{len(pairs)} rows of {where} are, as rows of {by}, such as row {min(both)}. Pass "
            "shared='drop' to leave them out, or another `split`."
        )
    kept = [row for number, row in enumerate(rows) if number not in both]
    if not kept:
        raise ValueError(
            f"`split` must have a row that is not scored, too; {where} has none. Choose another."
        )
    if both:
        message = "%d of the %d rows of %s are left out of the target: %s is scored on them."
        logger.warning(message, len(both), len(pairs), where, by)
    return Dataset.from_list(kept, features=Features({"input_ids": _INTEGERS, "labels": _INTEGERS}))


def _row(parts: tuple[list[int], list[int]], max_length: int | None, where: str) -> dict[str, Any]:
    question, answer = parts
    longest = None if max_length is None else max_length - len(answer)
    # The first token of a row is never predicted: without a question it would be the answer's.
    if not answer or not question or (longest is not None and longest < 1):
        raise ValueError(
            f"{where} must have a question and an answer of at most `max_length` ({max_length}) "
            f"less one tokens; got {len(question)} and {len(answer)}. Raise `max_length`."
        )
    question = question if longest is None else question[-longest:]
    tokens = np.array([*question, *answer], np.int32)
    labels = tokens.copy()
    labels[: len(question)] = IGNORED_LABEL
    return {"input_ids": tokens, "labels": labels}


def _hash(pair: Pair) -> bytes:
    """The same for two rows that differ in white space alone."""
    words = "\0".join(" ".join(part.split()) for part in pair)
    return hashlib.blake2b(words.encode(), digest_size=16).digest()


def _as_bytes(tokens: Sequence[int]) -> bytes:
    return np.asarray(tokens, f"<u{_BYTES}").tobytes()
