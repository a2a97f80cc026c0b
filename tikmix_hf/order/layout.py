"""BatchLayout: which samples an optimizer step reads, and which nobody can have read yet.

In: the batch sizes, processes and workers of a run. Out: ordinals. Map-style data that is read in
order gives rank r the batches r, r + R, ...; so step s of an epoch reads one contiguous range of
ordinals, whatever the ranks. At the end of a step the loader of every rank is ahead of training:
accelerate holds one batch, and W workers hold F batches each. With accumulation A,

    batches handed out <= s * A + 1 + W * F

and the first sample that is free to change is the one after, rounded up to a whole step.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchLayout:
    """How a run cuts its samples into batches."""

    num_samples: int
    """Length of the dataset: the samples of one epoch."""
    per_device: int
    """Samples in one batch of one process."""
    world_size: int
    """Processes."""
    accumulation: int
    """Batches that one process gives to one optimizer step."""
    drop_last: bool = False
    """Whether an incomplete last batch of an epoch is left out."""
    num_workers: int = 0
    """DataLoader workers of one process."""
    prefetch_factor: int = 2
    """Batches that each worker prepares ahead."""

    @property
    def batch(self) -> int:
        """Samples that all processes read together in one batch each."""
        return self.per_device * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch."""
        return max(1, -(-self._batches_per_epoch // self.accumulation))

    @property
    def _batches_per_epoch(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch)
        return whole if self.drop_last or not rest else whole + 1

    def samples_before(self, step: int) -> int:
        """Returns the ordinal of the first sample after `step` optimizer steps."""
        epoch, within = divmod(step, self.steps_per_epoch)
        batches = min(within * self.accumulation, self._batches_per_epoch)
        return epoch * self.num_samples + min(batches * self.batch, self.num_samples)

    def batches_of(self, step: int, rank: int) -> tuple[range, ...]:
        """Returns the ordinals of the samples in each batch that a process gives to a step.

        Args:
            step: which step, the first being 1.
            rank: of the process.
        """
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        first = within * self.accumulation
        last = min(first + self.accumulation, self._batches_per_epoch)
        end = (epoch + 1) * self.num_samples
        starts = [
            epoch * self.num_samples + number * self.batch + rank * self.per_device
            for number in range(first, last)
        ]
        return tuple(range(start, min(start + self.per_device, end)) for start in starts)

    def first_free_sample(self, step: int, *, after: int = -1) -> int:
        """Returns the first sample of a step that no loader has read at the end of `step`.

        Args:
            step: optimizer steps done.
            after: a sample that the answer must lie behind.
        """
        ahead = 1 + self.num_workers * self.prefetch_factor
        free = step - (-ahead // self.accumulation)
        while self.samples_before(free) <= after:
            free += 1
        return self.samples_before(free)

    def identity(self) -> dict[str, Any]:
        """Returns what must be the same for a resumed run to read the same samples in each step."""
        fields = asdict(self)
        return {
            name: fields[name]
            for name in ("num_samples", "per_device", "world_size", "accumulation", "drop_last")
        }
