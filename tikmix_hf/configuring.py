"""Settings by name become the object that they describe.

In: a dataclass of settings, such as a mixer or `Constraints`, and plain values by name. Out: a live
object, or one line that names the argument, what is wrong and the mend.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def configure(argument: str, method: type[Any], settings: Mapping[str, Any]) -> Any:
    """Makes an object of a dataclass from settings by name.

    Args:
        argument: what the error calls them.
        method: the dataclass.
        settings: values by field; those left out have their defaults.

    Raises:
        ValueError: an unknown setting, or a value that the class refuses.
    """
    known = [field.name for field in dataclasses.fields(method)]
    if unknown := sorted(set(settings) - set(known)):
        raise ValueError(
            f"`{argument}` must be settings of {method.__name__} ({', '.join(known) or 'none'}); "
            f"got {', '.join(unknown)}."
        )
    try:
        return method(**settings)
    except (TypeError, AttributeError) as err:
        wrong = [name for name in settings if _is_wrong(method, settings, name)]
        what = "; ".join(_rule(method, name, settings[name]) for name in wrong) or str(err)
        raise ValueError(f"`{argument}` has a value of the wrong type: {what}.") from err


def _is_wrong(method: type[Any], settings: Mapping[str, Any], name: str) -> bool:
    """Whether it is this setting whose type is wrong: without it no type is."""
    try:
        method(**{key: value for key, value in settings.items() if key != name})
    except (TypeError, AttributeError):
        return False
    except ValueError:
        pass
    return True


def _rule(method: type[Any], name: str, value: Any) -> str:
    """What a setting takes, by its annotation, and what it got."""
    kind = next(str(field.type) for field in dataclasses.fields(method) if field.name == name)
    rule = "values by name" if kind.startswith("Mapping") else kind
    return f"`{name}` must be {rule}; got {value!r}"
