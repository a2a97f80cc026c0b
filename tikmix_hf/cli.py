"""The command line: `tikmix influence | mixers`.

In: words. Out: tables on the screen, files in a folder, an exit code: 0, or 2 with one line that
says what was wrong with the input. What a command needs is imported once its words make sense.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from typing import NoReturn

# Short enough for one line of a screen of 80 columns.
EXAMPLE = "tikmix influence --model gpt2 --config my_run.yaml"
# A message of a library may quote pages.
MAX_MESSAGE = 700


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong in one line, without the usage."""
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0, or 2 where the input was wrong.
    """
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError, FloatingPointError) as err:
        if options.debug:
            raise
        message = " ".join(str(err).split())
        shown = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
        print(f"tikmix {options.command}: {shown}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="tikmix",
        description="Data mixtures that a language model chooses itself.",
        epilog=f"example: {EXAMPLE}",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    influence = commands.add_parser(
        "influence",
        help="measure influence on a model as it is, and say which mixture each mixer would choose",
        description="Dry run: measures, without training, how much each domain would lower the "
        "loss on each target, and what mixture each mixer would choose. Options that are left out "
        "are the recipe's.",
        epilog=f"example: {EXAMPLE}",
        allow_abbrev=False,
    )
    _add_model_options(influence)
    _add_measuring_options(influence)
    influence.set_defaults(run=_influence)
    table = commands.add_parser(
        "mixers",
        help="what each mixer asks for, costs, and where it comes from",
        description="The mixers that a run can choose its mixture with.",
        epilog="example: tikmix mixers",
        allow_abbrev=False,
    )
    table.add_argument("--markdown", action="store_true", help="as Markdown, with every column")
    table.add_argument("--debug", action="store_true", help="errors with their traceback")
    table.set_defaults(run=_mixers)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        nargs="+",
        required=True,
        metavar="MODEL",
        help="a causal language model: a folder, a Trainer's checkpoint-N, or user/model of the "
        "Hub; several are combined",
    )
    add("--weights", nargs="+", type=float, metavar="W", help="weight of each model")
    add("--config", required=True, metavar="YAML", help="the recipe: domains, targets, mixture")
    add(
        "--mixture",
        help='the mixture in force: natural, uniform, JSON such as \'{"web": 0.7, "code": 0.3}\' '
        "or a schedule's .json file, whose last mixture is taken",
    )
    add("--mixers", nargs="+", metavar="MIXER", help="mixers to ask; all that need influence alone")
    add("--output", default="runs/influence", help="folder of the files [%(default)s]")
    add("--device", default="auto", help="cpu, cuda, cuda:1 ...; auto takes cuda if there is one")
    add("--dtype", default="auto", help="float32, bfloat16, float16; auto is what was saved")
    add("--quiet", action="store_true", help="no progress bars and no tables")
    add("--debug", action="store_true", help="errors with their traceback")


def _add_measuring_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--num_rows", type=int, metavar="N", help="held-out rows of each domain and target [64]")
    add("--num_rounds", type=int, metavar="N", help="rounds that they are measured in [4]")
    add("--batch_size", type=int, metavar="N", help="rows in a batch, at most")
    add("--seed", type=int, metavar="N", help="of the held-out split, and of the rows measured")
    add("--preconditioner", metavar="NAME", help="stand-in for the inverse Hessian [kfac]")
    add("--preconditioner_settings", metavar="JSON", help="such as '{\"damping\": 0.2}'")
    add(
        "--noise_guard",
        type=float,
        metavar="E",
        help="standard errors that a gain must exceed on fresh rows; 0 asks for none [1]",
    )
    add("--parameters", help='all, lm_head, "last 2 blocks" or a regular expression [all]')
    add(
        "--offload",
        action="store_true",
        default=None,
        help="keep the targets' gradients in the memory of the CPU",
    )


def _influence(options: argparse.Namespace) -> None:
    """Checks what can be checked at once, then measures, proposes, saves and prints."""
    if options.weights is not None:
        _check_weights(options.weights, len(options.model))
    _need_rich()
    from tikmix_hf.commands import influence

    influence.run(options)


def _mixers(options: argparse.Namespace) -> None:
    """Prints the table of mixers."""
    if not options.markdown:
        _need_rich()
    from tikmix_hf.commands import mixers_table

    mixers_table.run(options)


def _need_rich() -> None:
    try:
        import rich  # noqa: F401
    except ImportError as err:
        raise ImportError("`tikmix` prints with rich: pip install tikmix-hf[cli]") from err


def _check_weights(weights: Sequence[float], num_models: int) -> None:
    if len(weights) != num_models:
        raise ValueError(
            f"`--weights` must be one number for each of {num_models} models; got {len(weights)}."
        )
    fine = all(0 <= weight < math.inf for weight in weights)
    if not (fine and any(weights)):
        shown = " ".join(f"{weight:g}" for weight in weights)
        raise ValueError(
            f"`--weights` must be finite, not negative and not all zero; got {shown}. Only their "
            "proportions count."
        )


if __name__ == "__main__":
    sys.exit(main())
