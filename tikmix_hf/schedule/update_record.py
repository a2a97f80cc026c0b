"""What a schedule's file says of an update: known keys are checked, all else is kept.

In: the `update` of a segment, as it was written. Out: the same; or one sentence that names the key.
"""

from __future__ import annotations

from typing import Any

from tikmix_hf.schedule.entry import Entry
from tikmix_hf.schedule.parts import finite_number


def checked(entry: Entry) -> dict[str, Any]:
    """An update's record: what is known of its keys is checked, all else is kept."""
    entry.count("step")
    if "mixer" in entry.values and not isinstance(entry.values["mixer"], (str, dict)):
        raise entry.fault("mixer", "text or an object, {...}")
    if "notes" in entry.values and not all(isinstance(n, str) for n in entry.entries("notes")):
        raise entry.fault("notes", "a list of texts")
    for key in ("cost", "versions"):
        entry.entry(key)
    if "influence" in entry.values:
        _check_influence(entry.entry("influence"))
    return dict(entry.values)


def _check_influence(entry: Entry) -> None:
    """Refuses a matrix that does not fit its names."""
    targets, domains = entry.entries("targets", least=1), entry.entries("domains", least=1)
    for key, names in (("targets", targets), ("domains", domains)):
        if not all(isinstance(n, str) for n in names) or len(set(names)) < len(names):
            raise entry.fault(key, "a list of distinct names")
    for key in ("values", "stderr"):
        if key == "stderr" and key not in entry.values:
            continue
        rows = entry.entries(key)
        is_matrix = len(rows) == len(targets) and all(
            isinstance(row, list) and len(row) == len(domains) for row in rows
        )
        unknown_too = key == "stderr"
        if not is_matrix or not all(
            finite_number(value) or (value is None and unknown_too) for row in rows for value in row
        ):
            kind = "numbers or null" if unknown_too else "numbers"
            rule = f"{len(targets)} lists, one a target, of {len(domains)} {kind}, one a domain"
            raise entry.fault(key, rule)
