"""Online mixers: signals of training in, the next mixture out.

One file per method, and the file's name is the method's name: `mixers.load("tikmix_d")` imports
`mixers/tikmix_d.py`, which defines exactly one `Mixer`. Adding a method is adding a file.
`base.py`, `signals.py` and files that begin with an underscore are no methods.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from tikmix_hf.mixers.base import Mixer
from tikmix_hf.mixers.signals import MEASURED, MixerError, Signals

_NO_METHODS = ("base", "signals")

__all__ = ["MEASURED", "Mixer", "MixerError", "Signals", "available", "load"]


def available() -> tuple[str, ...]:
    """Names of the methods in this folder: the control first, the others by alphabet."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    names = (n for n in found if n not in _NO_METHODS and not n.startswith("_"))
    return tuple(sorted(names, key=lambda name: (name != "static", name)))


def load(name: str) -> type[Mixer[Any]]:
    """The mixer class of one method.

    Args:
        name: One of `available()`.

    Raises:
        ValueError: There is no such method.

    Example:
        >>> load("static").__name__
        'Static'
    """
    if name not in available():
        near = difflib.get_close_matches(name, available(), n=1)
        mend = f"Did you mean {near[0]!r}?" if near else f"Choose from: {', '.join(available())}."
        raise ValueError(f"`mixer` must be an available mixer; got {name!r}. {mend}")
    module = _module(name)
    (mixer,) = (
        member
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Mixer) and member.__module__ == module.__name__
    )
    return mixer


def __getattr__(name: str) -> ModuleType:
    """`mixers.tikmix_d` without an import of its own: a method is loaded when it is named."""
    if name in available():
        return _module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
