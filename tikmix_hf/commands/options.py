"""What a command is to the parser: its name, its help, its options, and who runs it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from typing import NamedTuple


class Command(NamedTuple):
    """One command of `tikmix`."""

    name: str
    """The word."""
    help: str
    """What it does, in the list of commands."""
    description: str
    """The head of its own help, in lines of at most 80 characters."""
    examples: tuple[str, ...]
    """Command lines that can be run as they are, but for their files."""
    add_options: Callable[[argparse.ArgumentParser], None]
    """Adds what it takes."""
    module: str
    """Of `tikmix_hf.commands`, whose `run(options)` runs it; "" for one that has commands itself.
    It is imported when the command runs."""
    check: Callable[[argparse.Namespace], None] | None = None
    """What looks at the options before that; None where the module is imported in no time."""


def paragraph(text: str) -> str:
    """The text in lines of 80 characters."""
    return textwrap.fill(" ".join(text.split()), 80)
