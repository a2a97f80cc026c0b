"""Who wrote a schedule: this library, and the versions that decide what training does.

Out: JSON types, alike in every process of one installation. No clock is read, so that a run that is
repeated leaves the same file.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from tikmix_hf import __version__

_LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy")


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    own = (("tikmix_hf", __version__), ("python", platform.python_version()))
    return (*own, *((name, metadata.version(name)) for name in _LIBRARIES))


def versions() -> dict[str, str]:
    """Versions by library."""
    return dict(_versions())


def of_run(replayed: Mapping[str, Any]) -> dict[str, Any]:
    """The provenance of a run's schedule; what is known of a schedule that it replays is kept."""
    return {**replayed, "written_by": f"tikmix_hf {__version__}", "versions": versions()}
