"""Comparison: runs side by side, those of several folders or a run and its control.

In: runs; the models of each, from its `metrics.json`. Out: losses on targets with the distance from
the control, scores, and the mixtures that the runs ended with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tikmix_hf.report import charts, colours, formats
from tikmix_hf.report.axes import Axis, columns, percent
from tikmix_hf.report.markup import Child, Html, tag
from tikmix_hf.report.run import Result, Run
from tikmix_hf.report.sections.base import Section, details, missing, note, section, subtitle
from tikmix_hf.report.sections.scores import arrow
from tikmix_hf.report.tables import table

TITLE = "Comparison"
ROW_PIXELS = 30
# More columns than these stand below the picture.
MOST_BESIDE = 3


class Model(NamedTuple):
    """One model in the comparison."""

    label: str
    run: Run
    result: Result


def comparison(runs: Sequence[Run]) -> Section:
    """Which run came to what."""
    found = models(runs)
    if len(found) < 2 and len(runs) < 2:
        return missing(
            "comparison",
            TITLE,
            "There is one model to show. `tikmix report RUN RUN` compares runs; control: true in a "
            "recipe trains one with a fixed mixture beside it.",
        )
    parts: list[Child] = [_losses(found), _scores(found)]
    parts += [_differences(run) for run in runs if run.differences]
    if len(runs) > 1:
        parts += [_overview(runs), _mixtures(runs)]
    parts = [part for part in parts if part is not None]
    return section("comparison", TITLE, _lead(found, runs), *parts)


def models(runs: Sequence[Run]) -> list[Model]:
    """Every model whose result a run tells, with a name of its own."""
    return [
        Model(own.label if len(runs) == 1 else f"{run.label} · {own.label}", run, own)
        for run in runs
        for own in run.results
    ]


def _lead(found: Sequence[Model], runs: Sequence[Run]) -> str:
    means = {model.label: model.result.mean_loss for model in found}
    known = {label: loss for label, loss in means.items() if loss is not None}
    targets = {tuple(sorted(model.result.losses)) for model in found}
    if len(known) < 2:
        return (
            f"{formats.plural(len(runs), 'run')}. Losses at the end are compared where "
            "metrics.json has them (recipes/pretrain.py writes it)."
        )
    if len(targets) > 1:
        return "The runs have different targets: their mean losses cannot be compared."
    best, second, *_ = sorted(known, key=lambda label: known[label])
    gap = known[second] - known[best]
    if not gap:
        return f"The lowest mean loss on the targets is that of {best} and of {second} alike."
    return (
        f"Lowest mean loss on the targets: {best}, {formats.number(gap, digits=3)} nats per token "
        f"below {second}. One run each says little: seeds may differ by as much."
    )


def _losses(found: Sequence[Model]) -> Html | None:
    """Losses by target, and how far each is from the control's."""
    having = [model for model in found if model.result.losses]
    if not having:
        return None
    targets = list(dict.fromkeys(name for model in having for name in model.result.losses))
    rows: list[list[Child]] = []
    for target in targets:
        values = [model.result.losses.get(target) for model in having]
        rows.append([target, *_best_in_bold(values, less_is_better=True)])
    means = [model.result.mean_loss for model in having]
    rows.append([tag("b", "mean"), *_best_in_bold(means, less_is_better=True)])
    headings = ["target", *(model.label for model in having)]
    written = table(headings, rows, label="Loss on each target at the end, nats per token")
    title = subtitle("Loss on targets at the end, nats per token")
    drawn = _distances(having, _reference(found)) if len(having) > 1 else None
    return tag(
        "div",
        title,
        tag("div", drawn, written, class_="pair" if len(having) <= MOST_BESIDE else None),
    )


def _reference(found: Sequence[Model]) -> Model:
    """What the others are measured against: the first run's control, or that run itself."""
    own = [model for model in found if model.run is found[0].run]
    return own[-1]


