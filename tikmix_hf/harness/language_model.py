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
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tikmix_hf import distributed
from tikmix_hf.signals.gradients import undisturbed
from tikmix_hf.signals.passes import is_sharded

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

    # HFLM's own, which its decorator hides from type checkers.
    model: PreTrainedModel
    max_length: int
    prefix_token_id: int
    tok_encode: Callable[[str], list[int]]
    _loglikelihood_tokens: Callable[..., list[tuple[float, bool]]]

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
        """Log-likelihoods of whole texts, of which long ones are read in several windows.

        Windows are what ranks share: how many there are of its own texts differs from rank to rank.
        """
        windows = [self._windows(*request.args) for request in requests]
        flat = [(None, *window) for own in windows for window in own]
        answers = iter(self._shared(self._loglikelihood_tokens, flat))
        nats = [sum((next(answers)[0] for _ in own), 0.0) for own in windows]
        for request, value in list(zip(requests, nats, strict=True))[self._share]:
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return nats

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy continuations.

        Requests of a batch have the same settings, so each setting's are shared by themselves.
        """
        by_settings: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            _, settings = request.arguments
            by_settings.setdefault(repr(settings), []).append(place)
        texts: dict[int, str] = {}
        for places in by_settings.values():
            answers = self._shared(super().generate_until, [requests[place] for place in places])
            texts |= zip(places, answers, strict=True)
        return [texts[place] for place in range(len(requests))]

    def _model_generate(self, context: Any, **settings: Any) -> torch.Tensor:
        # transformers sees to it only for models that it has sharded itself.
        if distributed.world_size() > 1 and is_sharded(self.model):
            settings["synced_gpus"] = True
        return super()._model_generate(  # pyright: ignore[reportAttributeAccessIssue]
            context, **settings
        )

    def _windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Context and continuation of each of a text's windows, as `HFLM` cuts them."""
        windows = get_rolling_token_windows(
            token_list=self.tok_encode(text),
            prefix_token=self.prefix_token_id,
            max_seq_len=self.max_length,
            context_len=1,
        )
        return [make_disjoint_window(window) for window in windows]

    @property
    def _share(self) -> slice:
        """Which of all requests are this rank's: every world-th."""
        return slice(distributed.rank(), None, distributed.world_size())

    def _shared(self, answer: Callable[..., list[Answer]], requests: list[Any]) -> list[Answer]:
        """Answers this rank's share of requests and takes the rest from the other ranks."""
        ranks, mine = distributed.world_size(), requests[self._share]
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
