"""What can be made of a schedule: its tail another, its names others, its run another length.

In: schedules. Out: new schedules, of which `provenance["operations"]` says what was done. Starts
are computed in whole numbers, so that a boundary is the nearest sample however long the run is.
Records of updates are left as they are: they tell what happened in the run they were made in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture import normalise, refuse_unknown
from tikmix_hf.schedule.faults import ScheduleError, fault, inside
from tikmix_hf.schedule.parts import (
    MAX_TEXT,
    DomainCard,
    Run,
    Segment,
    check_name,
    count,
    finite_number,
)

if TYPE_CHECKING:
    from tikmix_hf.schedule.schedule import MixtureSchedule

# Shape letters: K domains, S segments, M merged domains.


def sample_at(schedule: MixtureSchedule, fraction: float) -> int:
    """The sample after a fraction of the run; its last sample for 1."""
    if not finite_number(fraction) or not 0 <= fraction <= 1:
        raise fault("fraction", "a number between 0 and 1", fraction, "Divide by the run's length.")
    length = known_length(schedule, "mixture_at_fraction")
    # A fraction such as 3 / 10 is no binary number; its sample is the third and not the one before.
    return min(math.floor(fraction * length * (1 + 2**-50)), length - 1)


def lengths(schedule: MixtureSchedule, what: str) -> list[int]:
    """(S,) samples of the run in each segment.

    Raises:
        ScheduleError: the run's length is not known.
    """
    end = known_length(schedule, what)
    starts = [min(segment.from_sample, end) for segment in schedule.segments]
    return [stop - start for start, stop in zip(starts, [*starts[1:], end], strict=True)]


def average(schedule: MixtureSchedule) -> MixtureSchedule:
    """The mean of the mixtures from sample 0 on; see `MixtureSchedule.average`."""
    if len(schedule.segments) == 1:
        return schedule
    tokens = [segment.num_tokens for segment in schedule.segments if segment.num_tokens is not None]
    by, total = "tokens", schedule.run.num_tokens
    if len(tokens) < len(schedule.segments):
        tokens, by = lengths(schedule, "average"), "samples"
    elif total is None:
        total = sum(tokens)
    weights_S = np.array(tokens, dtype=np.float64)
    if not weights_S.any():
        raise ScheduleError(
            "`average` needs segments that have tokens; all have 0. Mend `num_tokens`."
        )
    mixtures_SK = np.stack([segment.mixture for segment in schedule.segments])
    mean_K = normalise(weights_S @ mixtures_SK)
    segment = Segment(from_sample=0, mixture=mean_K, num_tokens=total)
    return noted(schedule, (segment,), {"average": {"by": by, "num_segments": len(tokens)}})


def rename(schedule: MixtureSchedule, names: Mapping[str, str]) -> MixtureSchedule:
    """The same with other names; see `MixtureSchedule.rename`."""
    try:
        refuse_unknown(names, schedule.domains, argument="names")
    except ValueError as err:
        raise ScheduleError(str(err)) from None
    for old, new in names.items():
        check_name(inside("names", old), new)
    renamed = [names.get(name, name) for name in schedule.domains]
    for old, new in zip(schedule.domains, renamed, strict=True):
        if old not in names and renamed.count(new) > 1:
            raise ScheduleError(
                f"`names` must not give a name that a domain has already; got {new!r}. To merge "
                f"them, name that one too: {{..., {old!r}: {new!r}}}."
            )
    domains = tuple(dict.fromkeys(renamed))
    merges_KM = np.array([[new == name for name in domains] for new in renamed], dtype=np.float64)
    segments = tuple(replace(s, mixture=s.mixture @ merges_KM) for s in schedule.segments)
    cards = {name: card for name in domains if (card := _merged_card(schedule, renamed, name))}
    return noted(schedule, segments, {"rename": dict(names)}, domains=domains, cards=cards)


def merge(
    first: MixtureSchedule, second: MixtureSchedule, *, from_sample: int | None
) -> MixtureSchedule:
    """One schedule after another; see `MixtureSchedule.merge`."""
    if from_sample is None:
        from_sample = known_length(first, "merge")
    from_sample = count("from_sample", from_sample)
    _check_same_text(first, second)
    domains = tuple(dict.fromkeys((*first.domains, *second.domains)))
    before = [s for s in first.segments if s.from_sample < from_sample]
    after = [replace(s, from_sample=s.from_sample + from_sample) for s in second.segments]
    if before and before[-1].num_tokens is not None:
        before[-1] = _cut_short(before[-1], first, from_sample)
    segments = tuple(
        replace(segment, mixture=_spread(segment.mixture, own.domains, domains))
        for own, parts in ((first, before), (second, after))
        for segment in parts
    )
    length = second.run.num_samples
    tokens = [segment.num_tokens for segment in segments]
    run = Run(
        num_samples=None if length is None else from_sample + length,
        num_tokens=None if length is None or None in tokens else sum(filter(None, tokens)),
    )
    cards = {
        name: _filled(first.cards.get(name, DomainCard()), second.cards.get(name, DomainCard()))
        for name in domains
        if name in first.cards or name in second.cards
    }
    notes = (*_operations(second), _merge_note(first, second, from_sample))
    return noted(first, segments, *notes, domains=domains, cards=cards, run=run)


def _merge_note(first: MixtureSchedule, second: MixtureSchedule, start: int) -> dict[str, Any]:
    """What was merged; both schedules' operations lie before it, so many of each, in that order."""
    return {
        "merge": {
            "from_sample": start,
            "runs": [_of_run(first), _of_run(second)],
            "num_operations": [len(_operations(first)), len(_operations(second))],
            "other": {k: v for k, v in second.provenance.items() if k != "operations"},
        }
    }


