"""The options of the commands that set a user up: recipes, completion."""

from __future__ import annotations

import argparse

from tikmix_hf.commands.options import Command, paragraph

SHELLS = ("bash", "zsh", "fish")


def _recipes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("list", "copy"), metavar="list|copy", help="what to do")
    add("name", metavar="NAME", nargs="?", help="the recipe to copy")
    add("dest", metavar="DEST", nargs="?", help="folder to copy it to [NAME]")
    add("--force", action="store_true", help="overwrite files that are there")


def _completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS), help="of yours")


COMMANDS = (
    Command(
        name="recipes",
        help="list the training recipes, or copy one to start from",
        description=paragraph(
            """Recipes are training scripts with a YAML file. `list` names them; `copy` writes one,
            with every file that it needs, to a folder of yours."""
        ),
        examples=("tikmix recipes list", "tikmix recipes copy quickstart my_recipe"),
        add_options=_recipes,
        module="recipes",
    ),
    Command(
        name="completion",
        help="print what completes `tikmix` in your shell",
        description=paragraph(
            """Prints a script that completes commands and options. bash: source it in ~/.bashrc.
            zsh: save it as _tikmix in a folder of $fpath. fish: save it as
            ~/.config/fish/completions/tikmix.fish."""
        ),
        examples=(
            "tikmix completion bash > tikmix.bash",
            "tikmix completion zsh > _tikmix",
            "tikmix completion fish > tikmix.fish",
        ),
        add_options=_completion,
        module="completion",
    ),
)
