"""Tokens: requested against realised, and how often each domain was gone through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tikmix_hf.report import charts, colours, formats
from tikmix_hf.report.markup import Html, tag
from tikmix_hf.report.records import Shares, Update
from tikmix_hf.report.run import Run
from tikmix_hf.report.sections.base import Section, details, missing, note, section
from tikmix_hf.report.tables import table

TITLE, EPOCHS = "Requested and realised tokens", "Epochs of each domain"
MOST_SHOWN = 40
# Epochs below which the first is far away.
FAR = 0.4


def tokens(run: Run) -> Section:
    """Whether training read what the mixtures asked for."""
    if not any(update.realised for update in run.updates):
        return missing(
            "tokens",
            TITLE,
            "No update was read. TikMixCallback counts tokens from one update to the next, in "
            "influence.jsonl.",
        )
    requested, realised = (
        total(found)
        for found in ([u.requested for u in run.updates], [u.realised for u in run.updates])
    )
    names = list(dict.fromkeys([*run.domains, *requested, *realised]))
    everything = sum(realised.values())
    moved = sum(abs(realised.get(k, 0) - requested.get(k, 0)) for k in names) / 2
    last = run.updates[-1].step
    return section(
        "tokens",
        TITLE,
        f"Of {formats.count(everything)} tokens read until step {last:,}, the last update, "
        f"{formats.share(moved / everything if everything else 0)} went to another domain than the "
        f"mixtures asked for{without_lost(run)}.",
        _by_domain(run, names, requested, realised),
        note("Samples are whole, so a domain is off by up to a sample or two at any time."),
    )


def _by_domain(run: Run, names: Sequence[str], requested: Shares, realised: Shares) -> Html:
    full = max([*requested.values(), *realised.values(), 1.0])
    rows = []
    for name in names:
        asked, read = requested.get(name, 0.0), realised.get(name, 0.0)
        title = f"{name}: {formats.count(asked)} requested, {formats.count(read)} realised"
        place = _place(run, name)
        rows.append(
            [
                _named(place, name),
                charts.bar(read, full=full, place=place, mark=asked, title=title),
                *(formats.count(asked), formats.count(read)),
                formats.share((read - asked) / asked, sign=True) if asked else formats.UNKNOWN,
            ]
        )
    headings = ["domain", "realised; the line is requested", "requested", "realised", "difference"]
    return table(headings, rows, label="Tokens of each domain", words=(1,), class_="barred")


def epochs(run: Run) -> Section:
    """How often each domain's rows were gone through."""
    updates = [update for update in run.updates if update.epochs]
    at_end = run.result.epochs if run.result is not None else {}
    if not updates and not at_end:
        return missing(
            "epochs",
            EPOCHS,
            "No update was read. TikMixCallback counts epochs in influence.jsonl, "
            "recipes/pretrain.py at the end of the run in metrics.json.",
        )
    final = at_end or updates[-1].epochs
    when = "at the end of the run" if at_end else f"at step {updates[-1].step:,}, the last update"
    most = max(final, key=lambda name: final[name])
    times = formats.number(final[most], digits=3)
    # A line at one epoch tells nothing where all domains are far from it.
    full, one = (max(final[most], 1.0), 1.0) if final[most] > FAR else (final[most] or 1.0, None)
    rows = []
    for name in [k for k in run.domains if k in final] + [k for k in final if k not in run.domains]:
        place = _place(run, name)
        title = f"{name}: {formats.number(final[name])} epochs"
        bar = charts.bar(final[name], full=full, place=place, mark=one, title=title)
        rows.append([_named(place, name), bar, formats.number(final[name])])
    headings = ["domain", "the line is one epoch" if one else "", "epochs"]
    return section(
        "epochs",
        EPOCHS,
        f"Most repeated {when}: {formats.cut(most, 40)}, gone through {times} times.",
        table(headings, rows, label="Epochs of each domain", words=(1,), class_="barred"),
        details("Epochs at every update", _over_time(run, updates)) if updates else None,
    )


def without_lost(run: Run) -> str:
    """What a sum over updates leaves out."""
    lost = run.lost_updates
    return f", without {formats.plural(lost, 'update')} that could not be read" if lost else ""


def total(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The sum of each name's numbers."""
    sums: dict[str, float] = {}
    for numbers in tables:
        for name, value in numbers.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _over_time(run: Run, updates: Sequence[Update]) -> Html:
    shown = [updates[i] for i in charts.thin(len(updates), MOST_SHOWN)]
    rows = [
        [_named(k, name), *(formats.number(update.epochs.get(name)) for update in shown)]
        for k, name in enumerate(run.domains)
    ]
    headings = ["at step", *(f"{update.step:,}" for update in shown)]
    return table(headings, rows, label="Epochs at every update")


def _place(run: Run, name: str) -> int:
    return run.domains.index(name) if name in run.domains else len(run.domains)


def _named(place: int, name: str) -> Html:
    return tag("span", colours.swatch(place), tag("span", name), class_="named")
