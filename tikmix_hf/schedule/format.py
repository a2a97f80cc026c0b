"""The format of a schedule's file, version 1.0, and the way into it and out of it.

In: plain JSON types of this version, of an earlier one, or of a later 1.x. Out: the parts of a
schedule, all of them checked; and the same types again. `schema-1.0.json` says the same in JSON
Schema, for readers in other languages.

A later 1.x may add keys, which are left out on reading; a later 2.x is refused. What `update` and
`provenance` say beyond the keys that are known here is kept as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import as_mixture
from tikmix_hf.schedule import update_record
from tikmix_hf.schedule.entry import Entry
from tikmix_hf.schedule.faults import ScheduleError, fault, inside, shown
from tikmix_hf.schedule.parts import (
    MAX_NAME,
    MAX_SEED,
    MAX_TEXT,
    DomainCard,
    Run,
    Segment,
    check_name,
    keep_or_normalise,
)
from tikmix_hf.schedule.reading import MAX_VALUES

# Shape letters: J targets, K domains, S segments.

FORMAT = "tikmix_hf.mixture_schedule"
VERSION = "1.0"
MAX_DOMAINS, MAX_SHARES = 100_000, 10_000_000
# `from_fraction` is for people; it may be rounded to this.
_FRACTION_TOLERANCE = 1e-9
_VERSION = r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})"
_KEYS = ("format", "version", "domains", "run", "segments", "provenance")
_DOMAIN_KEYS = ("name", "description", "num_tokens", "num_rows", "fingerprint")
_RUN_KEYS = ("num_samples", "num_tokens", "samples_per_step", "seed", "model", "num_parameters")
_SEGMENT_KEYS = ("from_sample", "from_fraction", "num_tokens", "mixture", "update")


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the format."""
    file = resources.files("tikmix_hf.schedule") / f"schema-{VERSION}.json"
    return json.loads(file.read_text("utf-8"))


