"""The options of the commands that show schedules and runs, and publish them."""

from __future__ import annotations

import argparse

from tikmix_hf.commands.options import Command, paragraph

WHICH = "a schedule's .json file, a run's folder, or user/name of the Hub"


def _show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("schedule", metavar="SCHEDULE", help=WHICH)
    parser.add_argument("--revision", help="of the Hub: a branch, a tag or a commit")


def _diff(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("before", metavar="BEFORE", help=WHICH)
    add("after", metavar="AFTER", help="another one")
    add(
        "--by",
        choices=("sample", "fraction"),
        default="sample",
        help="compare at the same sample, or at the same fraction of the run [%(default)s]",
    )
    add("--exit-code", action="store_true", help="end with status 1 where they differ")


def _plot(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("schedule", metavar="SCHEDULE", help=WHICH)
    add(
        "--output",
        "-o",
        metavar="FILE",
        help="picture to write; .png, .svg or .pdf say as what [mixture.png, or as --what says]",
    )
    add(
        "--what",
        choices=("mixture", "influence", "audit"),
        default="mixture",
        help="shares over the run; what updates measured; or, of a run's folder, predicted against "
        "realised gains [%(default)s]",
    )
    add(
        "--num_samples",
        type=int,
        metavar="N",
        help="length of the run, where the schedule does not say it",
    )
    add("--revision", help="of the Hub: a branch, a tag or a commit")


def _report(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="the folder of a run; more to compare")
    add("--output", "-o", metavar="FILE", help="the HTML file [report.html in the first RUN]")
    add("--open", action="store_true", help="show it in the browser")
    add("--png", metavar="DIR", help="write figures for papers as PNG into a folder")
    add("--svg", metavar="DIR", help="the same as SVG")


def _push(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("schedule", metavar="SCHEDULE", help="a schedule's .json file, or a run's folder")
    add("repo", metavar="REPO", help="user/name of the Hub; made where it is not there")
    add("--private", action="store_true", default=None, help="for you and your organisation alone")
    add("--revision", help="branch to write to")
    add("--license", help="such as apache-2.0, for the card")


def _pull(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("repo", metavar="REPO", help="user/name of the Hub")
    add("dest", metavar="FILE", nargs="?", help="where to write the schedule [NAME.json]")
    add("--revision", help="a branch, a tag or a commit")
    add("--force", action="store_true", help="overwrite FILE")


_TOKEN = """The token comes from the environment (HF_TOKEN) or from `hf auth login`; it is never a
word of the command line, which other people of the machine can read."""

COMMANDS = (
    Command(
        name="show",
        help="what a schedule says: its mixtures, domains and cost",
        description=paragraph(
            "Prints a schedule's segments, its domains with their first, last and mean shares, and "
            "what choosing them cost."
        ),
        examples=(
            "tikmix show runs/quickstart",
            "tikmix show mixture.json",
            "tikmix show mixture.json --json",
            "tikmix show user/web-code-mixture --revision main",
        ),
        add_options=_show,
        module="show",
    ),
    Command(
        name="diff",
        help="what differs from one schedule to another",
        description=paragraph(
            """Prints which domains came and went, and where along the run the mixtures differ: by
            how much (total variation, the share of tokens that changed domain), and which shares
            most."""
        ),
        examples=(
            "tikmix diff runs/quickstart runs/other",
            "tikmix diff mixture.json runs/quickstart --exit-code",
            "tikmix diff runs/quickstart runs/other --by fraction",
        ),
        add_options=_diff,
        module="diff",
    ),
    Command(
        name="plot",
        help="draw a schedule or a run as PNG, SVG or PDF",
        description="Draws the mixture over the run, or what a run measured.",
        examples=(
            "tikmix plot runs/quickstart -o mixture.svg",
            "tikmix plot runs/quickstart --what influence -o influence.pdf",
            "tikmix plot mixture.json --num_samples 1000 -o mixture.png",
        ),
        add_options=_plot,
        module="plot",
    ),
    Command(
        name="report",
        help="show a run, or compare several, in one HTML file",
        description=paragraph(
            """Writes one self-contained HTML file: mixture, influence, predicted and realised
            gain, tokens, cost, benchmarks; several runs are compared."""
        ),
        examples=(
            "tikmix report runs/quickstart",
            "tikmix report runs/quickstart runs/other -o comparison.html",
            "tikmix report runs/quickstart --svg figures",
        ),
        add_options=_report,
        module="report",
    ),
    Command(
        name="push",
        help="publish a schedule on the Hub, with a card",
        description=paragraph(f"Publishes a schedule on the Hub, with a card. {_TOKEN}"),
        examples=(
            "tikmix push runs/quickstart user/web-code-mixture",
            "tikmix push mixture.json user/web-code-mixture --private --license apache-2.0",
        ),
        add_options=_push,
        module="push",
    ),
    Command(
        name="pull",
        help="fetch a schedule from the Hub",
        description=paragraph(f"Fetches a schedule from the Hub as a file. {_TOKEN}"),
        examples=(
            "tikmix pull user/web-code-mixture",
            "tikmix pull user/web-code-mixture mine.json --revision main --force",
        ),
        add_options=_pull,
        module="pull",
    ),
)
