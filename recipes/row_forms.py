"""Which rows TRL fine-tunes on: their columns, and what must be in them.

In: rows of a file. Out: nothing, or a refusal that names the file, the row and the column. TRL
itself would say `KeyError: 'text'` after minutes, or train on what is not there.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import datasets

# Rows of any of these forms, as TRL's documentation of dataset formats has them; `text` has the
# name that `dataset_text_field` gives it.
_FORMS = (("prompt", "completion"), ("messages",), ("conversations",), ("input_ids",))


def check_rows(what: str, rows: datasets.Dataset, text_column: str = "text") -> None:
    """Refuses rows of no form that TRL reads, and a row whose text is none.

    Args:
        what: the argument and its file, for the refusal.
        rows: of the file.
        text_column: of rows that are plain text.

    Raises:
        ValueError: other columns; a row with a number, or nothing, for its text; empty completions
            alone.
    """
    forms = ((text_column,), *_FORMS)
    if not any(set(form) <= set(rows.column_names) for form in forms):
        raise ValueError(
            f"{what}: rows must have the columns `prompt` and `completion`, `messages`, or "
            f"`{text_column}`; got {', '.join(rows.column_names)}. Rename them."
        )
    for column in ("prompt", "completion", text_column):
        if column in rows.column_names:
            _check_column(what, rows, column)


def _check_column(what: str, rows: datasets.Dataset, column: str) -> None:
    num_empty = 0
    for number, value in enumerate(rows[column], 1):
        if not isinstance(value, (str, list)):
            raise ValueError(
                f"{what}: row {number} has {_shown(value)} in the column `{column}`, and no text. "
                "Mend or drop it."
            )
        num_empty += not value
    if column != "completion" or not num_empty:
        return
    if num_empty == len(rows):
        raise ValueError(f"{what}: every `completion` is empty: there is nothing to learn.")
    warnings.warn(
        f"{what}: {num_empty} of {len(rows)} rows have an empty `completion`; all that they teach "
        "is to say nothing. Drop them, unless that is meant.",
        stacklevel=2,
    )


def _shown(value: Any) -> str:
    return json.dumps(value, default=repr)[:80]