def to_record(
    domains: tuple[str, ...],
    segments: tuple[Segment, ...],
    run: Run,
    cards: Mapping[str, DomainCard],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Plain JSON types of a schedule's parts; what is not known, and shares of 0, are left out.

    Raises:
        ScheduleError: more shares than a file may have.
    """
    num_shares = sum(int(np.count_nonzero(segment.mixture)) for segment in segments)
    if num_shares > MAX_VALUES:
        raise ScheduleError(
            f"A schedule's file has at most {MAX_VALUES:,} values; {len(segments):,} segments have "
            f"{num_shares:,} shares. Update less often, or merge domains."
        )
    return {
        "format": FORMAT,
        "version": VERSION,
        "domains": [
            {"name": name, **_known(cards.get(name, DomainCard()), _DOMAIN_KEYS[1:])}
            for name in domains
        ],
        "run": _known(run, _RUN_KEYS),
        "segments": [_segment_record(segment, domains, run) for segment in segments],
        "provenance": dict(provenance),
    }


def from_record(record: Any, *, origin: str) -> dict[str, Any]:
    """The parts of a schedule, by the names of its fields.

    Raises:
        ScheduleError: not a schedule, of a newer version, or damaged; names the place.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ScheduleError(f"{origin} is not a mixture schedule (no format {FORMAT!r} in it).")
    version = _version(record.get("version"), origin)
    whole = Entry(record, "", origin)
    if version[0] == 0:
        whole.refuse_unknown(("format", "version", "domains", "segments"))
        cards = dict.fromkeys(_names(whole, whole.entries("domains", least=1)), DomainCard())
        keys = ("from_sample", "mixture", "update")
    else:
        is_later = version > (1, 0)
        if not is_later:
            whole.refuse_unknown(_KEYS)
        cards = _cards(whole, is_later)
        keys = () if is_later else _SEGMENT_KEYS
    run = whole.entry("run")
    if keys:
        run.refuse_unknown(_RUN_KEYS)
    of_run = _run(run)
    domains = tuple(cards)
    return {
        "domains": domains,
        "segments": _segments(whole, domains, of_run, keys),
        "run": of_run,
        "cards": {name: card for name, card in cards.items() if card != DomainCard()},
        "provenance": dict(whole.entry("provenance").values),
    }


def _version(version: Any, origin: str) -> tuple[int, int]:
    """Major and minor version.

    Raises:
        ScheduleError: it is none, or newer than this release reads.
    """
    if version == 0 and isinstance(version, int) and not isinstance(version, bool):
        return 0, 0
    match = isinstance(version, str) and re.fullmatch(_VERSION, version)
    newer = isinstance(version, int) and not isinstance(version, bool) and version > 0
    if not (match or newer):
        raise fault("version", f"text such as {VERSION!r}", version, "Mend it.", origin=origin)
    if newer or (match and int(match[1]) > 1):
        raise ScheduleError(
            f"{origin} has schedule version {shown(version)}; this release reads versions up to "
            f"1.x (it writes {VERSION}). Update it: pip install --upgrade tikmix-hf."
        )
    assert match
    if int(match[1]) == 0:
        raise fault("version", f"0 or {VERSION!r}", version, "Mend it.", origin=origin)
    return int(match[1]), int(match[2])


def _names(whole: Entry, names: list[Any]) -> list[str]:
    """Checks names; they are distinct."""
    if len(names) > MAX_DOMAINS:
        raise whole.fault("domains", f"a list of at most {MAX_DOMAINS:,}")
    seen: set[str] = set()
    for number, name in enumerate(names):
        place = inside("domains", number)
        try:
            check_name(place, name)
        except ScheduleError as err:
            raise ScheduleError(f"{whole.origin}: {err}") from None
        if name in seen:
            raise fault(place, "a name of its own", name, "Rename one.", origin=whole.origin)
        seen.add(name)
    return names


def _cards(whole: Entry, is_later: bool) -> dict[str, DomainCard]:
    entries = []
    for number, value in enumerate(whole.entries("domains", least=1)):
        entry = Entry.of(value, inside("domains", number), whole.origin)
        if not is_later:
            entry.refuse_unknown(_DOMAIN_KEYS)
        if entry.text("name", MAX_NAME) is None:
            raise entry.fault("name", "text")
        entries.append(entry)
    names = _names(whole, [entry.values["name"] for entry in entries])
    return {
        name: DomainCard(
            description=entry.text("description", MAX_TEXT) or "",
            num_tokens=entry.count("num_tokens"),
            num_rows=entry.count("num_rows"),
            fingerprint=entry.text("fingerprint", MAX_NAME),
        )
        for name, entry in zip(names, entries, strict=True)
    }


def _run(entry: Entry) -> Run:
    return Run(
        num_samples=entry.count("num_samples", least=1),
        num_tokens=entry.count("num_tokens"),
        samples_per_step=entry.count("samples_per_step", least=1),
        seed=entry.count("seed", least=-MAX_SEED, most=MAX_SEED),
        model=entry.text("model", MAX_TEXT),
        num_parameters=entry.count("num_parameters"),
    )


def _segments(
    whole: Entry, domains: tuple[str, ...], run: Run, keys: tuple[str, ...]
) -> tuple[Segment, ...]:
    values = whole.entries("segments", least=1)
    # A mixture may name few domains, but takes memory for all.
    if len(values) * len(domains) > MAX_SHARES:
        rule = f"a list of at most {MAX_SHARES // len(domains):,}, with {len(domains):,} domains"
        raise whole.fault("segments", rule, "Merge segments, or domains.")
    segments: list[Segment] = []
    for number, value in enumerate(values):
        entry = Entry.of(value, inside("segments", number), whole.origin)
        if keys:
            entry.refuse_unknown(keys)
        start = entry.count("from_sample")
        if start is None:
            raise entry.fault("from_sample", "a whole number")
        if not segments and start != 0:
            raise entry.fault("from_sample", "0, where segments start at sample 0", "Make it 0.")
        if segments and start <= segments[-1].from_sample:
            rule = f"after {segments[-1].from_sample}, for segments ascend strictly"
            raise entry.fault("from_sample", rule, "Sort the segments.")
        _check_fraction(entry, start, run)
        segments.append(
            Segment(
                from_sample=start,
                mixture=_mixture(entry, domains),
                update=update_record.checked(entry.entry("update")),
                num_tokens=entry.count("num_tokens"),
            )
        )
    return tuple(segments)


def _check_fraction(entry: Entry, start: int, run: Run) -> None:
    fraction = entry.number("from_fraction")
    if fraction is not None and fraction < 0:
        raise entry.fault("from_fraction", "0 or more")
    if fraction is None or run.num_samples is None:
        return
    expected = start / run.num_samples
    if abs(fraction - expected) > _FRACTION_TOLERANCE * max(1.0, expected):
        rule = f"from_sample / run.num_samples = {expected!r}"
        raise entry.fault("from_fraction", rule, "Leave it out, or mend the one that is wrong.")


def _mixture(entry: Entry, domains: tuple[str, ...]) -> NDArray[np.float64]:
    """(K,) shares; keeps the bits of those that need no rounding repair, as resuming asks for."""
    shares = entry.entry("mixture")
    if "mixture" not in entry.values:
        raise entry.fault("mixture", "shares by domain, {...}")
    for name in shares.values:
        shares.number(name)
    shares.refuse_unknown(domains, "a domain of the schedule")
    written_K = np.array([shares.values.get(name, 0.0) for name in domains], dtype=np.float64)
    kept_K = keep_or_normalise(written_K)
    if kept_K is not None:
        return kept_K
    try:  # the error names the share
        return as_mixture(written_K, domains, argument=shares.place)
    except ValueError as err:
        raise ScheduleError(f"{entry.origin}: {err}") from None


def _segment_record(segment: Segment, domains: tuple[str, ...], run: Run) -> dict[str, Any]:
    record: dict[str, Any] = {"from_sample": segment.from_sample}
    if run.num_samples is not None:
        record["from_fraction"] = segment.from_sample / run.num_samples
    if segment.num_tokens is not None:
        record["num_tokens"] = segment.num_tokens
    # Domains that get nothing are left out: one segment of very many domains is one line.
    shares = zip(domains, segment.mixture.tolist(), strict=True)
    record["mixture"] = {name: share for name, share in shares if share}
    record["update"] = dict(segment.update)
    return record


def _known(part: Run | DomainCard, keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key in keys if (value := getattr(part, key)) not in (None, "")}
