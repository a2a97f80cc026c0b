"""A benchmark's questions with their right answers, as lm-eval scores them.

In: one of a suite's tasks, and a split of it. Out: `Pair`s of text, and their tokens. Prompts,
delimiters and answers are made by lm-eval's own task, so that nothing is asked in other words than
the harness asks it in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import apply_template
from transformers import PreTrainedTokenizerBase

from tikmix_hf.harness.questions import rows_named
from tikmix_hf.harness.suite import SuiteTask
from tikmix_hf.harness.tasks import Prepared, prepare, scored_split


class Pair(NamedTuple):
    """A question and its right answer, as lm-eval would score them."""

    question: str
    answer: str
    """The delimiter that precedes it included."""


def ready(task: SuiteTask, data_dir: str | Path | None) -> Prepared:
    """Without solved examples, which would ask for a split that nothing here needs."""
    return prepare(dataclasses.replace(task, num_fewshot=0, fewshot_split=None), data_dir)


def pairs_of(task: SuiteTask, prepared: Prepared, split: str | None) -> Iterator[Pair]:
    """A split's questions and answers, of all subsets; of the scored split if it is None."""
    for name, own in prepared.tasks.items():
        scored = scored_split(own.config.to_dict())
        if split == scored:
            raise ValueError(
                f"`split` must not be the one that {task.task} is scored on; got {split!r}. "
                f"{_choice(own, scored)}"
            )
        wanted = split or scored
        if wanted not in own.dataset:
            raise ValueError(
                f"`split` must be one that {task.task} has; got {wanted!r}. {_choice(own, scored)}"
            )
        with rows_named(name, prepared.files):
            yield from _pairs(own, wanted, task.answer)


def _choice(task: ConfigurableTask, scored: str) -> str:
    others = [name for name in task.dataset if name != scored]
    if others:
        return f"Choose from: {', '.join(others)}."
    return "It has no other: add train.jsonl beside it, or leave the task out with suite.only."


def _pairs(task: ConfigurableTask, split: str, answer: str | None) -> Iterator[Pair]:
    rows: Iterable[dict[str, Any]] = task.dataset[split]
    if task.config.process_docs is not None:
        rows = task.config.process_docs(rows)
    for number, doc in enumerate(rows):
        try:
            yield _pair(task, doc, answer)
        except (ArithmeticError, LookupError, TypeError, ValueError, TemplateError) as err:
            reason = f"{type(err).__name__}: {err}"
            raise ValueError(f"row {number} of {split} has no right answer ({reason})") from err


def _pair(task: ConfigurableTask, doc: dict[str, Any], answer: str | None) -> Pair:
    """Reads the pair off the requests that lm-eval makes of a row."""
    question = task.fewshot_context(doc, num_fewshot=0, gen_prefix=task.doc_to_prefix(doc))
    made = task.construct_requests(doc=doc, ctx=question, metadata=(task.config["task"], 0, 1))
    requests = made if isinstance(made, list) else [made]
    right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    right = right[0] if isinstance(right, list) else right
    if task.OUTPUT_TYPE == "multiple_choice":
        choices = task.doc_to_choice(doc)
        place = right if isinstance(right, int) else choices.index(str(right))
        if not 0 <= place < len(choices):
            raise ValueError(f"answer {place} of {len(choices)}")
        return Pair(*requests[place].args[:2])
    if task.OUTPUT_TYPE == "loglikelihood":
        return Pair(*requests[0].args[:2])
    if task.OUTPUT_TYPE == "generate_until":
        text = right if answer is None else apply_template(answer, doc)
        return Pair(requests[0].args[0], f"{task.config.target_delimiter}{text}")
    raise ValueError(f"{task.OUTPUT_TYPE} asks no questions; leave the task out")


def encode(pair: Pair, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Tokens of a question and of its answer, as lm-eval's `HFLM` makes them.

    Both are tokenised together, so that the border may fall into neither's favour; an empty
    question is the beginning of a text.
    """
    question, answer = pair
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    start: Any = end if begin is None else begin
    if not question:
        tokens = tokenizer.encode(answer, add_special_tokens=False)
        return ([start], tokens) if tokens[:1] != [start] else (tokens[:1], tokens[1:])
    bare = question.rstrip()
    answer = question[len(bare) :] + answer
    special: dict[str, Any] = {}
    if start is not None and bare.startswith(str(tokenizer.decode(start))):
        special["add_special_tokens"] = False
    before = tokenizer.encode(bare, **special)
    return before, tokenizer.encode(bare + answer, **special)[len(before) :]
