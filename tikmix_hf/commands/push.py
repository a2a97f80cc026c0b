"""`tikmix push`: a schedule of this machine onto the Hub.

In: the parsed options. Out: a repository with the schedule and its card, and its address.
"""

from __future__ import annotations

import argparse

from tikmix_hf.commands import schedules, screen


def run(options: argparse.Namespace) -> None:
    """Publishes.

    Raises:
        ValueError: no schedule, or a name that the Hub does not take.
        OSError: the Hub refuses, or cannot be reached.
    """
    found = schedules.local(options.schedule)
    # No token: huggingface_hub finds the one of the environment or of `hf auth login`.
    given = {
        name: value
        for name in ("private", "revision", "license")
        if (value := getattr(options, name)) is not None
    }
    address = str(found.schedule.push_to_hub(options.repo, **given))
    if options.json:
        screen.document({"repo": options.repo, "url": address})
    else:
        screen.say(f"Published: {address}")
