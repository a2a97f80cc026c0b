"""Influence: a heat map of targets by domains for each update, with a slider.

The colour of a cell is the influence less that of the mixture in force, S[j,k] - S[j] . w, over the
largest of its row: absolute values cannot be compared between targets, and most are positive
whatever a domain does. Numbers and standard errors are those of the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tikmix_hf.report import charts, colours, formats
from tikmix_hf.report.markup import Html, join, tag
from tikmix_hf.report.records import Array, Influence, Shares, Update
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, missing, note, section, subtitle
from tikmix_hf.report.tables import box

TITLE = "Influence of domains on targets"
# More updates than these are shown evenly chosen.
MOST_SHOWN = 48
# More columns than these have their names upright, and so have longer names.
MOST_LEVEL, LONGEST_LEVEL = 6, 10


def influence(run: Run) -> Section:
    """What each update measured."""
    measured = [update for update in run.updates if update.influence is not None]
    if not measured:
        return missing(
            "influence",
            TITLE,
            "No measurement was read. A mixer that asks for influence, such as tikmix_d, writes "
            "one per update into influence.jsonl.",
        )
    chosen = [measured[i] for i in charts.thin(len(measured), MOST_SHOWN)]
    maps = []
    for i, update in enumerate(chosen):
        assert update.influence is not None
        maps.append(_step(i, len(chosen), update, update.influence))
    fewer = len(measured) - len(chosen)
    left_out = note(f"{fewer:,} updates between these are left out.") if fewer else None
    return section(
        "influence",
        TITLE,
        _lead(chosen[-1]),
        tag("div", _slider(chosen), maps, class_="steps"),
        _key(),
        left_out,
    )


def scaled(measured: Influence, mixture: Shares) -> Array:
    """(J, K) influence less that of the mixture, over the largest size of its row."""
    less_JK = measured.values - measured.in_force(mixture)[:, None]
    largest_J1 = np.abs(less_JK).max(axis=1, keepdims=True)
    return less_JK / np.where(largest_J1 > 0, largest_J1, 1.0)


def _lead(update: Update) -> str:
    assert update.influence is not None
    mean_K = scaled(update.influence, update.mixture).mean(axis=0)
    names = [formats.cut(name, 40) for name in update.influence.domains]
    best, worst = names[int(mean_K.argmax())], names[int(mean_K.argmin())]
    return (
        f"At the last measurement, step {update.step:,}, more of {best} would have "
        f"lowered the targets' losses most, more of {worst} least."
    )


def _slider(updates: list[Update]) -> Html | None:
    """Hidden until the script is there; without it all updates stand below each other."""
    if len(updates) < 2:
        return None
    last = len(updates) - 1
    return tag(
        "label",
        tag("span", "Update", class_="slider-name"),
        tag("input", type="range", min=0, max=last, value=last, step=1, class_="slider"),
        class_="slider-row",
        hidden=True,
    )


def _step(place: int, number: int, update: Update, measured: Influence) -> Html:
    title = f"Update {place + 1} of {number}, step {update.step:,}"
    cells_JK = scaled(measured, update.mixture)
    reference_J = measured.in_force(update.mixture)
    longest = max(map(len, measured.domains))
    is_level = len(measured.domains) <= MOST_LEVEL and longest <= LONGEST_LEVEL
    heads = [
        tag("th", tag("span", formats.cut(name, 28), title=name), scope="col")
        for name in measured.domains
    ]
    mine = tag("th", tag("span", "in force"), scope="col", class_="reference")
    rows = [
        tag(
            "tr",
            tag("th", target, scope="row"),
            [_cell(measured, j, k, cells_JK[j, k], reference_J[j])
             for k in range(len(measured.domains))],
            tag("td", formats.number(reference_J[j], digits=3), class_="reference"),
        )
        for j, target in enumerate(measured.targets)
    ]  # fmt: skip
    inside = tag(
        "table",
        tag("thead", tag("tr", tag("td", "", class_="corner"), heads, mine)),
        tag("tbody", rows),
        tag("tfoot", _shares(update, measured.domains)),
        class_="heat" if is_level else "heat upright",
    )
    return tag(
        "div",
        subtitle(title),
        box(inside, label=f"Influence at step {update.step:,}: targets by domains"),
        class_="step last" if place == number - 1 else "step",
    )


def _shares(update: Update, domains: Sequence[str]) -> list[Html]:
    """The rows below: what the mixture was, and what it became."""
    return [
        tag(
            "tr",
            tag("th", name, scope="row"),
            [tag("td", formats.share(mixture.get(domain))) for domain in domains],
            tag("td", "", class_="reference"),
        )
        for name, mixture in (("share before", update.mixture), ("share after", update.after))
    ]


def _cell(measured: Influence, j: int, k: int, scale: float, reference: float) -> Html:
    value, error = float(measured.values[j, k]), float(measured.stderr[j, k])
    is_known = np.isfinite(error)
    less = value - reference
    title = (
        f"{measured.domains[k]} on {measured.targets[j]}: "
        f"{formats.with_error(value, error if is_known else None)}"
        f"{'' if is_known else ' (standard error not known)'}; "
        f"{formats.number(less, sign=True)} against the mixture in force"
    )
    stands_out = is_known and abs(less) >= 2 * error
    return tag(
        "td",
        formats.number(less, digits=2, sign=True),
        class_=f"{colours.shade(scale)} stands-out" if stands_out else colours.shade(scale),
        title=title,
    )


def _key() -> Html:
    shades = [tag("span", class_=f"shade h{i}") for i in range(0, 2 * colours.SHADES + 1, 2)]
    return join(
        tag(
            "p",
            tag("span", "less useful than the mixture in force"),
            tag("span", shades, class_="shades", aria_hidden="true"),
            tag("span", "more useful"),
            class_="scale",
        ),
        note(
            "A cell says how much more a share of the domain lowers the target's loss than a share "
            "of the mixture in force does, in the units of the measurement; colours are relative "
            "to the largest of the row. ",
            tag("b", "Bold"),
            ": at least two standard errors. Point at a cell, tap it, or go there with the arrow "
            "keys for the influence itself and its standard error.",
        ),
    )
