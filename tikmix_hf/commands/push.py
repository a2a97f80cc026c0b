"""`tikmix push`: a schedule of this machine onto the Hub.

In: the parsed options. Out: a repository with the schedule and its card, and its address.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants

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
    with schedules.on_hub(), _offline(options.repo):
        address = str(found.schedule.push_to_hub(options.repo, **given))
    if options.json:
        screen.document({"repo": options.repo, "url": address})
    else:
        screen.say(f"Published: {address}")


@contextmanager
def _offline(repo: str) -> Iterator[None]:
    """Says of a push where the Hub may not be asked that nothing of the cache would help it."""
    try:
        yield
    except FileNotFoundError as err:
        if not constants.is_offline_mode():
            raise
        raise OSError(
            f"nothing was pushed to {repo}: HF_HUB_OFFLINE is set, so the Hub may not be asked. "
            "Unset it."
        ) from err
