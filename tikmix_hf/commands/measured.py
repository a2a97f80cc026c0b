"""What was measured: influence from a file that this library or somebody else wrote.

In: a folder of `tikmix influence`, a run's folder or its influence.jsonl (of which the last update
counts), an `InfluenceMatrix`'s file, or a table of one's own: CSV, TSV or JSON with a row for each
target and a column for each domain. Out: a `Measured`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.commands.words import read_json
from tikmix_hf.files import read_records, read_text
from tikmix_hf.signals.matrix import FORMAT, InfluenceMatrix

# Shape letters: J targets, K domains.

DRY_RUN, MIXTURES, RECORDS = "influence.json", "mixtures.json", "influence.jsonl"
_FORMS = (
    '{"arc": {"web": 1.5, "code": 0.2}}, or {"targets": [...], "domains": [...], "values": '
    "[[...]]} with a row for each target"
)


class Measured(NamedTuple):
    """Influence of each domain on each target."""

    targets: tuple[str, ...]
    domains: tuple[str, ...]
    values: NDArray[np.float64]
    """(J, K)."""
    matrix: InfluenceMatrix | None
    """With errors and rounds; None for a table of one's own."""
    mixture: Mapping[str, float] | None
    """Shares under which it was measured; None where nobody says."""
    origin: str
    """The file, and of several updates which."""


def read(path: str | Path) -> Measured:
    """Reads influence.

    Raises:
        ValueError: the file holds none; says what is expected.
        FileNotFoundError: it is not there.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if path.suffix == ".jsonl":
        return _of_records(path)
    if path.suffix in (".csv", ".tsv"):
        return _of_rows(path)
    content = read_json("MATRIX", read_text(path), origin=f"{path}: ")
    if content.get("format") == FORMAT:
        return _of_matrix(InfluenceMatrix.load(path), None, str(path))
    return _of_json(content, str(path))


def _of_folder(folder: Path) -> Measured:
    if (folder / DRY_RUN).is_file():
        mixture = None
        if (folder / MIXTURES).is_file():
            mixture = read_json(MIXTURES, read_text(folder / MIXTURES), origin=f"{folder}: ").get(
                "mixture"
            )
        return _of_matrix(InfluenceMatrix.load(folder / DRY_RUN), mixture, str(folder / DRY_RUN))
    if (folder / RECORDS).is_file():
        return _of_records(folder / RECORDS)
    raise ValueError(
        f"`MATRIX` must hold influence; the folder {folder} has neither {DRY_RUN} (of `tikmix "
        f"influence`) nor {RECORDS} (of a run)."
    )


def _of_records(path: Path) -> Measured:
    try:
        measured = [record for record in read_records(path) if record["influence"] is not None]
        last = measured[-1]
        matrix = InfluenceMatrix.from_dict(last["influence"])
        return _of_matrix(matrix, last["mixture"], f"{path}, step {last['step']}")
    except IndexError as err:
        raise ValueError(f"`MATRIX` must hold influence; no update of {path} has any.") from err
    except (KeyError, TypeError) as err:
        raise ValueError(
            f"`MATRIX` must be a run's {RECORDS}; {path} is damaged, or none: {err}."
        ) from err


def _of_matrix(
    matrix: InfluenceMatrix, mixture: Mapping[str, float] | None, origin: str
) -> Measured:
    return Measured(matrix.targets, matrix.domains, matrix.values, matrix, mixture, origin)


def _of_rows(path: Path) -> Measured:
    """A heading of domains, then lines of a target and its numbers."""
    text = io.StringIO(read_text(path, encoding="utf-8-sig"), newline="")
    delimiter = "\t" if path.suffix == ".tsv" else ","
    try:
        lines = [line for line in csv.reader(text, delimiter=delimiter) if any(line)]
    except csv.Error as err:
        raise ValueError(f"{path} must be a table of text; it is none ({err}).") from err
    if len(lines) < 2 or len(lines[0]) < 2:
        raise ValueError(
            f"{path} must have a heading such as `target,web,code` and a line such as "
            f"`arc,1.5,0.2` for each target; got {len(lines)} lines."
        )
    domains = [cell.strip() for cell in lines[0][1:]]
    rows = []
    for number, (target, *cells) in enumerate(lines[1:], 2):
        if len(cells) != len(domains):
            raise ValueError(
                f"{path}, row {number} must have a number for each of {len(domains)} domains; got "
                f"{len(cells)}."
            )
        rows.append((target.strip(), cells))
    return _table([target for target, _ in rows], domains, [row for _, row in rows], str(path))


def _of_json(content: Mapping[str, Any], origin: str) -> Measured:
    if {"targets", "domains", "values"} <= set(content):
        targets, domains, rows = content["targets"], content["domains"], content["values"]
        if not all(isinstance(part, list) for part in (targets, domains, rows)):
            raise ValueError(f"{origin} must hold lists of names and numbers: {_FORMS}.")
        return _table(targets, domains, rows, origin)
    if not content or not all(isinstance(row, Mapping) for row in content.values()):
        raise ValueError(f"{origin} must hold influence by target and domain: {_FORMS}.")
    domains = list(next(iter(content.values())))
    for target, row in content.items():
        if set(row) != set(domains):
            raise ValueError(
                f"{origin} must have the same domains for every target; {target!r} has "
                f"{', '.join(row) or 'none'}, and the first one {', '.join(domains) or 'none'}."
            )
    rows = [[row[name] for name in domains] for row in content.values()]
    return _table(list(content), domains, rows, origin)


def _table(
    targets: Sequence[Any], domains: Sequence[Any], rows: Sequence[Sequence[Any]], origin: str
) -> Measured:
    for what, names in (("targets", targets), ("domains", domains)):
        texts = [name for name in names if isinstance(name, str) and name]
        if not names or len(set(texts)) < len(names):
            raise ValueError(f"{origin} must have distinct names of {what}; got {list(names)}.")
    if len(rows) != len(targets):
        raise ValueError(
            f"{origin} must have a row for each of {len(targets)} targets; got {len(rows)}."
        )
    values = []
    for target, row in zip(targets, rows, strict=True):
        if not isinstance(row, (list, tuple)) or len(row) != len(domains):
            raise ValueError(
                f"{origin} must have a number for each of {len(domains)} domains in the row of "
                f"{target!r}; got {row!r}."
            )
        values.append([_number(cell, target, origin) for cell in row])
    return Measured(tuple(targets), tuple(domains), np.array(values), None, None, origin)


def _number(cell: Any, target: str, origin: str) -> float:
    try:
        if isinstance(cell, bool):
            raise TypeError
        number = float(cell)
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise ValueError(
            f"{origin} must hold finite numbers; got {cell!r} in the row of {target!r}."
        )
    return number
