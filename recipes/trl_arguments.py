"""The arguments of a TRL script, read by TRL's own parser, with refusals of one line.

In: `--config recipe.yaml` and any `--name value` beside it, which wins. Out: one dataclass a topic.
What is read is what TrlParser would read; a key that no topic has is told with the one that was
probably meant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from arguments import Brief, check_known, in_one_line, read_json, split_config
from trl import TrlParser  # pyright: ignore[reportPrivateImportUsage]

from tikmix_hf import recipe


class _Parser(Brief, TrlParser):  # pyright: ignore[reportIncompatibleVariableOverride]
    pass


def parse(topics: Sequence[type[Any]], argv: Sequence[str]) -> list[Any]:
    """Reads a YAML file and the command line into one object a topic.

    Raises:
        SystemExit: with one line that names the file or the argument, its value and the mend.
    """
    config, words = split_config(argv)
    known = {field.name for topic in topics for field in dataclasses.fields(topic)}
    try:
        if config is not None:
            recipe.read_keys(config, known | {"env"})  # TRL's: variables of the environment
            words = ["--config", config, *words]
        *parsed, rest = _Parser(topics).parse_args_and_config(words, return_remaining_strings=True)
    except (ValueError, OSError) as err:
        raise SystemExit(in_one_line(err)) from err
    check_known(rest, known)
    return [read_json(topic) if isinstance(topic, recipe.MixtureArguments) else topic
            for topic in parsed]  # fmt: skip
