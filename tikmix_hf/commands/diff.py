"""`tikmix diff`: what differs from one schedule to another, as tables or JSON.

In: the parsed options. Out: domains that came and went, and for each interval in which the mixtures
differ their distance and the shares that moved most.
"""

from __future__ import annotations

import argparse
import dataclasses

from tikmix_hf.commands import schedules, screen
from tikmix_hf.commands.schedules import Found
from tikmix_hf.schedule import Interval, MixtureSchedule, ScheduleDiff

_MOVES = 4


def run(options: argparse.Namespace) -> int:
    """Prints the difference.

    Returns:
        1 where they differ and the options ask for that, else 0.

    Raises:
        ValueError: as `schedules.find`; a fraction of a run whose length is not known.
        OSError: as `schedules.find`.
    """
    before, after = (schedules.find(word) for word in (options.before, options.after))
    one, other = (_with_length(found, options.by) for found in (before, after))
    difference = one.diff(other, by=options.by)
    if options.json:
        screen.document(difference.to_dict())
    else:
        _show(difference)
    return int(options.exit_code and not difference.is_same)


def _with_length(found: Found, by: str) -> MixtureSchedule:
    """The schedule with the length of its run, which its folder may know."""
    length = found.num_samples()
    if length is None and by == "fraction":
        raise ValueError(
            f"`--by fraction` needs the length of both runs, and {found.origin} does not say how "
            "long its run is. Compare by sample, or name the run's folder, with its "
            f"{schedules.METRICS}."
        )
    run = dataclasses.replace(found.schedule.run, num_samples=length)
    return dataclasses.replace(found.schedule, run=run)


def _show(difference: ScheduleDiff) -> None:
    for names, what in (
        (difference.domains_removed, "Domains that went"),
        (difference.domains_added, "Domains that came"),
        (difference.text_changed, "Domains of the same name with other text"),
    ):
        if names:
            screen.say(f"{what}: {', '.join(names)}")
    if difference.is_same:
        screen.say("No difference: the same domains have the same shares all along.")
        return
    if not difference.changed:
        screen.say("The shares are the same all along.")
        return
    rows = [
        (
            _bound(interval.start, difference.by),
            "end" if interval.stop is None else _bound(interval.stop, difference.by),
            f"{interval.distance:.1%}",
            _largest_moves(interval),
        )
        for interval in difference.changed
    ]
    mean = (
        "" if difference.mean_distance is None else f": {difference.mean_distance:.1%} on average"
    )
    screen.table(
        f"Share of tokens that changed domain{mean}",
        ("from", "to", "distance", "largest moves"),
        rows,
        left=("largest moves",),
    )


def _bound(bound: float, by: str) -> str:
    return f"{bound:,.0f}" if by == "sample" else f"{bound:.1%}"


def _largest_moves(interval: Interval) -> str:
    before, after = interval.before, interval.after
    names = sorted(
        {**before, **after},
        key=lambda name: -abs(after.get(name, 0.0) - before.get(name, 0.0)),
    )
    return ", ".join(
        f"{name} {before.get(name, 0.0):.3f} -> {after.get(name, 0.0):.3f}"
        for name in names[:_MOVES]
        if before.get(name, 0.0) != after.get(name, 0.0)
    )
