"""Predicted against realised: did the targets gain in the order that influence foretold?

Influence knows no step length, so only the order of the targets, or differences up to a scale, can
be compared: both sides are standardised within an interval (mean 0, standard deviation 1). The raw
numbers of the file are in the tables.
"""

from __future__ import annotations

import numpy as np

from tikmix_hf.report import charts, formats
from tikmix_hf.report.axes import Axis
from tikmix_hf.report.charts import Point
from tikmix_hf.report.markup import Html, tag
from tikmix_hf.report.records import Array, Audit, Update
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, details, missing, note, section
from tikmix_hf.report.tables import table

TITLE = "Predicted and realised gain"
# Of two targets the standardised differences agree or disagree wholly, whatever happened.
LEAST_TARGETS = 3
MOST_SHOWN = 40


def audit(run: Run) -> Section:
    """How well influence foretold."""
    found = [(update, update.audit) for update in run.updates if update.audit is not None]
    if not found:
        return missing(
            "gain",
            TITLE,
            "There is nothing to compare: that takes two updates that measured influence.",
        )
    shown = [found[i] for i in charts.thin(len(found), MOST_SHOWN)]
    return section(
        "gain",
        TITLE,
        _lead(found[-1][1]),
        tag("div", _picture(shown), _intervals(shown), class_="pair"),
        details(
            "Every target's numbers",
            [_numbers(update, own) for update, own in shown],
        ),
    )


def standardised(values: list[float]) -> Array | None:
    """(J,) with mean 0 and population standard deviation 1; None where all agree."""
    centred_J = np.array(values) - np.mean(values)
    spread = float(centred_J.std()) if np.ptp(values) else 0.0
    return centred_J / spread if spread else None


def _lead(last: Audit) -> str:
    if last.correlation is None:
        return "Nothing can be said of fewer than three targets: two agree or disagree wholly."
    word = "well" if last.correlation > 0.6 else "partly" if last.correlation > 0.2 else "hardly"
    return (
        f"The order in which targets gained was {word} foretold: r = "
        f"{formats.number(last.correlation, digits=2)} over "
        f"{formats.plural(last.num_intervals, 'interval')}."
    )


def _picture(found: list[tuple[Update, Audit]]) -> Html | None:
    marks = []
    targets = list(dict.fromkeys(name for _, own in found for name in own.predicted))
    for update, own in found:
        predicted_J = standardised(list(own.predicted.values()))
        realised_J = standardised([own.realised[name] for name in own.predicted])
        if len(own.predicted) < LEAST_TARGETS or predicted_J is None or realised_J is None:
            continue
        for name, x, y in zip(own.predicted, predicted_J, realised_J, strict=True):
            title = (
                f"{name}, steps {own.from_step:,} to {update.step:,}: predicted "
                f"{formats.number(own.predicted[name])}, realised "
                f"{formats.number(own.realised[name], sign=True)} nats per token"
            )
            marks.append((targets.index(name), Point(float(x), float(y), None, title)))
    if not marks:
        return None
    reach = 1.1 * max(max(abs(p.x), abs(p.y)) for _, p in marks)
    x, y = (
        Axis(low=-reach, high=reach, name=f"{side} gain, standardised")
        for side in ("predicted", "realised")
    )
    label = "Predicted against realised gain of every target and interval"
    picture = charts.points(marks, x=x, y=y, label=label, height=300)
    return tag(
        "div",
        picture,
        charts.key(targets),
        note("On the dotted line a target gained as much, against the others, as was foretold."),
    )


def _intervals(found: list[tuple[Update, Audit]]) -> Html:
    rows = [
        [
            f"{own.from_step:,} to {update.step:,}",
            formats.number(own.spearman, digits=2),
            formats.number(own.correlation, digits=2),
        ]
        for update, own in found
    ]
    headings = ["steps", "rank correlation", "r so far"]
    return table(headings, rows, label="Correlation of each interval")


def _numbers(update: Update, own: Audit) -> Html:
    rows = [
        [name, formats.number(value), formats.number(own.realised[name], sign=True)]
        for name, value in own.predicted.items()
    ]
    span = f"Steps {own.from_step:,} to {update.step:,}"
    headings = [span, "predicted (influence)", "realised (nats per token)"]
    return table(headings, rows, label=f"{span}: gain of each target")
