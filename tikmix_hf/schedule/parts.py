"""What a schedule is made of: segments, the run they are of, and a card for each domain.

In: plain values. Out: frozen records that have been checked, so that whatever is made here can be
written to a file and read back.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixture.simplex import ROUNDING, SUM_TOLERANCE, normalise, read_only
from tikmix_hf.schedule.faults import ScheduleError, fault, shown

# Shape letters: K domains.

MAX_INTEGER = 2**53 - 1
"""Largest count: the largest integer that every JSON reader keeps exactly."""
MAX_SEED = 2**64 - 1
"""Largest seed; the least is its negative."""
MAX_NAME, MAX_TEXT = 256, 4096
"""Characters of a name, and of any other text that a person reads."""
# They reverse or hide what a person sees: marks of direction, and the byte order mark.
_DECEPTIVE = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """One mixture and where it starts.

    Raises:
        ScheduleError: `from_sample` or `num_tokens` is no count, or the shares are no mixture.
    """

    from_sample: int
    """First sample (ordinal of the run) under this mixture."""
    mixture: NDArray[np.float64]
    """(K,) shares of tokens, in the schedule's order of domains; read-only. As in a file, shares
    whose sum is 1 within 1e-6 and not within 1e-12 are divided by it."""
    update: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able record of the update that made it: step, mixer, notes, influence, cost. It tells
    what happened in the run it was made in, under that run's names and steps."""
    num_tokens: int | None = None
    """Tokens that the run reads under it; None where that is not known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mixture", _settled_mixture(self.mixture))
        object.__setattr__(self, "from_sample", count("from_sample", self.from_sample))
        if self.num_tokens is not None:
            object.__setattr__(self, "num_tokens", count("num_tokens", self.num_tokens))

    def __eq__(self, other: object) -> bool:
        """Whether all is the same, the shares to their last bit."""
        return isinstance(other, Segment) and (
            self.from_sample == other.from_sample
            and self.num_tokens == other.num_tokens
            and np.array_equal(self.mixture, other.mixture)
            and self.update == other.update
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """The run that a schedule is of; None stands for what is not known.

    Raises:
        ScheduleError: a number is no count, or a text is too long or unprintable.
    """

    num_samples: int | None = None
    """Samples that training reads, all epochs together."""
    num_tokens: int | None = None
    """Tokens that these samples bring."""
    samples_per_step: int | None = None
    """Samples of one optimizer step."""
    seed: int | None = None
    """Of the order of rows."""
    model: str | None = None
    """Name or class of the model."""
    num_parameters: int | None = None
    """Of the model."""

    def __post_init__(self) -> None:
        bounds = {
            "num_samples": (1, MAX_INTEGER),
            "samples_per_step": (1, MAX_INTEGER),
            "seed": (-MAX_SEED, MAX_SEED),
        }
        _settle(self, "run", bounds, {"model": MAX_TEXT})

    @property
    def tokens_per_sample(self) -> float | None:
        """Mean tokens of a sample; None where that is not known."""
        if self.num_samples is None or self.num_tokens is None:
            return None
        return self.num_tokens / self.num_samples


@dataclass(frozen=True, kw_only=True, slots=True)
class DomainCard:
    """What a domain is, for those who have not got it; None stands for what is not known.

    Raises:
        ScheduleError: a number is no count, or a text is too long or unprintable.
    """

    description: str = ""
    """One line for people: what kind of text this is."""
    num_tokens: int | None = None
    """Training tokens of the whole domain."""
    num_rows: int | None = None
    """Training rows of the whole domain."""
    fingerprint: str | None = None
    """Digest of its name and rows (`Domain.fingerprint`)."""

    def __post_init__(self) -> None:
        _settle(self, "domains", {}, {"description": MAX_TEXT, "fingerprint": MAX_NAME})


def count(place: str, value: Any, *, least: int = 0, most: int = MAX_INTEGER) -> int:
    """A whole number within bounds, as an int.

    Raises:
        ScheduleError: for anything else.
    """
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        raise fault(place, f"a whole number from {least} to {most}", value, "Mend the number.")
    return number


def text_fault(text: Any, most: int) -> str | None:
    """What is wrong with a text, in words; None where nothing is."""
    if not isinstance(text, str):
        return "text"
    if len(text) > most:
        return f"text of at most {most} characters"
    bad = ("Cc", "Cs", "Zl", "Zp")
    # A set of characters: a long text has few that differ.
    if not text.isprintable() and any(
        unicodedata.category(c) in bad or c in _DECEPTIVE for c in set(text)
    ):
        return "text without control characters, line breaks or marks of direction"
    return None


def check_name(place: str, name: Any) -> None:
    r"""Refuses a domain name that could deceive a reader, or lead out of a folder.

    Names such as `allenai/c4` are fine; `../x`, `/x`, `~x` and `a\b` are none.

    Raises:
        ScheduleError: names the rule.
    """
    rule = text_fault(name, MAX_NAME)
    if rule is None and not name.strip():
        rule = "a name that is not empty"
    if rule is None:
        is_rooted = "\\" in name or name[0] in "/~" or re.match("[A-Za-z]:/", name)
        if is_rooted or any(part.strip() in (".", "..") for part in name.split("/")):
            rule = "a name that is no path out of a folder"
    if rule is not None:
        raise fault(place, rule, name, "Rename the domain.")


def check_together(
    domains: tuple[str, ...], segments: tuple[Segment, ...], cards: Mapping[str, DomainCard]
) -> None:
    """Refuses parts that make no schedule.

    Raises:
        ScheduleError: a name that is none or occurs twice, segments out of order, a mixture or a
            card of other domains.
    """
    starts = [segment.from_sample for segment in segments]
    if not starts or starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(starts)):
        raise ScheduleError(
            "`segments` must start at sample 0 and ascend strictly; got from_sample = "
            f"{starts[:8]}. Sort them and give the first one from_sample=0."
        )
    for number, name in enumerate(domains):
        check_name(f"domains[{number}]", name)
    if not domains or len(set(domains)) < len(domains):
        raise ScheduleError(
            f"`domains` must be distinct, at least one; got {shown(domains)}. Rename one."
        )
    if unknown := set(cards) - set(domains):
        raise fault("cards", "of the domains", sorted(unknown), "Leave these out.")
    for number, segment in enumerate(segments):
        if segment.mixture.shape != (len(domains),):
            raise ScheduleError(
                f"`segments[{number}].mixture` must have one share per domain ({len(domains)}); "
                f"got shape {segment.mixture.shape}. Pass the domains' names in the same order."
            )


def finite_number(value: Any) -> bool:
    """Whether a value is a finite number and no boolean."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def keep_or_normalise(shares_K: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(K,) shares with the bits they have if their sum is 1, else divided by it, read-only.

    None stands for what is no mixture. Resuming asks for the bits; a sum that is off by more than
    additions round is of shares that were written by hand.
    """
    # Bounds first: NaN is within none, and what is within them can be added up.
    if not (shares_K.size and shares_K.min() >= 0 and shares_K.max() <= 1 + SUM_TOLERANCE):
        return None
    error = abs(shares_K.sum() - 1.0)
    if error > SUM_TOLERANCE:
        return None
    return read_only(shares_K) if error < ROUNDING else normalise(shares_K)


def _settled_mixture(mixture: Any) -> NDArray[np.float64]:
    """A copy of the shares of a segment.

    Raises:
        ScheduleError: they are no mixture.
    """
    try:
        shares_K = np.array(mixture, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise fault("mixture", "a list of numbers", mixture, "Pass one share per domain.") from None
    settled_K = keep_or_normalise(shares_K) if shares_K.ndim == 1 else None
    if settled_K is None:
        rule = f"(K,) shares that are not negative and sum to 1 within {SUM_TOLERANCE}"
        raise fault("mixture", rule, shares_K.tolist(), "Divide the shares by their sum.")
    return settled_K


def _settle(
    record: Any, place: str, bounds: Mapping[str, tuple[int, int]], texts: Mapping[str, int]
) -> None:
    """Checks every field of a record, texts by length and all others as counts."""
    for one in fields(record):
        value = getattr(record, one.name)
        if value is None:
            continue
        if one.name not in texts:
            least, most = bounds.get(one.name, (0, MAX_INTEGER))
            number = count(f"{place}.{one.name}", value, least=least, most=most)
            object.__setattr__(record, one.name, number)
        elif rule := text_fault(value, texts[one.name]):
            raise fault(f"{place}.{one.name}", rule, value, "Shorten or mend it.")
