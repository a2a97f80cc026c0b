"""`tikmix recipes`: the training recipes, listed, and copied to where a user can change them.

In: the parsed options. Out: a table, or the files of one recipe in a folder: its YAML, the script
that reads it, and the modules that the script imports from beside it. A recipe is a YAML file in
`recipes/` whose head comment names its script, as `recipes/pretrain.py`; adding one is adding a
file.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
from pathlib import Path
from typing import NamedTuple

from tikmix_hf.commands import screen

FOLDER = Path(__file__).parents[1] / "recipes"


class Recipe(NamedTuple):
    """A recipe of the package."""

    name: str
    """Its YAML's, without ending."""
    about: str
    """The first sentence of its head comment."""
    options: str
    """Of `accelerate launch`, before the script, as the comment gives them; most recipes have none.
    """
    files: tuple[Path, ...]
    """The YAML, the script, what that imports from beside it, and YAMLs that the comment names."""


def run(options: argparse.Namespace) -> None:
    """Lists, or copies.

    Raises:
        ValueError: no such recipe, or files that are there already.
    """
    if options.action == "list":
        if options.name is not None:
            raise ValueError(f"`list` takes no name; got {options.name!r}.")
        _list(options.json)
    else:
        _copy(options)


def available() -> tuple[Recipe, ...]:
    """All recipes, by name."""
    found = (_read(path) for path in sorted(FOLDER.glob("*.yaml")))
    return tuple(recipe for recipe in found if recipe is not None)


def _read(path: Path) -> Recipe | None:
    """The recipe of a YAML file; None for one of accelerate's, or that names no script."""
    head = []
    text = path.read_text("utf-8")
    if re.search(r"^distributed_type:", text, re.MULTILINE):
        return None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    comment = " ".join(head)
    named = re.search(r"recipes/(\w+\.py)", comment)
    if named is None:
        return None
    script = FOLDER / named[1]
    beside = {FOLDER / name for name in re.findall(r"recipes/(\w+\.yaml)", comment)} - {path}
    beside |= _neighbours(script, {script})
    sentence = re.split(r"[.:](?:\s|$)", comment)[0] + "."
    started = rf"accelerate launch (\S.*? )??recipes/{named[1]} --config recipes/{path.name}"
    command = next(filter(None, (re.match(started, line) for line in head)), None)
    options = "" if command is None else command[1] or ""
    return Recipe(path.stem, sentence, options, (path, script, *sorted(beside)))


def _neighbours(script: Path, known: set[Path]) -> set[Path]:
    """The files beside a script that it imports, and those that they import."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.add(node.module)
    found: set[Path] = set()
    for name in sorted(names):
        path = FOLDER / f"{name}.py"
        if path.is_file() and path not in known | found:
            found |= {path, *_neighbours(path, known | found | {path})}
    return found


def _list(as_json: bool) -> None:
    recipes = available()
    if as_json:
        screen.document(
            [
                {"name": r.name, "about": r.about, "files": [path.name for path in r.files]}
                for r in recipes
            ]
        )
        return
    screen.table(
        "",
        ("recipe", "script", "what it does"),
        [(r.name, r.files[1].name, r.about) for r in recipes],
        left=("script", "what it does"),
    )
    screen.say("Copy one to change it: tikmix recipes copy NAME [DEST]")


def _copy(options: argparse.Namespace) -> None:
    recipe = _named(options.name)
    folder = Path(options.dest or recipe.name)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"`DEST` must be a folder; {folder} is a file.")
    targets = [folder / path.name for path in recipe.files]
    if not options.force and (there := [str(path) for path in targets if path.exists()]):
        raise ValueError(
            f"{', '.join(there)} would be overwritten. Name another DEST, or give --force."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for source, target in zip(recipe.files, targets, strict=True):
        target.write_bytes(source.read_bytes())
    options_there = recipe.options.replace("recipes/", f"{folder}/")
    command = f"accelerate launch {options_there}{targets[1]} --config {targets[0]}"
    if options.json:
        screen.document({"files": [str(path) for path in targets], "command": command})
    else:
        screen.say(f"Written: {', '.join(map(str, targets))}", f"Run it: {command}")


def _named(name: str | None) -> Recipe:
    recipes = {recipe.name: recipe for recipe in available()}
    if name is None:
        raise ValueError(f"`copy` needs the name of a recipe: {', '.join(recipes)}.")
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=1)
        mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(recipes)}."
        raise ValueError(f"there is no recipe {name!r}. {mend}")
    return recipes[name]
