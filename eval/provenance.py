"""How a result is kept: rows, and what one needs to get them again.

In: a name, rows of numbers, settings. Out: `eval/results/NAME.json` and `NAME.md`, with the
command, versions and hardware, and the table on the screen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tikmix_hf.provenance import PACKAGES, provenance

__all__ = ["PACKAGES", "RESULTS", "provenance", "save_result"]

RESULTS = Path(__file__).parent / "results"


def save_result(
    name: str,
    *,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    notes: str = "",
    packages: Sequence[str] = PACKAGES,
) -> None:
    """Writes and prints a result.

    Args:
        name: file name without ending.
        title: heading of the table.
        rows: one mapping per line; all have the same keys.
        settings: what the script was told.
        notes: what a reader must know to read the table, and its verdict.
        packages: whose versions matter.
    """
    origin = provenance(packages)
    RESULTS.mkdir(exist_ok=True)
    record = {"title": title, **origin, "settings": dict(settings), "notes": notes}
    record["rows"] = [dict(row) for row in rows]
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    versions = ", ".join(f"{package} {number}" for package, number in origin["versions"].items())
    page = "\n".join(
        [
            f"# {title}",
            "",
            notes,
            "",
            *_table(rows),
            "",
            f"`{origin['command']}`, {origin['date']}; {origin['hardware']}; {versions}.",
            "",
        ]
    )
    (RESULTS / f"{name}.md").write_text(page, "utf-8")
    print(page)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = list(rows[0])
    lines = [" | ".join(keys), " | ".join("---" for _ in keys)]
    lines += [" | ".join("" if row[k] is None else str(row[k]) for k in keys) for row in rows]
    return [f"| {line} |" for line in lines]
