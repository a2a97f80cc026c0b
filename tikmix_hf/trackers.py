"""Trackers: how TensorBoard, W&B and trackio take numbers and images while a Trainer runs.

In: what one step has to show. Out: that, in the run that the Trainer's own callback for the tracker
has opened; nothing here opens or ends a run. Names arrive as they shall appear. The step goes where
that callback puts it: TensorBoard has an axis of steps; W&B and trackio count calls, and are given
the optimizer step as `train/global_step`, W&B's axis for everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

STEP = "train/global_step"
Images = Mapping[str, NDArray[np.uint8]]


class Tracker(Protocol):
    """What every tracker does."""

    def log(self, scalars: Mapping[str, float], images: Images, step: int) -> None:
        """Shows numbers and images, each (height, width, 3), at an optimizer step."""
        ...

    def close(self) -> None:
        """Ends what this object opened itself."""
        ...


class TensorBoard:
    """A second event file in the folder of the Trainer's own; TensorBoard shows both as one run.

    Args:
        folder: of event files.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:  # the Trainer's own choice
            from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
        self._writer: Any = SummaryWriter(log_dir=str(folder))

    def log(self, scalars: Mapping[str, float], images: Images, step: int) -> None:
        """Writes, and flushes: TensorBoard reads the file while the run goes on."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
        for name, image_HW3 in images.items():
            self._writer.add_image(name, image_HW3, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class Wandb:
    """The open run of W&B."""

    def __init__(self) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._wandb: Any = wandb

    def log(self, scalars: Mapping[str, float], images: Images, step: int) -> None:
        """Gives everything in one call, which is one row of the run's history.

        Raises:
            RuntimeError: no run is open.
        """
        if self._wandb.run is None:
            raise RuntimeError("no run of W&B is open")
        pictures = {name: self._wandb.Image(image_HW3) for name, image_HW3 in images.items()}
        self._wandb.log({**scalars, **pictures, STEP: step})

    def close(self) -> None:
        """Leaves the run open, as the Trainer does."""


class Trackio:
    """The open run of trackio."""

    def __init__(self) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self._trackio: Any = trackio

    def log(self, scalars: Mapping[str, float], images: Images, step: int) -> None:
        """Gives everything in one call, which is one row of the run's history.

        Raises:
            RuntimeError: no run is open, as after the end of training.
        """
        pictures = {name: self._trackio.Image(image_HW3) for name, image_HW3 in images.items()}
        self._trackio.log({**scalars, **pictures, STEP: step})

    def close(self) -> None:
        """Leaves the run to the Trainer, which ends it."""
