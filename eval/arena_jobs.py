"""What is to be run, and what waits for what.

In: an `Arena` and what of it is wanted. Out: jobs by name, each with the names of those that must
have finished. A job leaves one JSON file, named after it, when it is over, and is not run again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from arena_config import NEED_PROXIES, Arena, refuse_unknown

TEXT = "text"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One process."""

    name: str
    """Of the job and of its file: "text", "pretrain/uniform-0", "pretrain/proxies-3" and so on."""
    kind: str
    """"text", "proxies", "start" or "run"."""
    regime: str = ""
    """Of all but "text"."""
    entry: str = ""
    """Of a "run"."""
    number: int = 0
    """Seed of a "run" or "start"; which part of the "proxies"."""
    needs: tuple[str, ...] = ()
    """Names of the jobs that come before it."""

    def path(self, folder: Path) -> Path:
        """Where it leaves its result; the file is there once the job is over."""
        return folder / f"{self.name}.json"


def run_name(regime: str, entry: str, seed: int) -> str:
    """Of the job that is a run."""
    return f"{regime}/{entry}-{seed}"


def start_name(regime: str, seed: int) -> str:
    """Of the job that trains the checkpoint that a regime's runs start from."""
    return f"{regime}/start-{seed}"


def proxy_names(arena: Arena, regime: str) -> tuple[str, ...]:
    """Of the jobs that train a regime's proxies."""
    num = len(arena.domains) + arena.proxies.num_mixtures
    parts = -(-num // arena.proxies.in_one_job)
    return tuple(f"{regime}/proxies-{part}" for part in range(parts))


def jobs(
    arena: Arena,
    *,
    seeds: Sequence[int],
    regimes: Collection[str] | None = None,
    entries: Collection[str] | None = None,
) -> dict[str, Job]:
    """All jobs that are wanted and what they wait for, in an order in which they can be run.

    Args:
        arena: what there is.
        seeds: of the runs.
        regimes: names of those that are wanted; None: all.
        entries: likewise.

    Raises:
        ValueError: an unknown regime or entry, or entries that wait for one another.
    """
    for name in regimes or ():
        refuse_unknown("--regimes", name, arena.regimes)
    for name in entries or ():
        refuse_unknown("--only", name, arena.entries)
    found: dict[str, Job] = {TEXT: Job(name=TEXT, kind="text")}
    for regime in arena.regimes if regimes is None else regimes:
        for seed in seeds:
            for entry in arena.regimes[regime].entries:
                if entries is None or entry in entries:
                    _add_run(arena, found, (regime, entry, seed), ())
    return found


def _add_run(
    arena: Arena, found: dict[str, Job], key: tuple[str, str, int], waiting: tuple[str, ...]
) -> str:
    """Adds a run after what it needs; returns its name."""
    regime, entry, seed = key
    name = run_name(*key)
    if name in waiting:
        raise ValueError(f"`entries` wait for one another: {' for '.join((*waiting, name))}.")
    if name in found:
        return name
    needs = [TEXT]
    settings = arena.entries[entry]
    if settings.mixture in NEED_PROXIES:
        needs += _add_proxies(arena, found, regime)
    if arena.regimes[regime].start_steps:
        start = start_name(regime, seed)
        found[start] = Job(name=start, kind="start", regime=regime, number=seed, needs=(TEXT,))
        needs.append(start)
    for other in (settings.of, settings.reference):
        if other is not None:
            needs.append(_add_run(arena, found, (regime, other, seed), (*waiting, name)))
    found[name] = Job(
        name=name, kind="run", regime=regime, entry=entry, number=seed, needs=tuple(needs)
    )
    return name


def _add_proxies(arena: Arena, found: dict[str, Job], regime: str) -> tuple[str, ...]:
    names = proxy_names(arena, regime)
    for part, name in enumerate(names):
        found[name] = Job(name=name, kind="proxies", regime=regime, number=part, needs=(TEXT,))
    return names


def ready(
    wanted: dict[str, Job], finished: Collection[str], left_out: Collection[str]
) -> list[Job]:
    """Jobs that could start now.

    Args:
        wanted: all jobs.
        finished: names of those that are over.
        left_out: names of those that run, or failed, or wait for one that failed.
    """
    return [
        job
        for job in wanted.values()
        if job.name not in finished
        and job.name not in left_out
        and all(need in finished for need in job.needs)
    ]
