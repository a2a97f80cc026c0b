"""Markdown tables of results.

In: rows with the same keys. Out: lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table; None is an empty cell.

    Example:
        >>> markdown([{"a": 1, "b": None}])
        ['| a | b |', '| --- | --- |', '| 1 |  |']
    """
    keys = list(rows[0])
    lines = [" | ".join(keys), " | ".join("---" for _ in keys)]
    lines += [" | ".join("" if row[k] is None else str(row[k]) for k in keys) for row in rows]
    return [f"| {line} |" for line in lines]
