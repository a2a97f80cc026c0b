"""The screen: tables and sentences for people, one JSON document for machines.

In: headings, rows of text, plain JSON types. Out: on a terminal a table of rich, where that is
installed; else, and wherever the output is piped, columns that are padded with spaces, in which
nothing is cut, wrapped or coloured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

BAR_WIDTH = 24
# An eighth of a character cell, two eighths, ...
_PARTS = " ▏▎▍▌▋▊▉█"


def table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> None:
    """Prints a table, without the columns that have nothing in them.

    Args:
        title: a sentence above it, or "".
        headings: of the columns, distinct.
        rows: text.
        left: the columns, beside the first, that are set to the left; the others hold numbers.
    """
    left = (headings[0], *left)
    filled = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in rows)]
    headings = [headings[i] for i in filled]
    rows = [[row[i] for i in filled] for row in rows]
    if not _print_rich(title, headings, rows, left):
        lines = [title] if title else []
        say(*lines, *_plain(headings, rows, left), "")


def say(*lines: str) -> None:
    """Prints lines of text; what the output's encoding has not got becomes a question mark."""
    if sys.stdout is None:  # closed: nobody listens
        return
    encoding = sys.stdout.encoding or "utf-8"
    for line in lines:
        print(line.encode(encoding, "replace").decode(encoding))


def note(line: str) -> None:
    """Prints a line for people beside a command's output, on stderr."""
    print(line, file=sys.stderr)


def document(record: Any) -> None:
    """Prints one JSON document.

    Raises:
        ValueError: it has NaN or infinity, which JSON does not have.
    """
    print(json.dumps(record, indent=1, allow_nan=False))


def bar(share: float, *, most: float = 1.0) -> str:
    """A bar whose length is a share, `BAR_WIDTH` characters for `most`.

    Example:
        >>> bar(0.5)
        '████████████'
    """
    eighths = round(8 * BAR_WIDTH * min(max(share / most, 0.0), 1.0)) if most > 0 else 0
    return ("█" * (eighths // 8) + _PARTS[eighths % 8]).rstrip()


def change_bar(before: float, after: float, *, most: float = 1.0) -> str:
    """A bar of what stays of a share, then of what it gains or loses.

    Example:
        >>> change_bar(0.5, 0.25), change_bar(0.25, 0.5, most=0.5)
        ('██████░░░░░░', '████████████▓▓▓▓▓▓▓▓▓▓▓▓')
    """
    first, last = (round(BAR_WIDTH * share / most) for share in (before, after))
    return "█" * min(first, last) + "▓" * (last - first) + "░" * (first - last)


def _plain(
    headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]
) -> list[str]:
    lines = [tuple(headings), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = []
    for line in lines:
        cells = [
            cell.ljust(width) if heading in left else cell.rjust(width)
            for cell, width, heading in zip(line, widths, headings, strict=True)
        ]
        padded.append("  ".join(cells).rstrip())
    return padded


def _print_rich(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str]
) -> bool:
    """Prints with rich; False, and nothing printed, where it is not wanted or not there."""
    if sys.stdout is None or not sys.stdout.isatty():
        return False
    try:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table
    except ImportError:
        return False
    console = Console()
    drawn = Table()
    for heading in headings:
        justify = "left" if heading in left else "right"
        style = "cyan" if heading == headings[0] else ""
        drawn.add_column(escape(heading), justify=justify, style=style, overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    # Rich ends the process where a reader has gone; what it captured is ours to print.
    with console.capture() as captured:
        if title:  # a table's own title would be wrapped at the table's width
            console.print(title, markup=False, highlight=False)
        console.print(drawn)
    sys.stdout.write(captured.get())
    return True
