"""The command line: `tikmix COMMAND ...`.

In: words. Out: what the command prints on stdout (with `--json` one JSON document and nothing
else), files, and an exit status:

    0    done
    1    it failed, though the words were right: the Hub cannot be reached, a library is missing
    2    the words, or a file that they name, are wrong; nothing was done
    130  Ctrl-C

What went wrong is one sentence on stderr; `--traceback`, or TIKMIX_TRACEBACK=1 in the environment,
tells where as well. Nothing heavy is imported before the words make sense.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from tikmix_hf.commands import parser

DONE, FAILED, WRONG, INTERRUPTED, CLOSED = 0, 1, 2, 130, 141
"""Exit statuses; the last is of a reader, such as `head`, that has gone, as the shell counts it."""
# A message of a library may quote pages.
MAX_MESSAGE = 700
_WRONG_INPUT = (
    *(ValueError, FileNotFoundError, FileExistsError),
    *(IsADirectoryError, NotADirectoryError),
)
_FAILURES = (OSError, ImportError, ArithmeticError, MemoryError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: its words; None takes the process's.

    Returns:
        The exit status.

    Raises:
        SystemExit: with a status, after `--help`, and where the words are no command's.
    """
    try:
        try:
            return _run(parser.build().parse_args(argv))
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more when it ends, which must not fail too.
        assert sys.stdout is not None  # it was written to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    try:
        if options.check is not None:
            options.check(options)
        command = import_module(f"tikmix_hf.commands.{options.module}")
        return command.run(options) or DONE
    except BrokenPipeError:
        raise
    except (*_WRONG_INPUT, *_FAILURES) as err:
        if options.traceback or os.environ.get("TIKMIX_TRACEBACK", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"tikmix {options.command}: {_sentence(err)}", file=sys.stderr)
        return WRONG if isinstance(err, _WRONG_INPUT) else FAILED


def _sentence(err: BaseException) -> str:
    """What an exception says, on one line."""
    words = str(err) or type(err).__name__
    if isinstance(err, OSError) and err.filename is not None and err.strerror:
        words = f"{err.filename}: {err.strerror}."
    message = " ".join(words.split())
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."


if __name__ == "__main__":
    sys.exit(main())
