"""Cost of updates: tokens, seconds, their share of training, and what they went to."""

from __future__ import annotations

from tikmix_hf.report import charts, formats
from tikmix_hf.report.markup import Html, tag
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, details, missing, note, section
from tikmix_hf.report.sections.tokens import total, without_lost
from tikmix_hf.report.tables import table

TITLE = "Cost of updates"
MOST_SHOWN = 60


def cost(run: Run) -> Section:
    """What measuring and solving cost."""
    if not run.updates:
        return missing(
            "cost",
            TITLE,
            "No update was read. TikMixCallback writes what each costs into influence.jsonl.",
        )
    last = run.updates[-1]
    seconds = sum(update.seconds for update in run.updates)
    return section(
        "cost",
        TITLE,
        f"{formats.plural(len(run.updates), 'update')} took {formats.seconds(seconds)}, "
        f"{formats.share(last.time_share)} of the time until step {last.step:,}, and read "
        f"{formats.number(100 * last.token_share, digits=3)} tokens for every hundred trained on"
        f"{without_lost(run)}.",
        _by_update(run),
        note("Bars are seconds; the line is what training takes for as many tokens as planned. "
             "Seconds are logged, never decided upon."),
        details("By what was measured", _by_signal(run)),
    )  # fmt: skip


def _by_update(run: Run) -> Html:
    shown = [run.updates[i] for i in charts.thin(len(run.updates), MOST_SHOWN)]
    full = max([*(u.seconds for u in shown), *(u.planned_seconds or 0 for u in shown), 1e-9])
    rows = [
        [
            f"{update.step:,}",
            charts.bar(
                update.seconds,
                full=full,
                place=6,
                mark=update.planned_seconds,
                title=f"step {update.step:,}: {formats.seconds(update.seconds)}, "
                f"{formats.seconds(update.planned_seconds)} planned",
            ),
            formats.seconds(update.seconds),
            formats.seconds(update.planned_seconds),
            formats.count(update.tokens),
            formats.count(update.planned_tokens),
            formats.share(update.time_share),
            formats.number(update.token_share, digits=3),
        ]
        for update in shown
    ]
    headings = ["step", "time", "seconds", "planned", "tokens", "planned", "share of time",
                "tokens per trained token"]  # fmt: skip
    return table(headings, rows, label="Cost of each update", words=(1,), class_="barred")


def _by_signal(run: Run) -> Html:
    signals = list(dict.fromkeys(name for update in run.updates for name in update.costs))
    rows = []
    for signal in signals:
        sums = total([update.costs.get(signal, {}) for update in run.updates])
        rows.append(
            [
                tag("code", signal),
                formats.count(sums.get("tokens")),
                formats.seconds(sums.get("seconds")),
            ]
        )
    return table(["signal", "tokens", "seconds"], rows, label="Cost of each signal")
