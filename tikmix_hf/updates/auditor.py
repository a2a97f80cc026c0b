"""Auditor: keeps what an update predicted, and checks it at the next one.

In: the rounds of an update; at the next one the live model. Out: a `Comparison` (`audit.py`). The
rows it reads are those that the earlier update measured. An update that failed or measured nothing
leaves nothing to check.
"""

# Shape letters: K domains.

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tikmix_hf.updates.audit import Comparison, Prediction, compare
from tikmix_hf.updates.measurer import Measurer
from tikmix_hf.updates.plan import FORWARD_ONLY
from tikmix_hf.updates.rounds import Rounds

logger = logging.getLogger(__name__)


class Auditor:
    """Remembers one prediction at a time, and all correlations so far.

    Args:
        measurer: reads the targets' rows; its settings say whether to audit at all.

    Attributes:
        num_tokens: what the last `settle` read, in tokens of training: forward passes alone.
    """

    def __init__(self, measurer: Measurer) -> None:
        self.measurer = measurer
        self.start()

    def start(self) -> None:
        """Forgets everything."""
        self.num_tokens = 0
        self._prediction: Prediction | None = None
        self._correlations: tuple[float, ...] = ()

    @property
    def has_prediction(self) -> bool:
        """Whether there is something to check."""
        return self._prediction is not None

    def settle(self, model: nn.Module, realised_K: NDArray[np.int64]) -> Comparison | None:
        """Checks the prediction, if there is one.

        Args:
            model: the live model, left as it was.
            realised_K: (K,) tokens that training read since.

        Raises:
            FloatingPointError: a loss is not finite.
        """
        self.num_tokens = 0
        prediction, self._prediction = self._prediction, None
        if prediction is None or not realised_K.any():
            return None
        losses_RJ, num_tokens = self.measurer.target_losses(model, prediction.portions)
        self.num_tokens = round(num_tokens * FORWARD_ONLY)
        mixture_K = realised_K / realised_K.sum()
        audit, self._correlations = compare(prediction, losses_RJ, mixture_K, self._correlations)
        return audit

    def predict(self, step: int, update: int, rounds: Rounds | None) -> None:
        """Leaves to the next update what this one says will happen.

        Args:
            step: optimizer steps done.
            update: how many updates came before.
            rounds: what it measured.
        """
        self._prediction = None
        if rounds is None or not self.measurer.settings.audit:
            return
        self._prediction = Prediction(
            step=step,
            targets=rounds.matrix.targets,
            influence=tuple(map(tuple, rounds.matrix.values.tolist())),
            losses=tuple(tuple(matrix.target_losses.tolist()) for matrix in rounds.each),
            portions=self.measurer.portions(update)[: len(rounds.each)],
        )

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types."""
        return {
            "rows": self.measurer.identity(),
            "prediction": self._prediction,
            "correlations": self._correlations,
        }

    def resume(self, saved: Any, origin: str) -> None:
        """Takes up what `state` returned, through JSON.

        A prediction whose rows cannot be found again, because the measurement's settings are other
        ones, is dropped with a warning.
        """
        self.num_tokens = 0
        self._correlations = tuple(saved["correlations"])
        self._prediction = None
        if saved["prediction"] is None:
            return
        if saved["rows"] == self.measurer.identity():
            self._prediction = Prediction.restore(saved["prediction"])
        else:
            logger.warning(
                "%s measured other rows or batches; its last prediction is not audited.", origin
            )
