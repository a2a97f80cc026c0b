"""The arguments of the recipes: a YAML file, then the command line, into dataclasses.

In: `--config recipe.yaml` and any `--name value` beside it, which wins. Out: one dataclass per
topic, made by transformers' HfArgumentParser. `tikmix_hf.recipe` says what the keys are and checks
the file; the parser alone would accept `1e-4`, which YAML reads as text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from transformers import HfArgumentParser, TrainingArguments

from tikmix_hf import recipe
from tikmix_hf.recipe import DataArguments, MixtureArguments, ModelArguments

Topic = TypeVar("Topic")
Arguments = tuple[ModelArguments, DataArguments, MixtureArguments, TrainingArguments]


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong, without the two hundred lines of usage."""
        raise SystemExit(f"{message}. See --help.")


def parse(argv: Sequence[str]) -> Arguments:
    """Reads `--config FILE` and the arguments beside it.

    Raises:
        SystemExit: with one line that names the file, the key, its value and the mend.
    """
    argv = [part for word in argv for part in _split(word)]
    words: list[str] = []
    if "--config" in argv:
        place = argv.index("--config")
        if place + 1 == len(argv):
            raise SystemExit("`--config` must be followed by a YAML file.")
        try:
            words = _as_words(recipe.read(argv[place + 1]))
        except ValueError as err:
            raise SystemExit(str(err)) from err
        del argv[place : place + 2]
    parser = _Parser(recipe.TOPICS)  # pyright: ignore[reportArgumentType]
    *topics, rest = parser.parse_args_into_dataclasses(
        words + argv, look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        near = recipe.nearest(rest[0].lstrip("-"), "--")
        raise SystemExit(f"Unknown argument {rest[0]!r}.{near}")
    for topic in topics[:3]:
        read_json(topic)
    return tuple(topics)  # pyright: ignore[reportReturnType]


def read_json(topic: Topic) -> Topic:
    """Reads, in place, what the command line says in JSON, such as `--mixture '{"web": 1}'`.

    Raises:
        SystemExit: it is no JSON; says where, and what it would look like.
    """
    for field in dataclasses.fields(topic):  # pyright: ignore[reportArgumentType]
        value = getattr(topic, field.name)
        if isinstance(value, str) and value.startswith("{"):
            try:
                setattr(topic, field.name, recipe.parse_json(field.name, value))
            except ValueError as err:
                raise SystemExit(str(err)) from err
    return topic


def _split(word: str) -> list[str]:
    """`--config=file` is `--config file`."""
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _as_words(settings: dict[str, Any]) -> list[str]:
    """Returns a recipe's settings as the command line would say them."""
    words: list[str] = []
    for key, value in settings.items():
        if isinstance(value, list):
            words += [f"--{key}", *map(str, value)]
        elif value is not None:
            words += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words
