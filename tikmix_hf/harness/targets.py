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
COMPARED_TOKENS = 64
"""Tokens at the end of a row, at most, by which it is told again even if it was cut on the left."""

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
        shared: what to do with rows that the scored split has too, question and answer: "refuse"
            them with an error, or "drop" them.

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
    return {
        task.task: _target(
            task,
            tokenizer,
            data_dir=data_dir,
            split=split if isinstance(split, str) else split[task.task],
            max_length=max_length,
            shared=shared,
        )
        for task in suite.tasks
    }


def check_targets_apart(
    targets: Mapping[str, Dataset],
    suite: Suite | str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data_dir: str | Path | None = None,
) -> None:
    """Refuses targets, wherever they come from, with rows that a suite's scores are made of.

    Rows are told by their last COMPARED_TOKENS tokens, or all if they have fewer, so they must end
    with a question and its answer, as those of `benchmark_targets` do.

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
    ends = {name: [_end(row) for row in rows["input_ids"]] for name, rows in targets.items()}
    lengths = {len(end) for own in ends.values() for end in own}
    for task in suite.tasks:
        if task.kind != BENCHMARK:
            continue
        scored = {
            _end([*question, *answer], length)
            for question, answer in (
                encode(pair, tokenizer) for pair in pairs_of(task, ready(task, data_dir), None)
            )
            for length in lengths
        }
        for name, own in ends.items():
            if found := [number for number, end in enumerate(own) if end in scored]:
                raise ValueError(
                    f"`targets[{name!r}]` must not have rows that {task.task} of the suite "
                    f"{suite.name!r} is scored on; got {len(found)}, such as row {found[0]}. Make "
                    "them of another split, or leave those rows out with targets.select."
                )


def _target(
    task: SuiteTask,
    tokenizer: PreTrainedTokenizerBase,
    *,
    data_dir: str | Path | None,
    split: str,
    max_length: int | None,
    shared: str,
) -> Dataset:
    if task.kind != BENCHMARK:
        raise ValueError(
            f"`suite` must have benchmarks alone; {task.task} is made of the domains' held-out "
            "text. Take that text itself as a target."
        )
    prepared = ready(task, data_dir)
    pairs = list(pairs_of(task, prepared, split))
    scored = {_hash(pair) for pair in pairs_of(task, prepared, None)}
    kept = [(number, pair) for number, pair in enumerate(pairs) if _hash(pair) not in scored]
    if len(kept) < len(pairs) and shared == REFUSE:
        both = sorted(set(range(len(pairs))) - {number for number, _ in kept})
        raise ValueError(
            f"`split` {split!r} of {task.task} has {len(both)} of its {len(pairs)} rows in the "
            f"split that is scored, too, such as row {both[0]}. Pass shared='drop' to leave them "
            "out, or another `split`."
        )
    if not kept:
        raise ValueError(
            f"`split` {split!r} of {task.task} has no row that is not scored, too. Choose another."
        )
    rows = [
        _row(encode(pair, tokenizer), max_length, f"row {number} of {task.task}'s {split}")
        for number, pair in kept
    ]
    return Dataset.from_list(rows, features=Features({"input_ids": _INTEGERS, "labels": _INTEGERS}))


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


def _end(tokens: Sequence[int], length: int = COMPARED_TOKENS) -> tuple[int, ...]:
    return tuple(tokens[-length:])
