"""Markup: HTML and SVG from Python, with everything that is not markup escaped.

In: names of elements, attributes and text, some of it a stranger's. Out: `Html`, a string that
needs no more escaping. What a name could do to a page besides markup, such as turn the direction of
the writing, is replaced as well.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"input", "meta", "br", "col"})
# Control characters, lone surrogates, marks that turn the direction of writing, non-characters.
_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attribute: TypeAlias = str | int | float | bool | None


def plain(text: str) -> str:
    """Text without characters that have no place in a line of a page."""
    return _UNFIT.sub("\ufffd", text)


def escape(text: str) -> Html:
    """Markup that shows the text as it is."""
    return text if isinstance(text, Html) else Html(html.escape(plain(text), quote=True))


def join(*children: Child) -> Html:
    """One piece of markup of many; None is nothing, and what is not markup is escaped."""
    parts: list[str] = []
    for child in children:
        if child is None:
            continue
        parts.append(escape(child) if isinstance(child, str) else join(*child))
    return Html("".join(parts))


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element.

    Args:
        name: of the element.
        children: text or markup inside it.
        attributes: `class_` is written class, `aria_label` aria-label; None and False are left out.

    Example:
        >>> tag("p", "1 < 2", class_="note")
        '<p class="note">1 &lt; 2</p>'
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")
