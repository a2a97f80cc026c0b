"""Benchmarks: curves of each task with error bars, and the losses of training and of targets."""

from __future__ import annotations

from collections.abc import Sequence

from tikmix_hf.report import charts, formats
from tikmix_hf.report.axes import Axis
from tikmix_hf.report.charts import Point
from tikmix_hf.report.markup import Html, tag
from tikmix_hf.report.records import Score
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, missing, section
from tikmix_hf.report.tables import table

TITLE, LOSSES = "Benchmarks", "Losses while training"
LESS_IS_BETTER = ("bits_per_byte", "perplexity", "loss")
# Points of a curve.
MOST_DRAWN = 400


def benchmarks(runs: Sequence[Run]) -> Section:
    """Scores of all runs while they trained, a picture per task."""
    if not any(run.scores for run in runs):
        return missing(
            "benchmarks",
            TITLE,
            "No evaluation during training was read. EvalCallback writes them: "
            'EvalCallback(Harness("quick"), every_steps=500).',
        )
    tasks = list(dict.fromkeys((s.suite, s.task, s.metric) for run in runs for s in run.scores))
    names = [run.label for run in runs]
    return section(
        "benchmarks",
        TITLE,
        f"{formats.plural(len(tasks), 'task')}, each with its standard error over questions.",
        charts.key(names) if len(runs) > 1 else None,
        tag("div", [_task(runs, task) for task in tasks], class_="grid-of-charts"),
        tag("details", tag("summary", "Every score"), _table(runs, tasks)),
    )


def losses(run: Run) -> Section:
    """The loss of training, and of the targets at each update."""
    measured = [update for update in run.updates if update.influence is not None]
    if not run.losses and not measured:
        return missing(
            "losses",
            LOSSES,
            "No losses were read. The Trainer logs them in trainer_state.json of a checkpoint "
            "(logging_steps, save_strategy).",
        )
    pictures = []
    if run.losses:
        shown = [run.losses[i] for i in charts.thin(len(run.losses), MOST_DRAWN)]
        points = [Point(step, loss, None, "") for step, loss in shown]
        picture = charts.curve(
            points,
            x=charts.steps_axis(shown[-1][0]),
            y=Axis.around([loss for _, loss in shown], "nats per token"),
            label=f"Training loss, {shown[0][1]:.3f} at step {shown[0][0]:,} and "
            f"{shown[-1][1]:.3f} at step {shown[-1][0]:,}",
            height=220,
        )
        pictures.append(_card("Training loss, as the Trainer logged it", picture))
    if measured:
        pictures.append(_targets(run))
    ends = (
        [f"{run.losses[0][1]:.3f} at first, {run.losses[-1][1]:.3f} at last"] if run.losses else []
    )
    lead = f"Training loss: {ends[0]}." if ends else "Losses of the targets at each measurement."
    return section("losses", LOSSES, lead, tag("div", pictures, class_="grid-of-charts"))


def arrow(metric: str) -> str:
    """Which way is better."""
    return "less is better" if metric.endswith(LESS_IS_BETTER) else "more is better"


def _targets(run: Run) -> Html:
    lines: dict[str, list[Point]] = {}
    for update in run.updates:
        if update.influence is None:
            continue
        pairs = zip(update.influence.targets, update.influence.target_losses.tolist(), strict=True)
        for target, loss in pairs:
            if loss == loss:  # NaN where the line has none
                title = f"{target}, step {update.step:,}: {formats.number(loss)} nats per token"
                lines.setdefault(target, []).append(Point(update.step, loss, None, title))
    if not lines:
        return tag("p", "The measurements hold no losses of targets.", class_="missing")
    every = [point for points in lines.values() for point in points]
    picture = charts.lines(
        list(lines.values()),
        x=charts.steps_axis(max(point.x for point in every)),
        y=Axis.around([point.y for point in every], "nats per token"),
        label=f"Loss on {formats.plural(len(lines), 'target')} at each update",
        height=220,
    )
    return _card("Loss on targets, at each update", picture, charts.key(list(lines)))


def _task(runs: Sequence[Run], task: tuple[str, str, str]) -> Html:
    suite, name, metric = task
    series = [[_point(run, s) for s in run.scores if (s.suite, s.task, s.metric) == task]
              for run in runs]  # fmt: skip
    every = [point for points in series for point in points]
    reach = [p.y + side * (p.error or 0) for p in every for side in (1, -1)]
    picture = charts.lines(
        series,
        x=charts.steps_axis(max(point.x for point in every)),
        y=Axis.around(reach, f"{metric}, {arrow(metric)}"),
        label=f"{name} of suite {suite}, {metric}, over steps",
        height=190,
    )
    return _card(f"{name} ({suite})", picture)


def _point(run: Run, score: Score) -> Point:
    title = (
        f"{run.label}, {score.task}, step {score.step or 0:,}: "
        f"{formats.with_error(score.value, score.error)} {score.metric}"
    )
    return Point(score.step or 0, score.value, score.error, title)


def _table(runs: Sequence[Run], tasks: Sequence[tuple[str, str, str]]) -> Html:
    rows = [
        [
            f"{s.task} ({s.suite})",
            run.label,
            s.metric,
            f"{s.step or 0:,}",
            formats.with_error(s.value, s.error),
            formats.count(s.num_questions),
        ]
        for task in tasks
        for run in runs
        for s in run.scores
        if (s.suite, s.task, s.metric) == task
    ]
    headings = ["task", "run", "metric", "step", "score ± standard error", "questions"]
    return table(headings, rows, label="Every score", words=(1, 2))


def _card(title: str, *body: Html) -> Html:
    return tag("figure", tag("figcaption", title), body)
