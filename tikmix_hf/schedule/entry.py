"""Entry: an object of a schedule's file, read field by field, each by its kind.

In: a dict of plain JSON types, and its place in the file. Out: checked values, or an error that
names the place, what is there and the mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tikmix_hf.schedule.faults import ScheduleError, fault, inside
from tikmix_hf.schedule.parts import MAX_INTEGER, count, finite_number, text_fault


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of the file."""

    values: Mapping[str, Any]
    """Plain JSON types."""
    place: str
    """Such as `segments[3]`; "" is the whole."""
    origin: str
    """The file."""

    @classmethod
    def of(cls, value: Any, place: str, origin: str) -> Entry:
        """The object at a place.

        Raises:
            ScheduleError: it is none.
        """
        if not isinstance(value, dict):
            raise fault(place, "an object, {...}", value, "Mend the file.", origin=origin)
        return cls(value, place, origin)

    def fault(self, key: str, rule: str, mend: str = "Mend the value.") -> ScheduleError:
        """The error of the value of a key, which may be missing."""
        place = inside(self.place, key)
        if key not in self.values:
            return ScheduleError(f"{self.origin}: `{place}` must be {rule}; it is missing. Add it.")
        return fault(place, rule, self.values[key], mend, origin=self.origin)

    def refuse_unknown(self, known: Sequence[str], rule: str = "a key of this format") -> None:
        """Refuses keys other than the known ones.

        Raises:
            ScheduleError: suggests the nearest.
        """
        for key in sorted(self.values.keys() - set(known))[:1]:
            # As many as can be compared at once.
            near = difflib.get_close_matches(key[:64], known[:1000], n=1)
            others = f" and {len(known) - 8} more" if len(known) > 8 else ""
            listed = ", ".join(name[:64] for name in known[:8])
            mend = f"Did you mean {near[0]!r}?" if near else f"Known are {listed}{others}."
            raise fault(inside(self.place, key), rule, key, mend, origin=self.origin)

    def entries(self, key: str, *, least: int = 0) -> list[Any]:
        """The list of a key, with at least so many entries."""
        value = self.values.get(key)
        if not isinstance(value, list) or len(value) < least:
            raise self.fault(key, "a list" + (f" of at least {least}" if least else ""))
        return value

    def entry(self, key: str) -> Entry:
        """The object of a key; a missing one is empty."""
        return Entry.of(self.values.get(key, {}), inside(self.place, key), self.origin)

    def count(self, key: str, *, least: int = 0, most: int = MAX_INTEGER) -> int | None:
        """The whole number of a key; None where it is missing."""
        if key not in self.values:
            return None
        try:
            return count(inside(self.place, key), self.values[key], least=least, most=most)
        except ScheduleError as err:
            raise ScheduleError(f"{self.origin}: {err}") from None

    def number(self, key: str) -> float | None:
        """The finite number of a key; None where it is missing."""
        if key not in self.values:
            return None
        if not finite_number(self.values[key]):
            raise self.fault(key, "a finite number")
        return self.values[key]

    def text(self, key: str, most: int) -> str | None:
        """The text of a key; None where it is missing."""
        if key not in self.values:
            return None
        if rule := text_fault(self.values[key], most):
            raise self.fault(key, rule)
        return self.values[key]
