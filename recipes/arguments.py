"""The arguments of the recipes: a YAML file, then the command line, into dataclasses.

In: `--config recipe.yaml` and any `--name value` beside it, which wins. Out: one dataclass per
topic, made by transformers' HfArgumentParser. An unknown key or a value of the wrong type is an
error that says what was probably meant; the parser alone would accept `1e-4`, which YAML reads as
text.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import types
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser, TrainingArguments


@dataclasses.dataclass(kw_only=True)
class ModelArguments:
    """Which model to train."""

    model_name_or_path: str | None = None
    """A causal language model of the Hub or a folder, to train on; None starts from scratch."""
    model_config: dict | str | None = None
    """Architecture of a model from scratch: `model_type` and whatever its configuration takes."""
    tokenizer_name_or_path: str | None = None
    """A tokenizer of the Hub or a folder; None takes the model's, or the embedded corpus's."""


@dataclasses.dataclass(kw_only=True)
class DataArguments:
    """What to train on, and what for."""

    domains: dict | str | None = "embedded"
    """"embedded", or for each domain its source: `path` (files: .jsonl, .jsonl.gz, .json, .txt,
    .parquet; globs allowed) or `dataset` (with `config` and `split`), and `text_column`."""
    targets: dict | str | None = "embedded"
    """The same for the targets; `evals` may name a second source that is only reported on."""
    heldout: float = 0.02
    """Share of each domain's blocks that is kept back for measuring."""
    block_size: int = 128
    """Tokens in a training row."""
    eval_rows: int = 1000
    """Rows of each target to report on, at most."""
    vocab_size: int = 2048
    """Vocabulary of the tokenizer that is trained on the embedded corpus."""
    cache_dir: str | None = None
    """Folder for the tokenised embedded corpus; None takes the Hugging Face cache."""


@dataclasses.dataclass(kw_only=True)
class MixtureArguments:
    """Which mixture, and how it changes."""

    mixture: dict | str | None = "natural"
    """The mixture to start with: "natural", "uniform", or shares by domain."""
    mixer: str = "tikmix_d"
    """One of `tikmix_hf.mixers.available()`; "static" never changes the mixture."""
    mixer_settings: dict | str | None = None
    """Settings of the mixer, such as `gamma: 0.5`."""
    every_steps: int = 500
    """Optimizer steps from one update to the next."""
    observe: bool = False
    """Measure and log, but change nothing."""
    preconditioner: str = "sign"
    """One of `tikmix_hf.signals.preconditioners.available()`."""
    damping: float = 0.1
    """Of the Adam preconditioners, relative to mean(sqrt(v))."""
    num_rows: int = 64
    """Held-out rows to measure of each domain and target at each update."""
    control: bool = False
    """Train once more with the mixture never changing, and compare."""


Arguments = tuple[ModelArguments, DataArguments, MixtureArguments, TrainingArguments]
_TOPICS = (ModelArguments, DataArguments, MixtureArguments, TrainingArguments)


def as_settings(argument: str, value: dict | str | None) -> dict[str, Any]:
    """Returns settings by name; none are an empty dict.

    Raises:
        SystemExit: a word instead of settings.
    """
    if isinstance(value, str):
        raise SystemExit(f"`{argument}` must be settings by name; got {value!r}.")
    return dict(value or {})


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
        words = _read(Path(argv[place + 1]))
        del argv[place : place + 2]
    parser = _Parser(_TOPICS)  # pyright: ignore[reportArgumentType]
    *topics, rest = parser.parse_args_into_dataclasses(
        words + argv, look_for_args_file=False, return_remaining_strings=True
    )
    if rest:
        raise SystemExit(f"Unknown argument {rest[0]!r}.{_nearest(rest[0].lstrip('-'), '--')}")
    for topic in topics[:3]:
        for field in dataclasses.fields(topic):
            value = getattr(topic, field.name)
            if isinstance(value, str) and value.startswith("{"):
                setattr(topic, field.name, _from_json(field.name, value))
    return tuple(topics)  # pyright: ignore[reportReturnType]


def _split(word: str) -> list[str]:
    """`--config=file` is `--config file`."""
    return word.split("=", 1) if word.startswith("--config=") else [word]


def _from_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise SystemExit(
            f'`{name}` must be JSON on the command line, such as {{"web": 0.7, "code": 0.3}}; got '
            f"{text!r}."
        ) from err


def _read(path: Path) -> list[str]:
    """Returns a YAML file as command-line words, once its keys and values make sense."""
    if not path.is_file():
        raise SystemExit(f"`--config` must be a file; {path} is none.")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as err:
        raise SystemExit(f"{path} is not YAML: {err}") from err
    if not isinstance(content, dict):
        raise SystemExit(f"{path} must hold `key: value` lines; got a {type(content).__name__}.")
    hints = _hints()
    words: list[str] = []
    for key, value in content.items():
        if key not in hints:
            raise SystemExit(f"{path} has an unknown key `{key}`.{_nearest(str(key))}")
        _check(path, key, value, hints[key])
        if isinstance(value, list) and not value:
            raise SystemExit(f"`{key}` in {path} is an empty list. Leave the key out.")
        if isinstance(value, list):
            words += [f"--{key}", *map(str, value)]
        elif value is not None:
            words += [f"--{key}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def _hints() -> dict[str, Any]:
    return {name: hint for topic in _TOPICS for name, hint in get_type_hints(topic).items()}


def _nearest(key: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(key, _hints(), n=1)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""


def _check(path: Path, key: str, value: Any, hint: Any) -> None:
    kinds = _kinds(hint)
    if value is None or any(_fits(value, kind) for kind in kinds):
        return
    names = " or ".join(sorted({kind.__name__ for kind in kinds}))
    mend = ""
    if isinstance(value, str) and float in kinds and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        mantissa, exponent = re.split("[eE]", value)
        mend = f" YAML reads that as text: write `{key}: {mantissa}.0e{exponent}`."
    elif isinstance(value, str) and re.fullmatch(r"\d+", value):
        mend = f" Write `{key}: {value}` without quotes."
    raise SystemExit(f"`{key}` in {path} must be of type {names}; got {value!r}.{mend}")


def _kinds(hint: Any) -> list[type]:
    """Returns the plain types that a type hint admits."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return [kind for part in get_args(hint) for kind in _kinds(part)]
    if origin is Literal:
        return [type(choice) for choice in get_args(hint)]
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str]
    return [kind] if isinstance(kind, type) and kind is not types.NoneType else []


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
