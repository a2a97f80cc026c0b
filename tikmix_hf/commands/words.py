"""What a command's words say: mixtures, bounds by domain, settings.

In: words such as `web=0.7 code=0.3`, JSON, the name of a file. Out: plain values by name, or one
line that names the option, the word and the mend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.files import read_text
from tikmix_hf.mixture import as_mixture
from tikmix_hf.schedule import MixtureSchedule

# Shape letters: K domains.


def by_name(option: str, words: Sequence[str]) -> dict[str, Any]:
    """Reads NAME=VALUE words, or one word of JSON; values are JSON where they can be, else text.

    Example:
        >>> by_name("--mixer_settings", ["gamma=0.5", "centred=true", "kind=best"])
        {'gamma': 0.5, 'centred': True, 'kind': 'best'}

    Raises:
        ValueError: a word of another form, or a name twice.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return read_json(option, words[0])
    values: dict[str, Any] = {}
    for word in words:
        name, sign, value = word.rpartition("=")
        if not (sign and name):
            raise ValueError(
                f"`{option}` must be NAME=VALUE words, such as web=0.5 code=0.5, or JSON; got "
                f"{word!r}."
            )
        if name in values:
            raise ValueError(f"`{option}` must name {name!r} once; got it twice. Leave one out.")
        values[name] = _value(value)
    return values


def numbers_by_name(option: str, words: Sequence[str]) -> dict[str, float]:
    """Reads NAME=NUMBER words, or one word of JSON.

    Raises:
        ValueError: as `by_name`, or a value that is no number.
    """
    values = by_name(option, words)
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"`{option}` must be numbers; got {value!r} for {name!r}.")
    return values


def mixture(option: str, words: Sequence[str], domains: Sequence[str]) -> NDArray[np.float64]:
    """Reads a mixture (K,): uniform, shares by name, or the last mixture of a schedule's file.

    Raises:
        ValueError: as `numbers_by_name` and `as_mixture`; a schedule of other domains.
        FileNotFoundError: the file is not there.
    """
    if list(words) == ["uniform"]:
        return np.full(len(domains), 1 / len(domains))
    if len(words) == 1 and words[0].endswith(".json"):
        return MixtureSchedule.load(words[0]).for_domains(tuple(domains)).segments[-1].mixture
    if len(words) == 1 and "=" not in words[0] and not words[0].startswith("{"):
        raise ValueError(
            f"`{option}` must be uniform, shares such as web=0.7 code=0.3, or a schedule's .json "
            f"file; got {words[0]!r}."
        )
    return as_mixture(numbers_by_name(option, words), domains, argument=option)


def settings_file(option: str, path: str | Path) -> dict[str, Any]:
    """Reads settings by name from a YAML or JSON file.

    Raises:
        ValueError: it is neither, or holds something else.
        ImportError: it is YAML, which needs PyYAML.
        FileNotFoundError: it is not there.
    """
    path = Path(path)
    text = read_text(path)
    if path.suffix == ".json":
        return read_json(option, text, origin=f"{path}: ")
    try:
        import yaml
    except ImportError as err:
        raise ImportError(
            f"{path} is YAML, which needs PyYAML: pip install tikmix-hf[cli]. JSON needs nothing."
        ) from err
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as err:
        raise ValueError(f"`{option}` must be YAML; {path} is not: {err}") from err
    return _mapping(option, content, origin=f"{path}: ")


def read_json(option: str, text: str, *, origin: str = "") -> dict[str, Any]:
    """Reads an object of JSON.

    Raises:
        ValueError: it is none; says where it breaks.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as err:
        raise ValueError(
            f'{origin}`{option}` must be JSON, such as {{"web": 0.7}}; it breaks at line '
            f"{err.lineno}, character {err.colno} ({err.msg})."
        ) from err
    return _mapping(option, content, origin=origin)


def _mapping(option: str, content: Any, *, origin: str) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{origin}`{option}` must be values by name; got {kind}.")
    return {str(name): value for name, value in content.items()}


def _value(word: str) -> Any:
    """A number as Python reads it (.5 too), true and false, null; else the word itself."""
    try:
        return json.loads(word)
    except json.JSONDecodeError:
        pass
    try:
        return float(word)
    except ValueError:
        return word
