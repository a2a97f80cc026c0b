"""Passages: text of held-out rows, cut so that a question about it can be fair.

In: held-out rows of one domain (token ids) and their tokenizer. Out: passages, in an order that
depends on the number of rows alone. A row is a block of tokens: it begins in mid-sentence, may hold
the ends of several documents, and its first and last bytes may be parts of a character. So a
passage is the longest piece of a row that belongs to one document, without the words that the
row's edges cut through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from tikmix_hf.rows import row_lengths

SEED = 0
"""Of the order in which rows are used, and of what `offline` draws."""
MOST = 500
"""Passages of a domain, at most: eight domains of 500 questions have a standard error below 0.8
points of accuracy, and cutting them takes a second."""
MIN_WORDS = 8
"""Words of a passage, and of what stands before an answer, at least."""
_ROWS_AT_ONCE = 500
_PART_OF_A_CHARACTER = "\N{REPLACEMENT CHARACTER}"


class Passages(NamedTuple):
    """One domain's."""

    texts: list[str]
    """Each once, in the order that questions are asked in."""
    max_tokens: int
    """Tokens of the longest row. A model that is trained on such rows can read as many."""


def read(rows: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, most: int = MOST) -> Passages:
    """Cuts passages out of rows, at most `most` of them.

    Rows are used in an order of their own, since neighbours are of one document. It does not depend
    on the domain's name.

    Args:
        rows: with `input_ids`.
        tokenizer: the one that made them.
        most: passages, at most.
    """
    max_tokens = int(row_lengths(rows).max(initial=0))
    order = np.random.default_rng(SEED).permutation(len(rows))
    plain = rows.with_format(None).select_columns("input_ids")
    texts: dict[str, None] = {}
    for start in range(0, len(order), _ROWS_AT_ONCE):
        found = _cut(plain[order[start : start + _ROWS_AT_ONCE]]["input_ids"], tokenizer)
        long = [text for text in found if len(text.split()) >= MIN_WORDS]
        texts |= dict.fromkeys(fitting(long, tokenizer, max_tokens))
        if len(texts) >= most:
            break
    return Passages(list(texts)[:most], max_tokens)


def fitting(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[str]:
    """Those that a model of `max_tokens` positions can read whole."""
    counts = num_tokens(texts, tokenizer)
    return [text for text, count in zip(texts, counts, strict=True) if count <= max_tokens]


def num_tokens(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of each text, as lm-eval encodes it.

    Cut elsewhere than the document was, text may take more tokens than it had in its row.
    """
    if not texts:
        return []
    encoded: Any = tokenizer(list(texts), verbose=False)
    return [len(ids) for ids in encoded["input_ids"]]


def spans(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends; a word is whatever stands between white space."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def _cut(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    eos: Any = tokenizer.eos_token_id
    pieces = [_longest_piece(np.asarray(row), eos) for row in rows]
    texts = tokenizer.batch_decode(
        [piece.tolist() for piece, _, _ in pieces],
        skip_special_tokens=True,
        # It would take away spaces before commas, which code and tables have.
        clean_up_tokenization_spaces=False,
    )
    cut = (
        _whole_words(text, begins, ends)
        for text, (_, begins, ends) in zip(texts, pieces, strict=True)
    )
    return [text for text in cut if text and _PART_OF_A_CHARACTER not in text]


def _longest_piece(row: np.ndarray, eos: int | None) -> tuple[np.ndarray, bool, bool]:
    """Tokens of one document, and whether its beginning and its end are among them."""
    ends = [] if eos is None else np.flatnonzero(row == eos).tolist()
    edges = [-1, *ends, len(row)]
    longest = int(np.argmax(np.diff(edges)))
    piece = row[edges[longest] + 1 : edges[longest + 1]]
    return piece, longest > 0, longest < len(edges) - 2


def _whole_words(text: str, begins: bool, ends: bool) -> str:
    """Takes off the word that the row begins in, and the one that it ends in."""
    if not begins:
        text = "".join(re.split(r"(\s)", text, maxsplit=1)[1:])
    if not ends:
        text = text[: len(text) - len(re.split(r"\s", text)[-1])]
    return text.strip()
