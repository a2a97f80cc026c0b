"""From the bytes of a file that anybody may have written to plain JSON types.

In: a path, a stream or bytes. Out: dicts, lists, texts, numbers, bounded in size, in depth and in
number before anything is built of them, and free of what JSON readers differ about: NaN, infinity,
keys that occur twice, integers that are not exact everywhere, halves of surrogate pairs. Whatever
is refused is named by its place. Nothing here is looked up, imported or executed.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tikmix_hf.schedule.faults import ScheduleError, fault, inside, shown

MAX_BYTES = 32 * 2**20
"""Size of a file, unless the caller allows more; schedules of a thousand updates are far below."""
MAX_DEPTH = 32
"""Lists and objects within each other."""
# Each takes at most some 200 bytes of memory, so all of them stay below 200 MiB.
MAX_VALUES = 1_000_000
"""Values of one file: numbers, texts, lists and objects."""
_MAX_DIGITS = 21  # of an integer: those of -2^64
_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class _Refused:
    """Stands where the file has something that is no value, until its place is known."""

    rule: str
    found: Any


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a file, once its size is known to be small enough.

    Raises:
        ScheduleError: it is too large, or no regular file.
        OSError: it is not there, or may not be read.
    """
    about = os.stat(path)
    if not stat.S_ISREG(about.st_mode):
        raise ScheduleError(f"{os.fspath(path)} must be a file, and is none. Name a schedule's.")
    if about.st_size > max_bytes:
        raise _too_large(os.fspath(path), f"{about.st_size:,}", max_bytes)
    with Path(path).open("rb") as stream:
        return read_stream(stream, origin=os.fspath(path), max_bytes=max_bytes)


def read_stream(stream: IO[bytes], *, origin: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The rest of a stream of bytes, of which never more than `max_bytes + 1` are read.

    Raises:
        ScheduleError: it is longer.
    """
    pieces: list[bytes] = []
    left = max_bytes + 1
    while left and (piece := stream.read(left)):  # pipes and sockets give what they have
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise _too_large(origin, f"more than {max_bytes:,}", max_bytes)
    return b"".join(pieces)


def parse(content: bytes, *, origin: str) -> Any:
    """Plain JSON types of a file's content.

    Raises:
        ScheduleError: it is no JSON, too deep or too much, or has what is no value; names the
            place.
    """
    _check_extent(content, origin)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise ScheduleError(
            f"{origin} is not JSON: byte {err.start:,} is no UTF-8 text. Download it again, or "
            "save it as UTF-8."
        ) from err
    try:
        record = json.loads(
            text,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=lambda word: _Refused("a finite number", word),
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as err:
        raise ScheduleError(
            f"{origin} is not JSON: {err.msg}, at line {err.lineno}, column {err.colno}. Download "
            "it again, or mend that line."
        ) from err
    check_values(record, origin=origin)
    return record


def check_values(record: Any, *, origin: str) -> None:
    """Refuses what is no value of a schedule's file, anywhere in plain JSON types.

    Raises:
        ScheduleError: names the place, the value and the mend.
    """
    for place, found in _faults(record, ()):
        raise fault(
            functools.reduce(inside, place, ""),
            found.rule,
            found.found,
            "Mend or drop it.",
            origin=origin,
        )


def _check_extent(content: bytes, origin: str) -> None:
    """Refuses what would take much memory or a deep stack to parse, by its brackets and commas."""
    # Without escaped quotes every string is what lies between two quotes.
    bare = content.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in content else content
    outside = re.sub(rb'"[^"]*"?', b"", bare)
    num_values = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
    if num_values > MAX_VALUES:
        raise ScheduleError(
            f"{origin} must hold at most {MAX_VALUES:,} values; got {num_values:,} or more. It is "
            "no schedule of this library, which would be far shorter."
        )
    depth = 0
    for bracket in outside.translate(None, _BUT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ScheduleError(
                f"{origin} must have at most {MAX_DEPTH} lists and objects within each other; got "
                "more. It is no schedule of this library, which would be flatter."
            )


def _integer(digits: str) -> int | _Refused:
    if len(digits) > _MAX_DIGITS:
        return _Refused(f"an integer of at most {_MAX_DIGITS} characters", digits)
    return int(digits)


def _float(digits: str) -> float | _Refused:
    number = float(digits)
    return number if abs(number) != float("inf") else _Refused("a finite number", digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                entries[key] = _Refused("there once", f"{shown(key)} twice")
            seen.add(key)
    return entries


def _faults(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], _Refused]]:
    """Places of what is no value, in order; at most as deep as a file is allowed to be."""
    if isinstance(value, _Refused):
        yield place, value
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, _Refused("a finite number", value)
    elif isinstance(value, (dict, list, tuple)) and len(place) >= MAX_DEPTH:
        yield place, _Refused(f"within at most {MAX_DEPTH} lists and objects", value)
    elif isinstance(value, str) and not _is_text(value):
        yield place, _Refused("text without halves of surrogate pairs", value)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                yield place, _Refused("an object whose keys are text", key)
            elif not _is_text(key):
                yield place, _Refused("named without halves of surrogate pairs", key)
            elif _can_fail(entry):
                yield from _faults(entry, (*place, key))
    elif isinstance(value, (list, tuple)):
        for number, entry in enumerate(value):
            if _can_fail(entry):
                yield from _faults(entry, (*place, number))


def _can_fail(value: Any) -> bool:
    """Whether `_faults` has to look at a value; most are numbers, which pass quickly."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, (str, dict, list, tuple, _Refused))


def _is_text(text: str) -> bool:
    return text.isascii() or re.search("[\ud800-\udfff]", text) is None


def _too_large(origin: str, size: str, max_bytes: int) -> ScheduleError:
    return ScheduleError(
        f"{origin} must have at most {max_bytes:,} bytes; got {size}. If you trust it, read it "
        "with a larger `max_bytes`."
    )
