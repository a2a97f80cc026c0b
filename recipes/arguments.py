"""The arguments of the recipes: a YAML file, then the command line, into dataclasses.

In: `--config recipe.yaml` and any `--name value` beside it, which wins. Out: one dataclass per
topic, made by transformers' HfArgumentParser. `tikmix_hf.recipe` says what the keys are and checks
the file; the parser alone would accept `1e-4`, which YAML reads as text.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from typing import Any, NoReturn, TypeVar

from transformers import HfArgumentParser, TrainingArguments

from tikmix_hf import recipe
from tikmix_hf.recipe import DataArguments, MixtureArguments, ModelArguments

Topic = TypeVar("Topic")
Arguments = tuple[ModelArguments, DataArguments, MixtureArguments, TrainingArguments]


class Brief(HfArgumentParser):
    """A parser that says what is wrong in one line, and takes no typo for a key's beginning."""

    def __init__(self, topics: Sequence[Any]) -> None:
        super().__init__(topics, allow_abbrev=False)  # pyright: ignore[reportArgumentType]

    def error(self, message: str) -> NoReturn:
        """Says what is wrong, without the two hundred lines of usage."""
        raise SystemExit(f"{message}. See --help.")


def parse(argv: Sequence[str]) -> Arguments:
    """Reads `--config FILE` and the arguments beside it.

    Raises:
        SystemExit: with one line that names the file, the key, its value and the mend.
    """
    config, argv = split_config(argv)
    try:
        words = [] if config is None else _as_words(recipe.read(config))
        *topics, rest = Brief(recipe.TOPICS).parse_args_into_dataclasses(
            words + argv, look_for_args_file=False, return_remaining_strings=True
        )
    except ValueError as err:
        raise SystemExit(in_one_line(err)) from err
    check_known(rest, recipe.hints())
    for topic in topics[:3]:
        read_json(topic)
    return tuple(topics)  # pyright: ignore[reportReturnType]


def split_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes `--config FILE`, or `--config=FILE`, out of the words; None where there is none.

    Raises:
        SystemExit: no file follows.
    """
    words = [part for word in argv for part in _split(word)]
    if "--config" not in words:
        return None, words
    place = words.index("--config")
    if place + 1 == len(words):
        raise SystemExit("`--config` must be followed by a YAML file.")
    return words[place + 1], words[:place] + words[place + 2 :]


def check_known(rest: Sequence[str], known: Collection[str]) -> None:
    """Refuses words that no argument has taken.

    Args:
        rest: the words.
        known: names of all arguments.

    Raises:
        SystemExit: says which argument was probably meant.
    """
    if rest:
        name = rest[0].lstrip("-").split("=")[0].replace("-", "_")
        near = recipe.nearest(name, "--", known=known)
        raise SystemExit(f"Unknown argument {rest[0]!r}.{near}")


def in_one_line(err: Exception) -> str:
    """What other people's classes say of their own arguments, with a mend where we know one."""
    said = " ".join(str(err).split())
    return f"{said} On a CPU, give --use_cpu true --bf16 false." if "bf16" in said else said


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
