"""The mixture that an entry's run begins with, some of them made of finished runs.

In: an entry, and the records that its run waits for. Out: what `InterleavedDomainDataset` takes as
`mixture`. *shuffled* is the control that tells "at the right time" from "a better average": the
same mixtures in random order between the same boundaries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from arena_config import Arena
from arena_jobs import proxy_names, run_name
from arena_proxies import best_single, regmix
from numpy.typing import NDArray

from tikmix_hf import Domains, MixtureSchedule
from tikmix_hf.schedule import Segment

Mixture = str | dict[str, float] | MixtureSchedule


def first_mixture(
    arena: Arena, key: tuple[str, str, int], domains: Domains, folder: Path
) -> Mixture:
    """What a run begins with.

    Args:
        arena: all settings.
        key: regime, entry and seed of the run.
        domains: of the regime.
        folder: where finished jobs left their files.
    """
    regime, name, seed = key
    entry = arena.entries[name]
    if entry.mixture in ("uniform", "natural"):
        return entry.mixture
    if entry.mixture in ("best_single", "regmix"):
        proxies = read_proxies(arena, regime, folder)
        if entry.mixture == "best_single":
            return best_single(domains.names, proxies)
        return regmix(domains.names, proxies, domains.prior, seed)
    assert entry.of is not None, "checked when the arena was read"
    schedule = schedule_of(read(folder, run_name(regime, entry.of, seed)))
    if entry.mixture == "final":
        return dict(zip(schedule.domains, schedule.segments[-1].mixture.tolist(), strict=True))
    return shuffled(schedule, np.random.default_rng(seed))


def shuffled(schedule: MixtureSchedule, rng: np.random.Generator) -> MixtureSchedule:
    """The same mixtures in another order, between the same boundaries.

    A schedule whose mixtures are all alike is returned as it is.
    """
    mixtures: list[NDArray[np.float64]] = [segment.mixture for segment in schedule.segments]
    order = np.arange(len(mixtures))
    if not all(np.array_equal(mixtures[0], mixture) for mixture in mixtures):
        while all(np.array_equal(mixtures[i], mixtures[j]) for i, j in enumerate(order)):
            order = rng.permutation(len(mixtures))
    segments = tuple(
        Segment(from_sample=segment.from_sample, mixture=mixtures[i])
        for segment, i in zip(schedule.segments, order, strict=True)
    )
    return MixtureSchedule(schedule.domains, segments)


def schedule_of(record: Mapping[str, Any]) -> MixtureSchedule:
    """The schedule of a finished run."""
    segments = tuple(
        Segment(from_sample=s["from_sample"], mixture=np.array(s["mixture"]))
        for s in record["mixtures"]
    )
    return MixtureSchedule(tuple(record["domains"]), segments)


def read(folder: Path, name: str) -> dict[str, Any]:
    """What a finished job left."""
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def read_proxies(arena: Arena, regime: str, folder: Path) -> list[dict[str, Any]]:
    """All proxies of a regime, in their order."""
    parts = [read(folder, name) for name in proxy_names(arena, regime)]
    return [proxy for part in parts for proxy in part["proxies"]]


def extra_flops(arena: Arena, key: tuple[str, str, int], num_domains: int, folder: Path) -> float:
    """Floating-point operations of other training that an entry's choice rests on.

    RegMix takes its own proxies, the best single domain those of single domains; a reference model
    is trained once for a run.
    """
    regime, name, seed = key
    entry = arena.entries[name]
    flops = 0.0
    if entry.mixture in ("best_single", "regmix"):
        proxies = read_proxies(arena, regime, folder)
        own = proxies[:num_domains] if entry.mixture == "best_single" else proxies[num_domains:]
        flops += sum(proxy["flops"] for proxy in own)
    if entry.reference is not None:
        flops += read(folder, run_name(regime, entry.reference, seed))["training"]["flops"]
    if entry.of is not None:
        chosen = read(folder, run_name(regime, entry.of, seed))
        flops += chosen["choosing"]["flops"]
        # A control of the order costs what its model costs; the last mixture takes a whole run.
        flops += chosen["training"]["flops"] if entry.mixture == "final" else 0.0
    return flops
