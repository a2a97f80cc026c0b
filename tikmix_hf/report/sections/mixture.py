"""Mixture over time: bands, a table of the mixtures, and why each update decided as it did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tikmix_hf.report import charts, colours, formats
from tikmix_hf.report.axes import Axis
from tikmix_hf.report.charts import Band
from tikmix_hf.report.markup import Html, join, tag
from tikmix_hf.report.records import Update
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, details, missing, note, section
from tikmix_hf.report.tables import table
from tikmix_hf.schedule import MixtureSchedule

TITLE = "Mixture over time"
# More mixtures than these are drawn, or written, evenly chosen.
MOST_DRAWN, MOST_WRITTEN = 240, 40


def mixture(run: Run) -> Section:
    """Which domains training read, and when."""
    schedule = run.schedule
    if schedule is None:
        return missing(
            "mixture",
            TITLE,
            "No schedule.json was read. TikMixCallback writes one into the run's folder.",
        )
    end = _end(run, schedule)
    is_known = run.num_samples is not None
    unknown = None if is_known else note("The run's length is not recorded; the last mixture is "
                                         "drawn a little beyond its beginning.")  # fmt: skip
    return section(
        "mixture",
        TITLE,
        _lead(schedule),
        _picture(schedule, end),
        tag("div", charts.legend(schedule.domains), class_="narrow-only"),
        unknown,
        _table(schedule),
        details("What each update decided, and why", _decisions(run.updates))
        if run.updates
        else None,
    )


def _end(run: Run, schedule: MixtureSchedule) -> int:
    """Where the last band ends."""
    last = schedule.segments[-1].from_sample
    if run.num_samples is not None and run.num_samples > last:
        return run.num_samples
    return max(round(last * 1.15), last + 1)


def _lead(schedule: MixtureSchedule) -> str:
    first_K, last_K = schedule.segments[0].mixture, schedule.segments[-1].mixture
    changes = len(schedule.segments) - 1
    if not changes:
        return "The mixture never changed."
    up, down = int(np.argmax(last_K - first_K)), int(np.argmin(last_K - first_K))
    moves = (
        f"{formats.cut(schedule.domains[k], 40)} {verb} most, from {formats.share(first_K[k])} to "
        f"{formats.share(last_K[k])}"
        for k, verb in ((up, "grew"), (down, "shrank"))
    )
    return f"The mixture changed {formats.plural(changes, 'time')}. " + "; ".join(moves) + "."


def _picture(schedule: MixtureSchedule, end: int) -> Html:
    """Bands of all domains; of very many segments some stand for their neighbours."""
    chosen = charts.thin(len(schedule.segments), MOST_DRAWN)
    shown = [schedule.segments[i] for i in chosen]
    ends = [segment.from_sample for segment in shown[1:]] + [end]
    found = []
    for segment, stop in zip(shown, ends, strict=True):
        tops_K = np.cumsum(segment.mixture)
        for k, name in enumerate(schedule.domains):
            share = float(segment.mixture[k])
            title = (
                f"{name}: {formats.share(share)} from sample {segment.from_sample:,} to {stop:,}"
            )
            high = float(tops_K[k])
            found.append(Band(segment.from_sample, stop, high - share, high, k, title))
    last_K = schedule.segments[-1].mixture
    middles_K = np.cumsum(last_K) - last_K / 2
    labels = [
        (float(middle), f"{formats.cut(name, 20)}  {formats.share(float(share))}")
        for middle, name, share in zip(middles_K, schedule.domains, last_K, strict=True)
    ]
    picture = charts.bands(
        found,
        x=Axis(low=0, high=end, name="samples"),
        y=Axis(low=0, high=1, name="share of tokens", text=_percents, num_ticks=4),
        label=f"Stacked shares of {len(schedule.domains)} domains over {end:,} samples; the table "
        "below has the numbers.",
        labels=labels,
    )
    if len(chosen) == len(schedule.segments):
        return picture
    return join(picture, note(f"{len(chosen)} of {len(schedule.segments):,} mixtures are drawn."))


def _percents(values: Sequence[float]) -> list[str]:
    return [f"{value:.0%}" for value in values]


def _table(schedule: MixtureSchedule) -> Html:
    chosen = charts.thin(len(schedule.segments), MOST_WRITTEN)
    shown = [schedule.segments[i] for i in chosen]
    first_K, last_K = shown[0].mixture, shown[-1].mixture
    rows = [
        [
            tag("span", colours.swatch(k), tag("span", name), class_="named"),
            *(formats.share(float(segment.mixture[k])) for segment in shown),
            formats.share(float(last_K[k] - first_K[k]), sign=True),
        ]
        for k, name in enumerate(schedule.domains)
    ]
    headings = ["from sample", *(f"{s.from_sample:,}" for s in shown), "change"]
    return table(headings, rows, label="Shares of tokens from each sample on")


def _decisions(updates: Sequence[Update]) -> Html:
    chosen = charts.thin(len(updates), MOST_WRITTEN)
    rows = [
        [
            f"{update.step:,}",
            "kept" if update.from_sample is None else f"{update.from_sample:,}",
            formats.share(update.change) if update.from_sample is not None else formats.UNKNOWN,
            "; ".join(update.notes) or formats.UNKNOWN,
        ]
        for update in (updates[i] for i in chosen)
    ]
    headings = ["step", "from sample", "tokens moved", "notes"]
    return table(headings, rows, label="Decisions of the updates", words=(3,), class_="prose")