def _filled(card: DomainCard, other: DomainCard) -> DomainCard:
    """What a card says, and where it says nothing what the other one does."""
    return replace(other, **{k: v for k, v in asdict(card).items() if v not in (None, "")})


def _merged_card(schedule: MixtureSchedule, renamed: list[str], name: str) -> DomainCard | None:
    """What is known of all domains that get a name together."""
    olds = [old for old, new in zip(schedule.domains, renamed, strict=True) if new == name]
    known = [schedule.cards[old] for old in olds if old in schedule.cards]
    if olds == [name] or not known:
        return schedule.cards.get(name)
    tokens, rows = [card.num_tokens for card in known], [card.num_rows for card in known]
    is_whole = len(known) == len(olds)
    descriptions = dict.fromkeys(card.description for card in known if card.description)
    return DomainCard(
        description="; ".join(descriptions)[:MAX_TEXT],
        num_tokens=sum(filter(None, tokens)) if is_whole and None not in tokens else None,
        num_rows=sum(filter(None, rows)) if is_whole and None not in rows else None,
    )


def _check_same_text(first: MixtureSchedule, second: MixtureSchedule) -> None:
    """Refuses domains that share a name and nothing else."""
    for name in first.domains:
        one, other = first.cards.get(name), second.cards.get(name)
        prints = {card.fingerprint for card in (one, other) if card and card.fingerprint}
        if len(prints) > 1:
            raise ScheduleError(
                f"`other` must have the same text under the name {name!r}; got the fingerprints "
                f"{sorted(prints)}. Rename one of them first."
            )


def _cut_short(segment: Segment, schedule: MixtureSchedule, stop: int) -> Segment:
    """The last segment before `stop`, with its tokens up to there."""
    starts = [s.from_sample for s in schedule.segments]
    number = starts.index(segment.from_sample)
    end = starts[number + 1] if number + 1 < len(starts) else schedule.run.num_samples
    if end is None or stop > end or segment.num_tokens is None:
        return replace(segment, num_tokens=None)
    part = Fraction(stop - segment.from_sample, max(end - segment.from_sample, 1))
    return replace(segment, num_tokens=round(segment.num_tokens * part))


def _spread(
    mixture_K: NDArray[np.float64], names: tuple[str, ...], domains: tuple[str, ...]
) -> NDArray[np.float64]:
    """The shares in the order of more domains; the others have 0."""
    shares = dict(zip(names, mixture_K.tolist(), strict=True))
    return np.array([shares.get(name, 0.0) for name in domains])


def known_length(schedule: MixtureSchedule, what: str) -> int:
    """Samples of the run.

    Raises:
        ScheduleError: they are not known.
    """
    if schedule.run.num_samples is None:
        raise ScheduleError(
            f"`{what}` needs `run.num_samples`, which the schedule has not got. Give it: "
            "dataclasses.replace(schedule, run=Run(num_samples=...))."
        )
    return schedule.run.num_samples


def _of_run(schedule: MixtureSchedule) -> dict[str, Any]:
    return {key: value for key, value in asdict(schedule.run).items() if value is not None}


def _operations(schedule: MixtureSchedule) -> list[Any]:
    earlier = schedule.provenance.get("operations", [])
    return earlier if isinstance(earlier, list) else []


def noted(
    schedule: MixtureSchedule,
    segments: tuple[Segment, ...],
    *notes: Mapping[str, Any],
    **parts: Any,
) -> MixtureSchedule:
    """The schedule with other parts, and notes of what was done."""
    operations = [*_operations(schedule), *notes]
    provenance = {**schedule.provenance, "operations": operations}
    return replace(schedule, segments=segments, provenance=provenance, **parts)
