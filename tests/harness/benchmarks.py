"""Made-up benchmarks in the Hub's format, a suite of them, and a tokenizer that can read them.

`write(folder)` puts down what a data folder holds; every question has its right answer, and the
number of questions divides by neither two nor three.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tikmix_hf.harness import Suite, SuiteTask

ARC = SuiteTask(task="arc_easy", lm_eval="arc/arc_easy.yaml", metric="acc_norm")
PIQA = SuiteTask(task="piqa", lm_eval="piqa/piqa.yaml", metric="acc", num_fewshot=2)
TRIVIA = SuiteTask(
    task="triviaqa", lm_eval="triviaqa/default.yaml", metric="exact_match", num_fewshot=1
)
SUITE = Suite(name="made_up", tasks=(ARC, PIQA, TRIVIA))
"""Plain multiple choice, multiple choice with solved examples, and generation with one."""

THINGS = ("stone", "river", "bread", "lamp", "horse", "wheel", "cloud", "glove", "spoon", "ladder")


def arc(number: int) -> dict[str, Any]:
    choices = [THINGS[(number + step * 3) % 10] for step in range(4)]
    return {
        "id": f"made_up_{number}",
        "question": f"Which of these is thing {number}?",
        "choices": {"text": choices, "label": ["A", "B", "C", "D"]},
        "answerKey": "ABCD"[number % 4],
    }


def piqa(number: int) -> dict[str, Any]:
    first, second = THINGS[number % 10], THINGS[(number + 1) % 10]
    return {
        "goal": f"To get a {first}",
        "sol1": f"take the {first}",
        "sol2": f"leave the {second} alone",
        "label": number % 2,
    }


def triviaqa(number: int) -> dict[str, Any]:
    name = THINGS[number % 10]
    return {
        "question": f"What is number {number}",
        "question_id": f"made_up_{number}",
        "answer": {"value": name, "aliases": [name, name.upper()]},
    }


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """JSON lines, compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write(folder: Path, num_questions: int = 7) -> Path:
    """Writes arc_easy, piqa and triviaqa, each with other rows to take solved examples from."""
    asked, solved = range(num_questions), range(100, 109)
    write_rows(folder / "arc_easy" / "test.jsonl.gz", map(arc, asked))
    write_rows(folder / "arc_easy" / "train.jsonl", map(arc, solved))
    write_rows(folder / "piqa" / "validation.jsonl", map(piqa, asked))
    write_rows(folder / "piqa" / "train.jsonl", map(piqa, solved))
    write_rows(folder / "triviaqa" / "validation_7.jsonl.gz", map(triviaqa, asked))
    write_rows(folder / "triviaqa" / "train.jsonl", map(triviaqa, solved))
    return folder


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each of ASCII's 128 characters, and none for padding."""
    vocabulary = {chr(code): code for code in range(128)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="\0")
