"""The parser: from words to the options of a command.

Out: an `argparse.ArgumentParser` whose options name the `module` of `tikmix_hf.commands` that runs
them. It is made of words alone, so that `tikmix --help` and completion import nothing heavy.
"""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

import tikmix_hf
from tikmix_hf.commands import measuring_options, schedule_options, setup_options
from tikmix_hf.commands.options import Command

COMMANDS: tuple[Command, ...] = (
    *measuring_options.COMMANDS,
    *schedule_options.COMMANDS,
    *setup_options.COMMANDS,
)
_EPILOG = """\
exit status:
  0    done
  1    it failed, though the words were right: the Hub cannot be reached, ...
  2    the words, or a file that they name, are wrong; nothing was done
  130  interrupted by Ctrl-C

Every command takes --json, which prints one JSON document on stdout and nothing
else, and --traceback (or TIKMIX_TRACEBACK=1), which tells where an error came
from. NO_COLOR=1 switches colours off.

examples:
  tikmix COMMAND --help
  tikmix mixers
  tikmix recipes list
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line, without the usage."""
        unknown = re.match(r"argument COMMAND: invalid choice: '([^']*)'", message)
        if unknown:
            names = [command.name for command in COMMANDS]
            near = difflib.get_close_matches(unknown[1], names, n=1)
            mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(names)}."
            message = f"there is no command {unknown[1]!r}. {mend}"
        end = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: {message}{end} See {self.prog} --help.\n")


def build() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = _Parser(
        prog="tikmix",
        description="Data mixtures that a language model chooses itself.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"tikmix {tikmix_hf.__version__}"
    parser.add_argument("--version", action="version", version=version, help="print the version")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )
    for command in COMMANDS:
        add(commands, command)
    return parser


def add(commands: Any, command: Command) -> None:
    """Adds a command to the subparsers of another."""
    examples = "\n".join(f"  {example}" for example in command.examples)
    parser = commands.add_parser(
        command.name,
        help=command.help,
        description=command.description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    if command.module:
        parser.set_defaults(module=command.module, check=command.check)
        parser.add_argument("--json", action="store_true", help="print one JSON document")
        parser.add_argument(
            "--traceback", action="store_true", help="tell where an error came from"
        )
