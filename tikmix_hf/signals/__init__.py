"""What training tells about the mixture: the influence of each domain on each target."""

from tikmix_hf.signals.influence import GroupInfluence
from tikmix_hf.signals.matrix import InfluenceMatrix

__all__ = ["GroupInfluence", "InfluenceMatrix"]
