"""What a recipe may say: the keys of its YAML file, their types and what they mean.

In: a YAML file and the settings that go before it. Out: one dataclass a topic, and the few training
arguments that measuring needs. `recipes/pretrain.py` and the command line read recipes alike: an
unknown key or a value of the wrong type is an error that says what was probably meant. The keys of
transformers' TrainingArguments are a recipe's too; this room reads their names and types alone.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import types
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import TrainingArguments

from tikmix_hf.checks import check_count
from tikmix_hf.signals import preconditioners


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
    eval_suites: list[str] | None = None
    """Suites that the trained models are scored on: names, such as `offline`, or YAML files. They
    need the extra `eval`."""
    benchmarks_dir: str | None = None
    """Folder with the rows of the suites' benchmarks, such as `arc_easy/test.jsonl.gz`; None asks
    the Hub. Where no suite has a benchmark, the two ARC tasks of `quick` are asked from it too."""


@dataclasses.dataclass(kw_only=True)
class MixtureArguments:
    """Which mixture, and how it changes."""

    mixture: dict | str | None = "natural"
    """The mixture to start with: "natural", "uniform", shares by domain, or a schedule to replay:
    its .json file, the folder of a run (`runs/proxy`, `./proxy`), or a repository of the Hub
    (`user/name`)."""
    mixture_revision: str | None = None
    """Of a schedule of the Hub: a branch, a tag or a commit; None takes the newest."""
    replay_by: Literal["sample", "fraction", "tokens"] = "sample"
    """Where the segments of a replayed schedule start: at the same samples, or at the same fraction
    of the run or after as many tokens, which is for runs of another length or batch."""
    mixer: str = "tikmix_d"
    """One of `tikmix_hf.mixers.available()`; "static" never changes the mixture."""
    mixer_settings: dict | str | None = None
    """Settings of the mixer, such as `gamma: 0.5`."""
    constraints: dict | str | None = None
    """What every mixture obeys, such as `caps: {code: 0.3}`; see `tikmix_hf.Constraints`."""
    reference_model_name_or_path: str | None = None
    """A trained model of the Hub or a folder, for a mixer that compares with one (`doremi`)."""
    budget: float = 0.01
    """Share of the run's tokens that measuring may take; plans what is left out below."""
    every_steps: int | None = None
    """Optimizer steps from one update to the next; None plans them from `budget`."""
    num_rows: int | None = None
    """Held-out rows of each domain and target at each update; None plans them from `budget`."""
    num_rounds: int = 4
    """Rounds that an update's rows are measured in, at most."""
    tolerance: float = 0.02
    """An update stops early once a round moves its proposal by no more than this share."""
    noise_guard: float = 1.0
    """Standard errors that a promised gain must exceed for the mixture to move; 0 asks for none."""
    observe: bool = False
    """Measure and log, but change nothing."""
    preconditioner: str = "auto"
    """"auto" (`kfac`; `sign` for a sharded model), or one of
    `tikmix_hf.signals.preconditioners.available()`."""
    preconditioner_settings: dict | str | None = None
    """Settings of the preconditioner, such as `damping: 0.2`."""
    parameters: str = "all"
    """What gradients are taken of: "all", "lm_head", "last 2 blocks", or a regular expression."""
    offload: bool = False
    """Keep the targets' gradients in the memory of the CPU."""
    control: bool = False
    """Train once more with the mixture never changing, and compare."""


TOPICS = (ModelArguments, DataArguments, MixtureArguments, TrainingArguments)


# What these look like in JSON; the others are sources by name.
_JSON_FORMS = {
    "mixture": '{"web": 0.7, "code": 0.3}',
    "mixer_settings": '{"gamma": 0.5}',
    "constraints": '{"caps": {"code": 0.3}}',
    "preconditioner_settings": '{"damping": 0.2}',
    "model_config": '{"model_type": "llama"}',
}


class Recipe(NamedTuple):
    """What a recipe says, without its training arguments."""

    model: ModelArguments
    data: DataArguments
    mixture: MixtureArguments
    seed: int
    """The training's: it decides which rows of a domain are held out."""
    batch_size: int
    """Rows in a training batch of one device."""


