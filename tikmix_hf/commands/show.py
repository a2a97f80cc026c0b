"""`tikmix show`: what a schedule says, as tables or JSON.

In: the parsed options. Out: its segments with how much each changed and why, its domains with
their shares, and what choosing them cost.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from tikmix_hf.commands import schedules, screen
from tikmix_hf.commands.schedules import Found
from tikmix_hf.mixture import total_variation
from tikmix_hf.schedule import MixtureSchedule, Segment

# Shape letters: K domains.

_MOVES = 3


def run(options: argparse.Namespace) -> None:
    """Prints a schedule.

    Raises:
        ValueError: as `schedules.find`.
        OSError: as `schedules.find`.
    """
    found = schedules.find(options.schedule, revision=options.revision)
    # All files are read before anything is printed.
    num_samples, spent = found.num_samples(), cost(found)
    average = None if num_samples is None else _mean(found.schedule, num_samples)
    if options.json:
        record = {"schedule": found.schedule.to_dict(), "num_samples": num_samples}
        screen.document({**record, "mean": average, "cost": spent})
        return
    _segments(found, num_samples)
    _domains(found.schedule, average)
    screen.say(_cost_line(spent))


def cost(found: Found) -> dict[str, Any]:
    """What choosing the mixtures cost: of the run's records, else of the schedule's own.

    Returns:
        `num_updates`, `tokens`, `seconds`, `token_share` and `time_share`; None for what nobody
        says. By the run's records the shares are of training until its last update; by the
        schedule's, which has no `seconds` and tells only of updates that changed the mixture, of
        the whole run.
    """
    if updates := found.updates():
        return {
            "num_updates": len(updates),
            "tokens": sum(update.tokens for update in updates),
            "seconds": sum(update.seconds for update in updates),
            "token_share": updates[-1].token_share,
            "time_share": updates[-1].time_share,
        }
    spent = [_tokens(segment) for segment in found.schedule.segments]
    known = [tokens for tokens in spent if tokens is not None]
    tokens = sum(known) if known else None
    of_run = found.schedule.run.num_tokens
    return {
        "num_updates": len(found.schedule.segments) - 1,
        "tokens": tokens,
        "seconds": None,
        "token_share": tokens / of_run if tokens is not None and of_run else None,
        "time_share": None,
    }


def _tokens(segment: Segment) -> float | None:
    """Tokens that were measured for a segment, by its record; None where it does not say."""
    spent = segment.update.get("cost", {}).get("tokens")
    if isinstance(spent, dict):
        spent = sum(number for number in spent.values() if isinstance(number, (int, float)))
    return spent if isinstance(spent, (int, float)) else None


def _segments(found: Found, num_samples: int | None) -> None:
    schedule = found.schedule
    rows, before_K = [], None
    for segment in schedule.segments:
        share = "" if num_samples is None else f"{segment.from_sample / num_samples:.1%}"
        change, moves = "", ""
        if before_K is not None:
            change = f"{total_variation(before_K, segment.mixture):.1%}"
            moves = _largest_moves(schedule.domains, before_K, segment.mixture)
        rows.append((f"{segment.from_sample:,}", share, change, moves, _why(segment)))
        before_K = segment.mixture
    length = "a run of unknown length" if num_samples is None else f"{num_samples:,} samples"
    screen.table(
        f"{found.origin}: mixtures {len(rows)}, {length}",
        ("from sample", "of the run", "change", "largest moves", "by"),
        rows,
        left=("largest moves", "by"),
    )


def _largest_moves(domains: Sequence[str], before_K: Any, after_K: Any) -> str:
    move_K = after_K - before_K
    order = np.argsort(-np.abs(move_K), kind="stable")[:_MOVES]
    return ", ".join(f"{domains[k]} {move_K[k]:+.3f}" for k in order if move_K[k] != 0)


def _why(segment: Segment) -> str:
    """The mixer that chose a segment, by its record."""
    mixer = segment.update.get("mixer", "")
    name = mixer.get("mixer", "") if isinstance(mixer, dict) else mixer
    # Settings name the class, `tikmix_hf.mixers.tikmix_d.TikMixD`; the module is the method.
    parts = name.split(".") if isinstance(name, str) else []
    return parts[-2] if len(parts) > 1 else "".join(parts)


def _domains(schedule: MixtureSchedule, mean: dict[str, float] | None) -> None:
    first_K, last_K = schedule.segments[0].mixture, schedule.segments[-1].mixture
    most = float(last_K.max())
    rows = []
    for k, name in enumerate(schedule.domains):
        card = schedule.cards.get(name)
        tokens = None if card is None else card.num_tokens
        rows.append(
            (
                name,
                "" if tokens is None else f"{tokens:,}",
                f"{first_K[k]:.3f}",
                f"{last_K[k]:.3f}",
                "" if mean is None else f"{mean[name]:.3f}",
                screen.bar(float(last_K[k]), most=most),
                "" if card is None else card.description,
            )
        )
    screen.table(
        "Shares of tokens",
        ("domain", "tokens", "first", "last", "mean", "last share", "what it is"),
        rows,
        left=("last share", "what it is"),
    )


def _mean(schedule: MixtureSchedule, num_samples: int) -> dict[str, float]:
    """Mean share over the run's samples, by name."""
    mean_K = schedule.mean_between(0, num_samples)
    return dict(zip(schedule.domains, mean_K.tolist(), strict=True))


def _cost_line(spent: dict[str, Any]) -> str:
    tokens, seconds, token_share = (spent[key] for key in ("tokens", "seconds", "token_share"))
    if seconds is not None:
        return (
            f"{spent['num_updates']} updates cost {tokens:,.0f} tokens and {seconds:.1f} s: "
            f"{token_share:.1%} of the tokens trained, and {spent['time_share']:.1%} of the time, "
            "until the last of them."
        )
    changes = f"{spent['num_updates']} change{'s' if spent['num_updates'] != 1 else ''} of mixture"
    if tokens is None:
        return f"{changes}; the cost is not on record."
    of = "" if token_share is None else f", {token_share:.1%} of those of the whole run"
    return f"{changes} cost {tokens:,.0f} tokens{of}; updates that kept it are not on record."
