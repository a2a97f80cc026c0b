"""Measurement: the settings of how held-out text is measured."""

from __future__ import annotations

from dataclasses import dataclass, field

from tikmix_hf.checks import check_count
from tikmix_hf.collate import PackedCollator
from tikmix_hf.signals.selection import ALL, check_selection
from tikmix_hf.updates.heldout import Collator


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Settings of a measurement.

    Raises:
        ValueError: names the setting, its value and the mend.
    """

    num_rounds: int = 4
    """Rounds of fresh rows that an update's rows are measured in, at most; 1 measures all rows at
    once, without noise guard. Fewer where a part has less than two rows for each."""
    tolerance: float = 0.02
    """Share of tokens that one more round may move for the rounds after it to be saved; 0 saves
    none."""
    audit: bool = True
    """Whether to check at each update what the last one predicted, on the same rows."""
    parameters: str = ALL
    """Which parameters gradients are taken by: "all", "lm_head", "last N blocks", or a regular
    expression for their names."""
    offload: bool = False
    """Whether the held gradients wait in CPU memory."""
    batch_size: int | None = None
    """Rows in a batch; None takes the training's, or fewer, so that every process has two batches
    of each part and round where there are rows enough."""
    data_collator: Collator = field(default_factory=PackedCollator)
    """Collates measured rows; labels that it leaves out are the tokens."""
    seed: int = 0
    """Decides which held-out rows each update reads."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_rounds", check_count("num_rounds", self.num_rounds))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", check_count("batch_size", self.batch_size))
        if not 0 <= self.tolerance <= 1:
            raise ValueError(
                "`tolerance` must be a share of tokens in [0, 1]; got "
                f"{self.tolerance!r}. 0 measures every round."
            )
        check_selection(self.parameters)
