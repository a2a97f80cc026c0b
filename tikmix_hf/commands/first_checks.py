"""What is checked before a command's own module, which may take seconds to import, is imported.

In: parsed options. Out: nothing, or one line that names the option, its value and the mend. Only
words and the names of files are looked at here.
"""

from __future__ import annotations

import argparse
import math
import os
import pkgutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import tikmix_hf

AUTO: Literal["auto"] = "auto"


def influence(options: argparse.Namespace) -> None:
    """Checks the options of `tikmix influence`.

    Raises:
        ValueError: weights that are not one of each model, a recipe that is not there, an output
            that cannot be written.
    """
    if options.weights is not None:
        check_weights(options.weights, len(options.model))
    if not Path(options.config).is_file():
        raise ValueError(f"`--config` must be a file; {options.config} is none.")
    check_writable("--output", Path(options.output))


def scoring(options: argparse.Namespace) -> None:
    """Checks the options of `tikmix eval`.

    Raises:
        ValueError: a wrong size of batches, an output that cannot be written.
    """
    batch_size(options.batch_size)
    check_writable("--output", options.output)
    if options.samples is not None:
        if options.samples.is_dir():
            raise ValueError(f"`--samples` must be a file; {options.samples} is a folder.")
        check_writable("--samples", options.samples.parent)


def check_weights(weights: Sequence[float], num_models: int) -> None:
    """Refuses weights that are not one of each model, finite, not negative, not all zero.

    Raises:
        ValueError: says which.
    """
    if len(weights) != num_models:
        raise ValueError(
            f"`--weights` must be one number for each of {num_models} models; got {len(weights)}."
        )
    fine = all(0 <= weight < math.inf for weight in weights)
    if not (fine and any(weights)):
        shown = " ".join(f"{weight:g}" for weight in weights)
        raise ValueError(
            f"`--weights` must be finite, not negative and not all zero; got {shown}. Only their "
            "proportions count."
        )


def check_writable(option: str, folder: Path) -> None:
    """Refuses a folder that cannot be made or written, and makes nothing; rank 0 alone writes.

    Raises:
        ValueError: names what is in the way.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    near = folder
    try:
        while not near.exists():
            near = near.parent
        if not near.is_dir():
            raise ValueError(f"`{option}` must be in a folder; {near} is a file.")
        # Permissions do not tell of file systems that take no files.
        with tempfile.TemporaryFile(dir=near):
            pass
    except OSError as err:
        raise ValueError(
            f"`{option}` must be where files can be written; {near} is not ({err.strerror})."
        ) from err


def batch_size(word: str) -> int | Literal["auto"]:
    """Reads the size of a batch.

    Raises:
        ValueError: it is neither auto nor a whole number from 1.
    """
    if word == AUTO:
        return AUTO
    if not word.isdecimal() or int(word) < 1:
        raise ValueError(f"`--batch-size` must be auto or 1 or more; got {word!r}.")
    return int(word)


def preconditioner_names() -> tuple[str, ...]:
    """What `preconditioners.available` says, by the names of the files alone."""
    folder = Path(tikmix_hf.__file__).parent / "signals" / "preconditioners"
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    return tuple(sorted(name for name in names if name != "base" and not name.startswith("_")))
