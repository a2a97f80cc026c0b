"""Tasks made of held-out text of the run's own domains; they need no download.

In: held-out rows by domain and their tokenizer. Out: lm-eval tasks, one for each domain, which
lm-eval asks and scores like any other. Three kinds:

* `cloze`: the last word of a passage, given all before it, asked as LAMBADA is (Paperno et al.
  2016, arXiv 1606.06031): `acc` is the share of words that the model would write greedily. Its
  passages were chosen by people, who could guess the word; ours are as they come.
* `continuation`: which of four endings is the passage's own. The other three end other passages of
  the same domain and have as many words, so that subject and length tell nothing; chance is 0.25.
* `bits_per_byte`: what a model needs for whole passages, all bits over all bytes of a domain (Gao
  et al. 2020, arXiv 2101.00027, section 3.1). The figure of several domains is their mean, each
  weighted by its passages.

Questions depend on a domain's rows alone: not on its name, its place or the other domains. Rows
that are neighbours in a document are not independent, so standard errors are a little small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from tikmix_hf.harness import offline_passages
from tikmix_hf.harness.offline_passages import MIN_WORDS, SEED, Passages, num_tokens, spans
from tikmix_hf.harness.suite import SuiteTask
from tikmix_hf.harness.tasks import GivenRowsTask, Prepared

MIN_QUESTIONS = 10
"""Of a domain; fewer say nothing about it."""
NUM_CHOICES = 4
ENDING_WORDS = 8
"""Words of an ending: enough to tell one from another, and an eighth to a quarter of a block of 128
tokens."""
MIN_LETTERS = 3
"""Of a word that is asked for: shorter ones are nearly all of a handful."""

Question = dict[str, Any]


def prepare(
    task: SuiteTask,
    heldout: Mapping[str, datasets.Dataset],
    tokenizer: PreTrainedTokenizerBase,
) -> Prepared:
    """Makes lm-eval's tasks for one of a suite's, one for each domain, under the domain's name.

    Args:
        task: of a kind of `suite.OFFLINE`.
        heldout: rows of `input_ids` by domain.
        tokenizer: the one that made them.

    Raises:
        ValueError: solved examples are asked for; a domain without held-out rows, or with text for
            fewer than MIN_QUESTIONS questions.
    """
    if task.num_fewshot:
        raise ValueError(f"`num_fewshot` must be 0 for {task.kind}; got {task.num_fewshot}.")
    if empty := [name for name, rows in heldout.items() if not len(rows)]:
        raise ValueError(
            f"`heldout` must have rows of every domain; {', '.join(empty)} has none. Hold some "
            "back (`heldout=0.02`), or leave the domain out."
        )
    most = offline_passages.MOST if task.limit is None else max(task.limit, MIN_QUESTIONS)
    made, few = {}, []
    for name, rows in heldout.items():
        passages = offline_passages.read(rows, tokenizer)
        questions = list(islice(QUESTIONS[task.kind](passages, tokenizer), most))
        if len(questions) < MIN_QUESTIONS:
            few.append(
                f"{name} gave {len(questions)} ({len(passages.texts)} passages of "
                f"{MIN_WORDS} words or more in {len(rows):,} rows)"
            )
        else:
            made[name] = _make(task.kind, name, questions)
    if few:
        raise ValueError(
            f"`heldout` must have text for {MIN_QUESTIONS} questions of kind {task.kind} in each "
            f"domain; {', '.join(few)}. Hold back more rows or longer ones, or leave the domain "
            "out."
        )
    return Prepared(made, {})


def _cloze(passages: Passages, _: PreTrainedTokenizerBase) -> Iterable[Question]:
    """The last word of letters alone that follows a single space, in each passage that has one."""
    for text in passages.texts:
        words = spans(text)
        for place in reversed(range(MIN_WORDS, len(words))):
            before, (start, end) = words[place - 1][1], words[place]
            word = text[start:end]
            if text[before:start] == " " and word.isalpha() and len(word) >= MIN_LETTERS:
                yield {"context": text[:before], "target": f" {word}"}
                break


def _continuation(passages: Passages, tokenizer: PreTrainedTokenizerBase) -> Iterable[Question]:
    """Each passage's ending among those of three others, in an order drawn for each question."""
    split = [parts for text in passages.texts if (parts := _split_off_ending(text)) is not None]
    endings = [ending for _, ending in split]
    words = [tuple(ending.casefold().split()) for ending in endings]
    rng = np.random.default_rng(SEED)
    for own, (context, ending) in enumerate(split):
        chosen = {words[own]: ending}
        # Endings that read the same are one, whatever their spaces and capitals.
        for other in rng.permutation(len(split)):
            chosen.setdefault(words[other], endings[other])
            if len(chosen) == NUM_CHOICES:
                break
        gold = int(rng.integers(NUM_CHOICES))
        choices = list(chosen.values())[1:]
        choices.insert(gold, ending)
        shortened = _shortened(context, choices, passages.max_tokens, tokenizer)
        if len(choices) == NUM_CHOICES and shortened is not None:
            yield {"context": shortened, "choices": choices, "gold": gold}


