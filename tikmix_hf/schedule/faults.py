"""ScheduleError: the one error for all that a schedule or its file may not be.

In: a place such as `segments[3].mixture.web`, a rule, the value found there. Out: one sentence that
names them and the mend, of bounded length whatever the value.
"""

from __future__ import annotations

import re
import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = 4
_SHORT.maxlevel = 2


class ScheduleError(ValueError):
    """What a schedule or its file may not be; the message names the place, the value, the mend."""


def shown(value: Any) -> str:
    """A value in at most a few dozen printable characters.

    Example:
        >>> shown("a" * 1000)
        "'aaaaaaaaaaaaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaaaaaaaaaaaaaa'"
    """
    text = _SHORT.repr(value)
    text = text if len(text) <= 160 else f"{text[:157]}..."
    return text if text.isprintable() else ascii(text)[1:-1]


def inside(place: str, key: str | int) -> str:
    """The place of an entry of what is at `place`; "" is the whole.

    Example:
        >>> inside(inside("segments", 3), "mixture"), inside("mixture", "a b")
        ('segments[3].mixture', "mixture['a b']")
    """
    if isinstance(key, int):
        return f"{place}[{key}]"
    if not re.fullmatch(r"[\w-]{1,64}", key, re.ASCII):
        return f"{place}[{shown(key)}]"
    return f"{place}.{key}" if place else key


def fault(place: str, rule: str, value: Any, mend: str, *, origin: str = "") -> ScheduleError:
    """The error of a value that breaks a rule.

    Args:
        place: of the value; "" is the whole.
        rule: what it must be, as in "must be ...".
        value: what it is.
        mend: a sentence.
        origin: the file, where there is one.
    """
    where = f"{origin}: " if origin else ""
    return ScheduleError(
        f"{where}`{place or 'schedule'}` must be {rule}; got {shown(value)}. {mend}"
    )
