"""Live view: each update in TensorBoard, W&B and trackio while training goes on.

In: an `UpdateRecord`, and `report_to` of the TrainingArguments. Out: at the update's optimizer
step, from rank 0, these names, which stay as they are (J targets, K domains):

    train/tikmix/mixture/DOMAIN                the share in force from the update on
    train/tikmix/proposed/DOMAIN               the share that follows from the measurement
    train/tikmix/change                        share of tokens that the update moved
    train/tikmix/influence/TARGET/DOMAIN       J x K, where influence was measured
    train/tikmix/target_loss/TARGET            nats per token of the measured text
    train/tikmix/requested_share/DOMAIN        audit: what the mixtures in force asked for since
    train/tikmix/realised_share/DOMAIN         the last update, and what training read
    train/tikmix/epochs/DOMAIN                 how often its rows were gone through
    train/tikmix/audit/predicted/TARGET        audit: what the last update predicted of each target
    train/tikmix/audit/realised/TARGET         and by how much its loss fell
    train/tikmix/audit/spearman, correlation   how well they agree, from three targets on
    train/tikmix/guard/...                     the noise guard's verdict
    train/tikmix/cost/SIGNAL/tokens, seconds   by signal (influence ...), of audit and mixer
    train/tikmix/tokens, planned_tokens, seconds, planned_seconds, time_share, token_share, rounds,
        proposal_change                        cost of the update, and of all so far
    train/tikmix/update                        IMAGE: influence with errors beside the mixture
                                               before and after (`update_picture.py`)

The image needs matplotlib; without it one line of the log names the extra that brings it, and the
numbers come all the same. Nothing here touches the model or a random state.
"""

from __future__ import annotations

import logging
import time

from transformers import TrainerState, TrainingArguments

from tikmix_hf.figures import pixels
from tikmix_hf.reporters import Reporters
from tikmix_hf.trackers import Images
from tikmix_hf.update_picture import plot_update
from tikmix_hf.updates.record import UpdateRecord

logger = logging.getLogger(__name__)

IMAGE = "tikmix/update"


class LiveView:
    """Shows updates in the trackers of `report_to`.

    Args:
        images: whether to draw one per update.
    """

    def __init__(self, *, images: bool) -> None:
        self._reporters = Reporters()
        self._draws = self._images = images

    def show(self, record: UpdateRecord, args: TrainingArguments, state: TrainerState) -> float:
        """Shows an update at the state's step; every rank may call it.

        Returns:
            Seconds that it took.
        """
        started = time.perf_counter()
        if self._reporters.has_trackers(args, state):
            self._reporters.show(record.scalars(), self._draw(record), args, state)
        return time.perf_counter() - started

    def close(self) -> None:
        """Closes what was opened; another training may follow."""
        self._reporters.close()
        self._draws = self._images

    def _draw(self, record: UpdateRecord) -> Images:
        """The picture of an update by its name; none where it cannot be drawn, which is told."""
        if not self._draws:
            return {}
        try:
            return {IMAGE: pixels(plot_update(record.to_dict()))}
        except ImportError as err:
            reason = str(err)
        # Fonts, styles and backends are the user's: what drawing may raise has no bound, and none
        # of it is worth a training run.
        except Exception as err:
            reason = " ".join(f"{type(err).__name__}: {err}".split())
        self._draws = False
        logger.warning("Updates are shown without images: %s", reason)
        return {}
