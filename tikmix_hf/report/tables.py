"""Tables: numbers in rows, in a box of their own that scrolls where the screen is narrow.

In: headings and rows of text or markup; the first cell of a row is its heading. Out: markup.
"""

from __future__ import annotations

from collections.abc import Sequence

from tikmix_hf.report.markup import Child, Html, tag


def table(
    headings: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    label: str,
    words: Sequence[int] = (),
    class_: str = "",
) -> Html:
    """A table in its box.

    Args:
        headings: one per column.
        rows: their cells.
        label: what the table holds, for those who cannot see it.
        words: columns of text, which start at the left; the others hold numbers.
        class_: of the table, if any.
    """
    sides = ["words" if i in words or not i else None for i in range(len(headings))]
    head = [tag("th", h, scope="col", class_=s) for h, s in zip(headings, sides, strict=True)]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            [tag("td", cell, class_=s) for cell, s in zip(row[1:], sides[1:], strict=True)],
        )
        for row in rows
    ]
    inside = tag(
        "table",
        tag("thead", tag("tr", head)),
        tag("tbody", body),
        class_=class_ or None,
    )
    return box(inside, label=label)


def box(inside: Html, *, label: str) -> Html:
    """A box that scrolls by touch and by keyboard."""
    return tag("div", inside, class_="scroll", role="region", aria_label=label, tabindex=0)