def _distances(having: Sequence[Model], reference: Model) -> Html | None:
    """A row per target: how far the other models' losses are from the reference's."""
    gaps = [
        (target, model, loss - reference.result.losses[target])
        for model in having
        if model is not reference
        for target, loss in model.result.losses.items()
        if target in reference.result.losses
    ]
    if not gaps:
        return None
    targets = list(dict.fromkeys(target for target, _, _ in gaps))
    labels = list(dict.fromkeys(model.label for _, model, _ in gaps))
    x = Axis.around([0.0, *(gap for _, _, gap in gaps)], "nats per token", num_ticks=4)
    zero = percent(x.place(0))
    drawn = [tag("line", class_="base", x1=zero, x2=zero, y1="0", y2="100%")]
    for row, target in enumerate(targets):
        y = percent((row + 0.5) / len(targets))
        drawn.append(tag("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
        drawn.append(tag("text", formats.cut(target, 24), x="0", y=y, dy=-6))
    for target, model, gap in gaps:
        title = (
            f"{target}, {model.label}: {formats.number(gap, digits=3, sign=True)} nats per token"
        )
        row = (targets.index(target) + 0.5) / len(targets)
        drawn.append(charts.marker(labels.index(model.label), x.place(gap), row, title))
    drawn += columns(x)
    label = f"Loss less that of {reference.label}, by target; the table has the numbers"
    height = ROW_PIXELS * len(targets)
    picture = tag("svg", drawn, class_="plot", height=height, role="img", aria_label=label)
    words = f"Loss less that of {reference.label} (the line): left is better"
    box = tag("div", picture, class_="plot-box flush")
    return tag("figure", tag("figcaption", words), box, charts.key(labels))


def _scores(found: Sequence[Model]) -> Html | None:
    having = [model for model in found if model.result.scores]
    if not having:
        return None
    by_model = [{(s.suite, s.task, s.metric): s for s in m.result.scores} for m in having]
    tasks = list(dict.fromkeys(key for own in by_model for key in own))
    rows = []
    for key in tasks:
        cells = [
            formats.with_error(own[key].value, own[key].error) if key in own else formats.UNKNOWN
            for own in by_model
        ]
        rows.append([f"{key[1]} ({key[0]})", f"{key[2]}, {arrow(key[2])}", *cells])
    headings = ["task", "metric", *(model.label for model in having)]
    written = table(headings, rows, label="Scores at the end", words=(1,))
    return tag("div", subtitle("Scores at the end, ± standard error over questions"), written)


def _differences(run: Run) -> Html:
    rows = [
        [f"{own.task} ({own.suite})", own.pair,
         formats.with_error(own.value, own.error, sign=True)]
        for own in run.differences
    ]  # fmt: skip
    written = table(["task", "models", "difference"], rows, label="Differences", words=(1,))
    return details(
        f"Differences question by question, {run.label}",
        written,
        note("Both models answered the same questions; errors are of questions, not of seeds."),
    )


def _overview(runs: Sequence[Run]) -> Html:
    rows = []
    for run in runs:
        last = run.updates[-1] if run.updates else None
        numbers = run.result.numbers if run.result is not None else {}
        changes = len(run.schedule.segments) - 1 if run.schedule is not None else None
        rows.append(
            [
                run.label,
                formats.count(changes),
                formats.count(numbers.get("trained_tokens")),
                formats.seconds(numbers.get("seconds")),
                formats.share(last.time_share if last else None),
                formats.number(last.audit.correlation if last and last.audit else None, digits=2),
            ]
        )
    headings = ["run", "mixture changes", "tokens trained", "time", "share of time measuring",
                "gain foretold, r"]  # fmt: skip
    return tag("div", subtitle("Runs"), table(headings, rows, label="Runs at a glance"))


def _mixtures(runs: Sequence[Run]) -> Html | None:
    """The mixture that each run ended with."""
    having = [run for run in runs if run.schedule is not None]
    if not having:
        return None
    last = [
        dict(zip(run.schedule.domains, run.schedule.segments[-1].mixture.tolist(), strict=True))
        for run in having
        if run.schedule is not None
    ]
    names = list(dict.fromkeys(name for own in last for name in own))
    rows = [
        [
            tag("span", colours.swatch(k), tag("span", name), class_="named"),
            *(formats.share(own.get(name)) for own in last),
        ]
        for k, name in enumerate(names)
    ]
    written = table(["domain", *(run.label for run in having)], rows, label="Last mixtures")
    return tag("div", subtitle("Mixture at the end"), written)


def _best_in_bold(values: Sequence[float | None], *, less_is_better: bool) -> list[Child]:
    known = [value for value in values if value is not None]
    best = (min if less_is_better else max)(known, default=None)
    return [
        tag("b", formats.number(v)) if v == best and len(known) > 1 else formats.number(v)
        for v in values
    ]