def load(path: str | Path, **instead: Any) -> Recipe:
    """Reads a recipe; what `instead` names goes before the file, unless it is None.

    Raises:
        ValueError: as `read`; a negative seed; a preconditioner instead of the one that the file
            has settings for.
    """
    settings = {key: value for key, value in read(path).items() if value is not None}
    instead = {key: value for key, value in instead.items() if value is not None}
    _check_not_anothers(settings, instead)
    settings |= instead

    def of(topic: type[Any]) -> dict[str, Any]:
        names = {field.name for field in dataclasses.fields(topic)}
        return {name: value for name, value in settings.items() if name in names}

    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    training = {**defaults, **of(TrainingArguments)}
    return Recipe(
        ModelArguments(**of(ModelArguments)),
        DataArguments(**of(DataArguments)),
        MixtureArguments(**of(MixtureArguments)),
        check_count("seed", training["seed"], least=0),
        training["per_device_train_batch_size"],
    )


def read(path: str | Path) -> dict[str, Any]:
    """Reads a recipe's YAML file, once its keys and values make sense.

    Raises:
        ValueError: with one line that names the file, the key, its value and the mend.
    """
    path = Path(path)
    content = read_keys(path, hints())
    for key, value in content.items():
        _check(path, key, value, hints()[key])
        if isinstance(value, list) and not value:
            raise ValueError(f"`{key}` in {path} is an empty list. Leave the key out.")
    return content


def read_keys(path: str | Path, known: Collection[str]) -> dict[str, Any]:
    """Reads a YAML file of known keys; their values are not looked at.

    Raises:
        ValueError: with one line that names the file, the key and the mend.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`--config` must be a file; {path} is none.")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise ValueError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `key: value` lines; got a {type(content).__name__}.")
    for key in content:
        if key not in known:
            raise ValueError(f"{path} has an unknown key `{key}`.{nearest(str(key), known=known)}")
    return content


def as_settings(argument: str, value: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Returns settings by name; none are an empty dict.

    Raises:
        ValueError: a word instead of settings.
    """
    if isinstance(value, str):
        raise ValueError(f"`{argument}` must be settings by name; got {value!r}.")
    return dict(value or {})


def parse_json(argument: str, text: str) -> Any:
    """Returns what a word of the command line says in JSON.

    Raises:
        ValueError: it is no JSON; says where, and what it would look like.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        form = _JSON_FORMS.get(argument, '{"web": {"path": "web.jsonl"}}')
        raise ValueError(
            f"`{argument}` must be JSON on the command line, such as {form}; got {text!r}, which "
            f"breaks at character {err.pos + 1} ({err.msg}). Write 0.5, not .5, and names in "
            "double quotes."
        ) from err


@functools.cache
def hints() -> dict[str, Any]:
    """Type hints of all keys, by key."""
    return {name: hint for topic in TOPICS for name, hint in get_type_hints(topic).items()}


def nearest(key: str, prefix: str = "", *, known: Collection[str] | None = None) -> str:
    """Says which key was probably meant; empty where none is near.

    Args:
        key: what was written.
        prefix: of what is proposed.
        known: the keys to choose from; None takes those of a recipe.
    """
    near = difflib.get_close_matches(key, hints() if known is None else known, n=1)
    return f" Did you mean `{prefix}{near[0]}`?" if near else ""


def _check_not_anothers(settings: Mapping[str, Any], instead: Mapping[str, Any]) -> None:
    """Refuses to give one preconditioner the settings of another, or to drop them unsaid."""
    given = settings.get("preconditioner_settings")
    if not given or "preconditioner_settings" in instead or "preconditioner" not in instead:
        return
    used, meant = instead["preconditioner"], settings.get("preconditioner", preconditioners.AUTO)
    if used != meant:
        raise ValueError(
            f"`--preconditioner {used}` does not go with the recipe's `preconditioner_settings` "
            f"{given}, which are for {meant!r}. Give --preconditioner_settings too; '{{}}' is the "
            f"defaults of {used}."
        )


def _check(path: Path, key: str, value: Any, hint: Any) -> None:
    kinds = _kinds(hint)
    if value is None or any(_fits(value, kind) for kind in kinds):
        return
    names = " or ".join(sorted({kind.__name__ for kind in kinds}))
    mend = ""
    if isinstance(value, str) and float in kinds and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value):
        mantissa, exponent = re.split("[eE]", value)
        mend = f" YAML reads that as text: write `{key}: {mantissa}.0e{exponent}`."
    elif isinstance(value, str) and list in kinds:
        mend = f" Write `{key}: [{value}]`."
    elif isinstance(value, str) and re.fullmatch(r"\d+", value):
        mend = f" Write `{key}: {value}` without quotes."
    raise ValueError(f"`{key}` in {path} must be of type {names}; got {value!r}.{mend}")


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
