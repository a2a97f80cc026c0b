"""Held-out rows of characters: a token is a character, and a document's end is a zero."""

from __future__ import annotations

import benchmarks
import numpy as np
from datasets import Dataset

TOKENIZER = benchmarks.make_tokenizer()
EOS = "\0"


def rows(*texts: str) -> Dataset:
    return Dataset.from_dict({"input_ids": [[ord(letter) for letter in text] for text in texts]})


def documents(number: int, seed: int) -> list[str]:
    """Each a row of its own, of 18 words of five letters that are found nowhere else."""
    letters = 97 + np.random.default_rng(seed).integers(0, 26, (number, 18, 5))
    return [
        EOS + " ".join("".join(map(chr, word)) for word in document) + EOS for document in letters
    ]


HELDOUT = {"red": rows(*documents(14, 1)), "blue": rows(*documents(12, 2))}
