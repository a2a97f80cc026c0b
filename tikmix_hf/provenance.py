"""Provenance of a result: what one needs to get it again.

Out: plain JSON types: the command line, versions, hardware and day of this process.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "datasets", "numpy", "scipy")


def provenance(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Returns the command line, versions, hardware and day of this process."""
    return {
        "command": _command(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
        "date": date.today().isoformat(),
    }


def _command() -> str:
    """The command line, without where on this machine its program lies."""
    program, *words = sys.argv
    path = Path(program)
    if path.suffix != ".py":
        return shlex.join([path.name, *words])
    if path.name == "cli.py":
        return shlex.join(["tikmix", *words])
    return shlex.join(["python", f"eval/{path.name}", *words])


def _processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"
