"""How a run is judged: bits per byte of text, a curve of them, and multiple-choice questions.

In: a model and packed rows, or questions. Out: numbers that do not depend on the tokenizer's
vocabulary: the model's bits for predicting tokens, divided by the bytes that these tokens stand
for. Ends of documents are predicted too, and stand for no byte.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from arena_text import Question
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, TrainerCallback

# B rows of a batch, N rows, T tokens of a row, V entries of the vocabulary.

BATCH_ROWS = 32


class Judged(NamedTuple):
    """Rows to be judged by."""

    blocks_NT: Tensor
    """Token ids."""
    num_bytes: int
    """That all tokens but the first of each row stand for."""


def judged_rows(
    rows: Mapping[str, Dataset], num: int, token_bytes_V: NDArray[np.int64]
) -> dict[str, Judged]:
    """Picks `num` rows of each target, evenly spread, or all where there are fewer."""
    picked = {}
    for name, own in rows.items():
        positions = np.unique(np.linspace(0, len(own) - 1, min(num, len(own))).round().astype(int))
        blocks_NT = np.array(own[positions.tolist()]["input_ids"], dtype=np.int64)
        num_bytes = int(token_bytes_V[blocks_NT[:, 1:]].sum())
        picked[name] = Judged(torch.from_numpy(blocks_NT), num_bytes)
    return picked


@torch.no_grad()
def bits_per_byte(model: Any, judged: Mapping[str, Judged]) -> dict[str, float]:
    """The model's bits per byte of each target; it is put into evaluation mode and back."""
    was_training = model.training
    model.eval()
    result = {}
    for name, (blocks_NT, num_bytes) in judged.items():
        nats = sum(_nats(model, blocks).sum().item() for blocks in blocks_NT.split(BATCH_ROWS))
        result[name] = nats / math.log(2) / num_bytes
    model.train(was_training)
    return result


def _nats(model: Any, blocks_BT: Tensor) -> Tensor:
    """(B, T - 1) negative log-likelihood of every token but the first."""
    blocks_BT = blocks_BT.to(model.device)
    logits_BTV = model(input_ids=blocks_BT).logits[:, :-1].float()
    losses = functional.cross_entropy(
        logits_BTV.flatten(0, 1), blocks_BT[:, 1:].flatten(), reduction="none"
    )
    return losses.view(len(blocks_BT), -1).double()


@torch.no_grad()
def answer(
    model: Any, tokenizer: PreTrainedTokenizerFast, questions: Sequence[Question]
) -> dict[str, float]:
    """Asks multiple-choice questions.

    A choice is scored by its bits per byte after the prompt, so that long ones are not punished.

    Returns:
        `accuracy` of the choice with the fewest bits per byte, and the mean `bits_per_byte` of the
        right ones.
    """
    was_training = model.training
    model.eval()
    num_right, bits_of_right = 0, 0.0
    for question in questions:
        bits = [_bits_per_byte(model, tokenizer, question.prompt, c) for c in question.choices]
        num_right += int(np.argmin(bits)) == question.right
        bits_of_right += bits[question.right]
    model.train(was_training)
    return {
        "accuracy": num_right / len(questions),
        "bits_per_byte": bits_of_right / len(questions),
    }


def _bits_per_byte(
    model: Any, tokenizer: PreTrainedTokenizerFast, prompt: str, choice: str
) -> float:
    # The end of the document before makes the first token of the prompt one that follows another.
    start = [tokenizer.eos_token_id, *tokenizer(prompt)["input_ids"]]
    continuation = tokenizer(f" {choice}")["input_ids"]
    nats = _nats(model, torch.tensor([[*start, *continuation]]))[0, -len(continuation) :]
    return float(nats.sum()) / math.log(2) / len(f" {choice}".encode())


class CurveCallback(TrainerCallback):
    """Judges the model while it trains, by the running mean of its weights.

    The learning rate does not decay, so the weights of one step depend on the last batches; their
    mean over the last steps does not, much as if the learning rate had come down there.

    Args:
        averaged: a model of the same kind; it gets the mean of the weights. No copy of the model
            that trains would do: accelerate replaces the forward pass of that one.
        judged: by what.
        every_steps: steps from one point to the next; the last step is always one.
        average_steps: length of the mean: each step's weights enter with the share 1 / this, the
            first ones with a larger one.

    Attributes:
        averaged: with the mean of the weights so far.
        steps: of the points.
        losses: bits per byte by target, for each point.
        seconds: that judging took; they are no part of the run.
    """

    def __init__(
        self, averaged: Any, judged: Mapping[str, Judged], *, every_steps: int, average_steps: int
    ) -> None:
        self.averaged, self.judged = averaged, judged
        self.every_steps, self.average_steps = every_steps, average_steps
        self._is_begun = False
        self.steps: list[int] = []
        self.losses: list[dict[str, float]] = []
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the weights into the mean, and adds a point where one is due."""
        started = time.perf_counter()
        self._take(kwargs["model"], state.global_step)
        if not state.global_step % self.every_steps or state.global_step == state.max_steps:
            self.steps.append(state.global_step)
            self.losses.append(bits_per_byte(self.averaged, self.judged))
        self.seconds += time.perf_counter() - started

    @torch.no_grad()
    def _take(self, model: Any, step: int) -> None:
        if not self._is_begun:
            self.averaged.to(model.device).load_state_dict(model.state_dict())
            self._is_begun = True
            return
        # Early on the mean is over a third of the steps so far, so that it does not lag behind.
        share = 1 / min(self.average_steps, 1 + step / 3)
        for mean, weights in zip(self.averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(weights, share)
