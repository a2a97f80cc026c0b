"""`tikmix completion`: a script that completes `tikmix` in a shell.

In: the parsed options. Out: the script, made by shtab from the parser itself.
"""

from __future__ import annotations

import argparse
from typing import Any

from tikmix_hf.commands import parser, screen

# Options and arguments that are paths, by what the help calls them.
_FILES = ("FILE", "YAML", "MATRIX", "SCHEDULE", "BEFORE", "AFTER", "MODEL", "CHECKPOINT")
_FOLDERS = ("DIR", "DEST")


def run(options: argparse.Namespace) -> None:
    """Prints the script.

    Raises:
        ImportError: shtab is missing.
    """
    try:
        import shtab
    except ImportError as err:
        raise ImportError(
            "`tikmix completion` needs shtab: pip install tikmix-hf[cli]", name="shtab"
        ) from err
    whole = parser.build()
    _complete_paths(whole, shtab)
    script = shtab.complete(whole, options.shell)
    if options.json:
        screen.document({"shell": options.shell, "script": script})
    else:
        screen.say(script)


def _complete_paths(whole: argparse.ArgumentParser, shtab: Any) -> None:
    """Tells shtab which words are files and folders, in all commands."""
    for action in whole._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_paths(command, shtab)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # pyright: ignore[reportAttributeAccessIssue]
