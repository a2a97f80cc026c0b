"""LiveModel: a model in memory as lm-eval sees it, with the work shared by all ranks.

lm-eval takes a live model for rank 0 of 1 on every rank. That is left so: every rank builds all
requests, the same ones with the same solved examples, answers its own share and gets the answers of
the others. Scores therefore do not depend on the number of processes, but for the last digits of a
log-likelihood, which depend on what else was in its batch.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import datasets
import torch
from huggingface_hub import utils as hub
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tikmix_hf import distributed
from tikmix_hf.signals.gradients import undisturbed

AUTO = "auto"
AUTO_ON_CPU = 16
"""Requests of a batch where no device's memory is to be filled, or ranks must stay in step."""

Answer = TypeVar("Answer")
# A file that is no JSON is told of twice: by datasets in a log of its own, and by its error.
_LEVELS = {"lm_eval": logging.ERROR, "datasets.packaged_modules.json.json": logging.CRITICAL}


class LiveModel(HFLM):
    """A model that trains, or has trained, as lm-eval's `LM`.

    Args:
        model: the same on every rank, or sharded over them.
        tokenizer: its own; it is copied, since lm-eval gives it a padding token.
        batch_size: requests of a batch; "auto" fills the memory of a single GPU and is 16
            elsewhere.
        on_answer: called after each answer of this rank. lm-eval's own bars are never shown.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int | str = AUTO,
        on_answer: Callable[[], Any] | None = None,
    ) -> None:
        ranks = distributed.world_size()
        if batch_size == AUTO and (ranks > 1 or model.device.type == "cpu"):
            batch_size = AUTO_ON_CPU
        settings: dict[str, Any] = {
            "pretrained": model,
            "tokenizer": copy.deepcopy(tokenizer),
            "backend": "causal",
            "batch_size": batch_size,
            # Answers of one token with a common prompt share a pass, and how many do would differ
            # from rank to rank: sharded models must make the same number of passes.
            "logits_cache": ranks == 1,
        }
        super().__init__(**settings)
        if on_answer is not None:
            self.set_cache_hook(_Heard(on_answer))

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """Log-likelihoods of continuations, and whether each is the greedy one."""
        return self._shared(super().loglikelihood, requests)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-likelihoods of whole texts."""
        return self._shared(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations."""
        return self._shared(super().generate_until, requests)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        # lm-eval shows a bar for each batch of whole texts, whatever it was told.
        return super()._loglikelihood_tokens(  # pyright: ignore[reportAttributeAccessIssue]
            requests, disable_tqdm=True, override_bs=override_bs
        )

    def _shared(
        self, answer: Callable[..., list[Answer]], requests: list[Instance]
    ) -> list[Answer]:
        """Answers every world-th request here and takes the rest from the other ranks."""
        ranks, rank = distributed.world_size(), distributed.rank()
        mine = requests[rank::ranks]
        # As many everywhere: the forward passes of a sharded model are collective.
        mine += requests[-1:] * (-(-len(requests) // ranks) - len(mine))
        # lm-eval prints which batch size it found.
        with distributed.FailTogether(), contextlib.redirect_stdout(io.StringIO()):
            answers = answer(mine, disable_tqdm=True)
        parts = distributed.gather(answers)
        return [parts[n % ranks][n // ranks] for n in range(len(requests))]


class _Heard(CacheHook):
    """Where lm-eval tells of every answer, for a cache of them; here they are only counted."""

    def __init__(self, on_answer: Callable[[], Any]) -> None:
        super().__init__(None)
        self._on_answer = on_answer

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        """Hears of one."""
        self._on_answer()


@contextmanager
def without_trace(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model may be asked whatever lm-eval asks; afterwards training finds it as it was.

    Beyond `undisturbed` (random states, gradients, modes) the key-value cache's switch and the
    generation settings, the very object, come back.
    """
    use_cache = model.config.use_cache if "use_cache" in model.config.to_dict() else None
    generation = model.generation_config
    with undisturbed(model), torch.no_grad():
        try:
            model.generation_config = copy.deepcopy(generation)
            yield
        finally:
            if use_cache is not None:
                model.config.use_cache = use_cache
            model.generation_config = generation


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars of those who read rows, lm-eval's log of every task, and its advice.

    Its advice is on live models, whose work `LiveModel` shares.
    """
    with contextlib.ExitStack() as afterwards:
        for name, level in _LEVELS.items():
            logger = logging.getLogger(name)
            afterwards.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        for reader in (datasets, hub):
            if not reader.are_progress_bars_disabled():
                afterwards.callback(reader.enable_progress_bars)
                reader.disable_progress_bars()
        yield
