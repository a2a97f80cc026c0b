"""What training tells about the mixture: the influence of each domain on each target.

`GroupInfluence` is imported when first used: whoever reads a matrix needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tikmix_hf.signals.matrix import InfluenceMatrix

if TYPE_CHECKING:
    from tikmix_hf.signals.influence import GroupInfluence

__all__ = ["GroupInfluence", "InfluenceMatrix"]


def __getattr__(name: str) -> Any:
    if name == "GroupInfluence":
        from tikmix_hf.signals.influence import GroupInfluence

        return GroupInfluence
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