def _whole(passages: Passages, _: PreTrainedTokenizerBase) -> Iterable[Question]:
    return ({"passage": text} for text in passages.texts)


QUESTIONS: Mapping[str, Callable[[Passages, PreTrainedTokenizerBase], Iterable[Question]]] = {
    "cloze": _cloze,
    "continuation": _continuation,
    "bits_per_byte": _whole,
}


def _split_off_ending(text: str) -> tuple[str, str] | None:
    """What stands before the last ENDING_WORDS words that follow a single space, and those."""
    words = spans(text)
    for place in reversed(range(MIN_WORDS, len(words) - ENDING_WORDS + 1)):
        before, start = words[place - 1][1], words[place][0]
        # lm-eval puts one space before a choice: it is to be the text's own.
        if text[before:start] == " ":
            return text[:before], text[start : words[place + ENDING_WORDS - 1][1]]
    return None


def _shortened(
    context: str, choices: Sequence[str], max_tokens: int, tokenizer: PreTrainedTokenizerBase
) -> str | None:
    """Leaves out first words until every choice fits behind; None if too few would be left.

    lm-eval would cut each choice's context by itself, and compare choices after different ones.
    """
    while True:
        texts = [f"{context} {choice}" for choice in choices]
        excess = max(num_tokens(texts, tokenizer)) - max_tokens
        if excess <= 0:
            return context
        words = spans(context)
        left_out = math.ceil(excess / 4)  # a word has some four tokens, at most
        if len(words) - left_out < MIN_WORDS:
            return None
        context = context[words[left_out][0] :]


def _make(kind: str, name: str, questions: list[Question]) -> GivenRowsTask:
    rows = datasets.Dataset.from_list(questions)
    # A field that is named like a column is that column, and not a template.
    config = {
        "task": name,
        "test_split": "test",
        "num_fewshot": 0,
        "metadata": {"version": 1.0},
        **_CONFIGS[kind],
    }
    return GivenRowsTask(config, {"test": rows})


def _metric(name: str, aggregation: str = "mean", *, higher_is_better: bool) -> dict[str, Any]:
    return {
        "metric": name,
        "aggregation": aggregation,
        "higher_is_better": higher_is_better,
    }


def _score_cloze(question: Question, answers: Sequence[tuple[float, bool]]) -> dict[str, float]:
    ((nats, is_greedy),) = answers
    return {
        "acc": float(is_greedy),
        "bits_per_byte": -nats / math.log(2) / len(question["target"].encode()),
        "perplexity": nats,
    }


_CONFIGS: Mapping[str, dict[str, Any]] = {
    "cloze": {
        "output_type": "loglikelihood",
        "doc_to_text": "context",
        "doc_to_target": "target",
        "process_results": _score_cloze,
        "metric_list": [
            _metric("acc", higher_is_better=True),
            _metric("bits_per_byte", higher_is_better=False),
            _metric("perplexity", "perplexity", higher_is_better=False),
        ],
    },
    "continuation": {
        "output_type": "multiple_choice",
        "doc_to_text": "context",
        "doc_to_choice": "choices",
        "doc_to_target": "gold",
        "metric_list": [
            _metric("acc", higher_is_better=True),
            _metric("acc_norm", higher_is_better=True),
        ],
    },
    "bits_per_byte": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "passage",
        "metric_list": [_metric("bits_per_byte", "bits_per_byte", higher_is_better=False)],
    },
}
