"""The options of the commands that measure and solve: influence, solve, mixers, eval."""

from __future__ import annotations

import argparse
from pathlib import Path

from tikmix_hf.commands import first_checks
from tikmix_hf.commands.options import Command, paragraph

MIXTURE_FORMS = (
    'words such as web=0.7 code=0.3, JSON such as \'{"web": 0.7, "code": 0.3}\', or a schedule\'s '
    ".json file, whose last mixture is taken"
)


def _influence(parser: argparse.ArgumentParser) -> None:
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
    _add_measuring(parser)


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--num_rows", type=int, metavar="N", help="held-out rows of each domain and target [64]")
    add("--num_rounds", type=int, metavar="N", help="rounds that they are measured in [4]")
    add("--batch_size", type=int, metavar="N", help="rows in a batch, at most")
    add("--seed", type=int, metavar="N", help="of the held-out split, and of the rows measured")
    add(
        "--preconditioner",
        choices=(first_checks.AUTO, *first_checks.preconditioner_names()),
        metavar="NAME",
        help="stand-in for the inverse Hessian: %(choices)s [kfac]",
    )
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


def _solve(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "matrix",
        metavar="MATRIX",
        help="influence of each domain on each target: a folder of `tikmix influence`, a run's "
        "folder or influence.jsonl (its last update), influence.json, or a .csv or .json file of "
        "one's own, with a row for each target and a column for each domain",
    )
    add(
        "--current",
        nargs="+",
        metavar="SHARES",
        help=f"the mixture in force: uniform, {MIXTURE_FORMS} [the one that MATRIX was measured "
        "under, where it says so, else uniform]",
    )
    add(
        "--prior",
        nargs="+",
        metavar="SHARES",
        help="the natural mixture, in the same forms, which mixers start from and `max_kl_prior` "
        "counts from [the current one]",
    )
    add("--mixer", default="tikmix_d", metavar="NAME", help="see `tikmix mixers` [%(default)s]")
    add(
        "--mixer_settings",
        nargs="+",
        metavar="NAME=VALUE",
        help="such as gamma=0.5, or JSON such as '{\"gamma\": 0.5}'",
    )
    add(
        "--constraints",
        metavar="FILE",
        help="YAML or JSON with floors, caps, groups, max_change, max_kl_change, max_kl_prior or "
        "smoothing, as in a recipe",
    )
    _add_bounds(parser)


def _add_bounds(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--floor", action="extend", nargs="+", metavar="DOMAIN=SHARE", help="least shares")
    add("--cap", action="extend", nargs="+", metavar="DOMAIN=SHARE", help="largest shares")
    add("--max_change", type=float, metavar="SHARE", help="largest part of the tokens to move")
    add(
        "--noise_guard",
        type=float,
        default=0.0,
        metavar="E",
        help="standard errors that a gain must exceed between rounds, where MATRIX has them; 1 is "
        "what training asks for [%(default)g: the mixer's own answer]",
    )
    add("--output", metavar="FILE", help="schedule to write, for `--mixture FILE` of a recipe")


def _mixers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="as Markdown, with every column")


def _eval(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="folder or Hub name of model and tokenizer")
    add("--suite", default="quick", help="name, or YAML file [%(default)s]")
    add("--data-dir", metavar="DIR", help="folder with the benchmarks' rows; else the Hub's")
    add("--tasks", nargs="+", metavar="TASK", help="some of the suite's; else all")
    add("--limit", type=int, metavar="N", help="questions of each task; else the suite's")
    add("--batch-size", default="auto", metavar="N", help="requests of a forward pass [auto]")
    add("--samples", type=Path, metavar="FILE", help="JSON lines to write, one a question")
    add("--name", help="of the result; else the checkpoint's")
    add("--seed", type=int, metavar="N", help="that the checkpoint was trained with, to note")
    add(
        "--output",
        type=Path,
        default=Path("runs/scores"),
        metavar="DIR",
        help="folder of the result [%(default)s]",
    )
    add("--force", action="store_true", help="overwrite another result")


COMMANDS = (
    Command(
        name="influence",
        help="measure influence on a model as it is, and say which mixture each mixer would choose",
        description=paragraph(
            """Dry run: measures, without training, how much each domain would lower the loss on
            each target, and what mixture each mixer would choose. Options that are left out are
            the recipe's."""
        ),
        examples=(
            "tikmix influence --model gpt2 --config my_run.yaml",
            "tikmix influence --model gpt2 --config my_run.yaml --num_rows 8 --output runs/dry",
        ),
        add_options=_influence,
        module="influence",
        check=first_checks.influence,
    ),
    Command(
        name="solve",
        help="a measured influence matrix, a mixture and constraints in; the next mixture out",
        description=paragraph(
            """Asks a mixer for a mixture, given influence that was measured before. Prints shares
            before and after, what the move promises each target, and which constraints bind."""
        ),
        examples=(
            "tikmix solve runs/dry --floor web=0.1 --cap code=0.3",
            "tikmix solve runs/quickstart --mixer tikmix_m --noise_guard 1",
            "tikmix solve matrix.csv --current web=0.7 code=0.3 --output mixture.json",
            "tikmix solve matrix.csv --constraints constraints.yaml --mixer_settings gamma=0.5",
        ),
        add_options=_solve,
        module="solve",
    ),
    Command(
        name="mixers",
        help="what each mixer asks for, costs, and where it comes from",
        description="The mixers that a run can choose its mixture with.",
        examples=("tikmix mixers", "tikmix mixers --markdown"),
        add_options=_mixers,
        module="mixers_table",
    ),
    Command(
        name="eval",
        help="score a checkpoint on a suite of benchmarks",
        description=paragraph(
            """Scores a checkpoint on a suite of benchmarks, and writes NAME_SUITE.json and .md.
            Several processes share the questions: torchrun --nproc_per_node 2 -m tikmix_hf.cli
            eval ... The exit status is 1 if a task failed; the others' scores are written then."""
        ),
        examples=("tikmix eval runs/quickstart/model --suite quick --data-dir benchmarks",),
        add_options=_eval,
        module="eval",
        check=first_checks.scoring,
    ),
)
