"""The table of mixers: what each asks for, costs and obeys, and where it comes from.

In: `mixers.available()` and what each says of itself. Out: a table on the screen, JSON, or the
Markdown of docs/mixers.md. A mixer that is added as a file is a row here without anybody's doing.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from tikmix_hf import mixers
from tikmix_hf.commands import screen
from tikmix_hf.mixers import Mixer

HEADINGS = ("mixer", "signals", "cost of an update", "constraints", "paper", "deviations")
INTRODUCTION = """# Mixers

Made by `tikmix mixers --markdown`; a mixer that is added as a file to `tikmix_hf/mixers/` is a \
row here. All take `constraints`: floors, caps, sums of groups, epochs, trust regions, smoothing.

A signal is measured only if the mixer in use asks for it. Passes are over the held-out rows of an \
update; a pass forward alone costs a third of one with gradients.
"""


class Row(NamedTuple):
    """What is said of one mixer."""

    mixer: str
    signals: str
    cost: str
    constraints: str
    paper: str
    deviations: str


def rows() -> list[Row]:
    """One row for each available mixer, with its default settings."""
    return [_row(name, mixers.load(name)()) for name in mixers.available()]


def as_markdown() -> str:
    """The page docs/mixers.md."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows()]
    return INTRODUCTION + "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Prints the table."""
    if options.json:
        screen.document([{**row._asdict(), "mixer": row.mixer.strip("`")} for row in rows()])
        return
    if options.markdown:
        print(as_markdown(), end="")
        return
    screen.table(
        "",
        (*HEADINGS[:3], HEADINGS[4]),
        [(row.mixer.strip("`"), row.signals, row.cost, row.paper) for row in rows()],
        left=HEADINGS[1:],
    )


def _row(name: str, mixer: Mixer[Any]) -> Row:
    about = mixer.about
    signals = sorted(mixer.requires)
    if mixer.at_start and not mixer.at_updates:
        signals.append("none; asked once, before the first sample")
    return Row(
        mixer=f"`{name}`",
        signals=", ".join(signals) or "none",
        cost=about.cost,
        constraints=about.constraints,
        paper=about.paper or "a control",
        deviations=about.deviations,
    )
