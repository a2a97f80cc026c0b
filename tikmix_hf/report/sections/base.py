"""Section: a heading, a sentence that says what is to be seen, and the picture or table.

In: markup. Out: a `Section`; one without data says so in one line, and how to get it.
"""

from __future__ import annotations

from typing import NamedTuple

from tikmix_hf.report.markup import Child, Html, join, tag


class Section(NamedTuple):
    """A part of the page."""

    key: str
    """Of its address in the page."""
    title: str
    body: Html


def section(key: str, title: str, lead: Child, *body: Child) -> Section:
    """A section; `lead` is what it says in a sentence."""
    return Section(key, title, join(tag("p", lead, class_="lead"), *body))


def missing(key: str, title: str, line: str) -> Section:
    """A section without data, and how to get it."""
    return Section(key, title, tag("p", line, class_="missing"))


def note(*words: Child) -> Html:
    """How to read a picture."""
    return tag("p", *words, class_="note")


def subtitle(words: str) -> Html:
    """What the next picture or table is; no heading, for sections stand at two levels."""
    return tag("p", words, class_="subtitle")


def details(summary: str, *body: Child) -> Html:
    """What only some want to see."""
    return tag("details", tag("summary", summary), *body)


def code(text: str) -> Html:
    """A word of a program."""
    return tag("code", text)
