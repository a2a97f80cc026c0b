"""tikmix_hf: a language model chooses its own data mixture while it trains.

Documents become `Domains`, which an `InterleavedDomainDataset` serves in the order of a
`MixtureSchedule`; `TikMixCallback` measures `GroupInfluence` while the Trainer trains and lets a
mixer change the mixture. The names below are the public ones; each is imported when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tikmix_hf import mixers
    from tikmix_hf.callback import TikMixCallback
    from tikmix_hf.checkpoint import last_complete_checkpoint
    from tikmix_hf.collate import PackedCollator
    from tikmix_hf.dataset import InterleavedDomainDataset
    from tikmix_hf.domains import Domain, Domains, tokenize_and_pack
    from tikmix_hf.mixture import Constraints, Group
    from tikmix_hf.schedule import MixtureSchedule
    from tikmix_hf.signals.influence import GroupInfluence
    from tikmix_hf.signals.matrix import InfluenceMatrix
    from tikmix_hf.updates.measurement import Measurement

__version__ = "0.1.0"

__all__ = [
    "Constraints",
    "Domain",
    "Domains",
    "Group",
    "GroupInfluence",
    "InfluenceMatrix",
    "InterleavedDomainDataset",
    "Measurement",
    "MixtureSchedule",
    "PackedCollator",
    "TikMixCallback",
    "last_complete_checkpoint",
    "mixers",
    "tokenize_and_pack",
]

_ROOMS = {
    "Constraints": "mixture",
    "Domain": "domains",
    "Domains": "domains",
    "Group": "mixture",
    "GroupInfluence": "signals.influence",
    "InfluenceMatrix": "signals.matrix",
    "InterleavedDomainDataset": "dataset",
    "Measurement": "updates.measurement",
    "MixtureSchedule": "schedule",
    "PackedCollator": "collate",
    "TikMixCallback": "callback",
    "last_complete_checkpoint": "checkpoint",
    "tokenize_and_pack": "domains",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"tikmix_hf.{_ROOMS[name]}"), name)
    if name == "mixers":
        return import_module("tikmix_hf.mixers")
    raise AttributeError(f"module 'tikmix_hf' has no attribute {name!r}")
