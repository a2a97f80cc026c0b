"""JSON that people can read: what fits on a line is on one.

In: plain JSON types. Out: text whose floats keep all their bits.
"""

from __future__ import annotations

import json
from typing import Any

_WIDTH = 100


def render(record: Any, indent: int = 0) -> str:
    """JSON text; lists and objects that are too long for a line get a line for each entry.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
        TypeError: something else that JSON does not have.

    Example:
        >>> render({"a": [1, 2.5], "b": None})
        '{"a": [1, 2.5], "b": null}'
    """
    line = json.dumps(record, allow_nan=False, ensure_ascii=False)
    if len(line) + indent <= _WIDTH or not isinstance(record, (dict, list, tuple)):
        return line
    pad = " " * (indent + 1)
    if isinstance(record, dict):
        # As the encoder writes keys: 1 becomes "1".
        entries = [
            f"{json.dumps({key: 0}, ensure_ascii=False)[1:-4]}: {render(value, indent + 1)}"
            for key, value in record.items()
        ]
        opening, closing = "{", "}"
    else:
        entries = [render(value, indent + 1) for value in record]
        opening, closing = "[", "]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(entries) + f"\n{' ' * indent}{closing}"
