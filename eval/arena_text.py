"""Documents of domains and benchmarks, as text.

In: a data folder with `text/<domain>.{train,heldout}.jsonl.gz` ({"id", "text"} a line) and
`benchmarks/<name>/<split>.jsonl[.gz]` with the fields that the Hub's data sets have. Out: strings,
and multiple-choice questions.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from arena_config import TextFile, refuse_unknown

Row = Mapping[str, Any]


class Question(NamedTuple):
    """Of several continuations one is right."""

    prompt: str
    choices: tuple[str, ...]
    right: int


def domain_documents(folder: Path, domain: str, split: str, max_characters: int) -> list[str]:
    """The first documents of a domain.

    Args:
        folder: the data folder.
        domain: its name.
        split: "train" or "heldout".
        max_characters: of all of them together; the last one may go over it.

    Raises:
        ValueError: the file is not there.
    """
    documents: list[str] = []
    num_characters = 0
    for row in _rows(folder / "text" / f"{domain}.{split}.jsonl.gz"):
        if num_characters >= max_characters:
            break
        documents.append(row["text"])
        num_characters += len(row["text"])
    return documents


def benchmark_documents(folder: Path, file: TextFile) -> list[str]:
    """Question and right answer of every row, or of one half of the rows.

    A half is drawn by what rows may have in common (a passage), so that nothing is in both.

    Raises:
        ValueError: the file is not there, or of no known format.
    """
    kind = Path(file.path).parent.name
    refuse_unknown("benchmarks", kind, FORMATS)
    documents = []
    for row in _rows(folder / "benchmarks" / file.path):
        common, document = FORMATS[kind](row)
        half = "odd" if blake2b(common.encode(), digest_size=1).digest()[0] % 2 else "even"
        if file.rows in ("all", half):
            documents.append(document)
    return documents


def questions(folder: Path, path: str, num: int) -> list[Question]:
    """The first questions of a multiple-choice benchmark.

    Raises:
        ValueError: the file is not there, or of no known format.
    """
    kind = Path(path).parent.name
    refuse_unknown("benchmarks", kind, QUESTIONS)
    rows = _rows(folder / "benchmarks" / path)
    return [QUESTIONS[kind](row) for row, _ in zip(rows, range(num), strict=False)]


def _choices(row: Row) -> Question:
    """ARC and OpenBookQA."""
    stem = row["question_stem"] if "question_stem" in row else row["question"]
    right = row["choices"]["label"].index(row["answerKey"])
    return Question(f"Question: {stem}\nAnswer:", tuple(row["choices"]["text"]), right)


def _hellaswag_question(row: Row) -> Question:
    return Question(row["ctx"], tuple(row["endings"]), int(row["label"]))


def _piqa_question(row: Row) -> Question:
    return Question(
        f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"])
    )


def _whole(question: Question) -> tuple[str, str]:
    return question.prompt, f"{question.prompt} {question.choices[question.right]}"


def _gsm8k(row: Row) -> tuple[str, str]:
    # <<16-3-4=9>> are notes for a calculator.
    answer = re.sub(r"<<.*?>>", "", row["answer"])
    return row["question"], f"Question: {row['question']}\nAnswer: {answer}"


def _mathqa(row: Row) -> tuple[str, str]:
    return row["Problem"], f"{row['Problem']}\n{row['options']}"


def _boolq(row: Row) -> tuple[str, str]:
    answer = "yes" if row["label"] else "no"
    question = f"Question: {row['question']}?\nAnswer: {answer}"
    return row["passage"], f"{row['passage']}\n{question}"


def _triviaqa(row: Row) -> tuple[str, str]:
    answer = row["answer"]["value"]
    return row["question"], f"Question: {row['question']}\nAnswer: {answer}"


QUESTIONS: dict[str, Callable[[Row], Question]] = {
    "arc_easy": _choices,
    "arc_challenge": _choices,
    "openbookqa": _choices,
    "hellaswag": _hellaswag_question,
    "piqa": _piqa_question,
}
"""A benchmark's folder to what its rows ask."""

FORMATS: dict[str, Callable[[Row], tuple[str, str]]] = {
    "arc_easy": lambda row: _whole(_choices(row)),
    "arc_challenge": lambda row: _whole(_choices(row)),
    "openbookqa": lambda row: _whole(_choices(row)),
    "hellaswag": lambda row: _whole(_hellaswag_question(row)),
    "piqa": lambda row: _whole(_piqa_question(row)),
    "gsm8k": _gsm8k,
    "mathqa": _mathqa,
    "boolq": _boolq,
    "triviaqa": _triviaqa,
    "lambada_openai": lambda row: (row["text"], row["text"]),
}
"""A benchmark's folder to (what rows may have in common, the document) of a row."""


def _rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise ValueError(
            f"`data` must be a folder with {'/'.join(path.parts[-3:])}; {path} is none. Name "
            "another with --data, or take --data embedded."
        )
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
