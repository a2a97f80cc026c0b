"""What every rank of `torchrun` scores, and how it fails: `eval_two_ranks.py FOLDER`.

Each rank writes down what it found. Failures of one rank alone come between good evaluations, which
would hang or mix up their answers if a rank had fallen out of step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import benchmarks

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from lm_eval.api.instance import Instance
from tiny import (
    RecordingLlama,
    make_arguments,
    make_dataset,
    make_model,
    make_targets,
    make_trainer,
)
from torch.distributed.fsdp import fully_shard

from tikmix_hf import TikMixCallback, distributed
from tikmix_hf.harness import EvalCallback, Harness, SuiteScores, language_model
from tikmix_hf.harness.language_model import LiveModel, without_trace


def score(data_dir: Path, model: RecordingLlama | None = None, **settings: Any) -> SuiteScores:
    harness = Harness(benchmarks.SUITE, data_dir=data_dir, progress=False, **settings)
    return harness.score(model or make_model(), benchmarks.make_tokenizer())


def good(data_dir: Path) -> dict[str, Any]:
    """Scores of a fixed model, and every answer that they are made of."""
    found = score(data_dir, batch_size=3, keep_samples=True)
    return {
        "scores": found.scalars(),
        "questions": [own.num_questions for own in found.tasks],
        "prompts": [[q["arguments"] for q in own.samples] for own in found.tasks],
        "texts": [sample["filtered_resps"] for sample in found["triviaqa"].samples],
        "failures": found.failures,
    }


class _Raises(RecordingLlama):
    """Fails on rank 1 whatever it is asked, and on rank 0 never."""

    def forward(self, *args, **kwargs):
        if distributed.rank() == 1:
            raise RuntimeError("rank 1 lost its memory")
        return super().forward(*args, **kwargs)


def missing(folder: Path) -> None:
    (folder / "arc_easy" / "test.jsonl.gz").unlink()


def bad_row(folder: Path) -> None:
    rows = [{**benchmarks.piqa(number), "label": number % 3} for number in range(7)]
    benchmarks.write_rows(folder / "piqa" / "validation.jsonl", rows)


def other_rows(folder: Path) -> None:
    rows = [benchmarks.piqa(number) for number in range(10, 15)]
    benchmarks.write_rows(folder / "piqa" / "validation.jsonl", rows)


def spoilt(folder: Path, spoil: Callable[[Path], None]) -> dict[str, Any]:
    """What is reported where rank 1 alone has spoilt files, and that others are scored."""
    own = benchmarks.write(folder / spoil.__name__ / str(distributed.rank()))
    if distributed.rank() == 1:
        spoil(own)
    found = score(own)
    return {"failures": found.failures, "scores": found.scalars()}


def raised(folder: Path) -> str:
    """What stops every rank where one has no file and failures are to be raised."""
    try:
        score(folder / "missing" / str(distributed.rank()), raises=True)
    except Exception as err:
        return f"{type(err).__name__}: {err}"
    return "nothing"


def trained(folder: Path, data_dir: Path) -> dict[str, Any]:
    """A run with updates, evaluated as it goes."""
    dataset = make_dataset(num_samples=96)
    updates = TikMixCallback(
        dataset, targets=make_targets(), every_steps=2, num_rows=8, noise_guard=0, progress=False
    )
    harness = Harness(benchmarks.SUITE.only(["arc_easy"]), data_dir=data_dir, progress=False)
    callback = EvalCallback(
        harness, tokenizer=benchmarks.make_tokenizer(), every_steps=3, at_updates=True
    )
    arguments = make_arguments(folder, max_steps=4)
    make_trainer(dataset, updates, arguments, make_model(), [callback]).train()
    return {
        "world_size": arguments.world_size,
        "steps": [evaluation.step for evaluation in callback.evaluations],
        "scores": [evaluation.scores.scalars() for evaluation in callback.evaluations],
        "num_samples": [evaluation.progress.num_samples for evaluation in callback.evaluations],
    }


class _Counts(RecordingLlama):
    """Counts its forward passes."""

    num_passes = 0

    def forward(self, *args, **kwargs):
        self.num_passes += 1
        return super().forward(*args, **kwargs)


# Requests that cost the ranks unlike numbers of passes if each answers every second one.
UNLIKE = {
    # Rank 0 has the long texts, of five windows each.
    "loglikelihood_rolling": [("a" * 40,), ("b",)] * 3,
    # Rank 0 has one prompt three times, whose answers could share a pass.
    "loglikelihood": [("same", " ")] * 2 + [("same", "x"), ("one", "y"), ("same", "z")],
    # Rank 0 has one kind of request, rank 1 has two: batches are of one kind.
    "generate_until": [("abc", {"until": ["."], "max_gen_toks": most}) for most in (1, 1, 1, 2)],
}
# Rank 0's text ends before rank 1's.
ENDS_EARLY = [(prompt, {"until": ["\n"], "max_gen_toks": 8}) for prompt in ("Q:", "abc")]


def ask(model: RecordingLlama, kind: str, requests: list[tuple[Any, ...]]) -> list[Any]:
    live = LiveModel(model, benchmarks.make_tokenizer(), batch_size=1)
    asked = [
        Instance(request_type=kind, doc={}, arguments=own, idx=n) for n, own in enumerate(requests)
    ]
    with without_trace(model):
        return getattr(live, kind)(asked)


def decided(length: int) -> _Counts:
    """A model of so many positions that prefers some letters to others."""
    made = make_model(initializer_range=0.3, max_position_embeddings=length)
    model = _Counts(made.config)
    model.load_state_dict(made.state_dict())
    return model


def num_passes(kind: str, requests: list[tuple[Any, ...]], length: int) -> list[Any]:
    """Of this rank, and the length of each answer that is a text."""
    model = decided(length)
    with mock.patch.object(language_model, "is_sharded", return_value=True):
        answers = ask(model, kind, requests)
    return [model.num_passes, [len(text) for text in answers if isinstance(text, str)]]


def sharded(data_dir: Path) -> dict[str, Any]:
    """Answers and scores of a model, whole and where each rank holds half of it."""
    found = {}
    for shards in (False, True):
        model = decided(64)
        if shards:
            for layer in model.model.layers:
                fully_shard(layer)
            fully_shard(model)
        answers = {kind: ask(model, kind, requests) for kind, requests in UNLIKE.items()}
        harness = Harness(
            benchmarks.SUITE.only(["arc_easy"]), data_dir=data_dir, limit=3, progress=False
        )
        found["sharded" if shards else "whole"] = {
            **{kind: own for kind, own in answers.items() if kind != "generate_until"},
            "texts": answers["generate_until"] + ask(model, "generate_until", ENDS_EARLY),
            "scores": harness.score(model, benchmarks.make_tokenizer()).scalars(),
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    data_dir = folder / "data"
    told = {
        "trained": trained(folder / "run", data_dir),  # the Trainer opens the process group
        "good": good(data_dir),
        **{
            spoil.__name__: spoilt(folder / "spoilt", spoil)
            for spoil in (missing, bad_row, other_rows)
        },
        "raised": raised(folder / "spoilt"),
        "forward": score(data_dir, _Raises(make_model().config)).failures,
        "afterwards": good(data_dir),
        "passes": {
            **{kind: num_passes(kind, requests, 8) for kind, requests in UNLIKE.items()},
            "ends_early": num_passes("generate_until", ENDS_EARLY, 64),
        },
        "sharded": sharded(data_dir),
    }
    (folder / f"rank{distributed.rank()}.json").write_text(json.dumps(told))
    distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
