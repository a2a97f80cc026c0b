"""A run with the default budget: what it costs, and whether ten times the budget says otherwise.

    python eval/default_run.py

A small Llama is trained on the embedded corpora with `TikMixCallback(train, targets=...)` and
nothing else set, so that `budget=0.01` decides how often and how much is measured. After each
update the same model is measured once more on ten times the rows, on other text. Reported are the
share of tokens and of time that the updates took, and Kendall's tau between the rankings of the
domains: by their gain over the mixture in force, averaged over targets each in its own scale, and
within each target. A second pair of measurements of ten times the rows tells how far such rankings
can agree at all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from typing import Any

import fidelity_text
import numpy as np
import torch
from fidelity_text import Text
from fidelity_truth import SIZES
from provenance import save_result
from ranking import NUM_ROUNDS, TIMES, tau
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from tikmix_hf import (
    GroupInfluence,
    InfluenceMatrix,
    InterleavedDomainDataset,
    PackedCollator,
    TikMixCallback,
    corpora,
)

BATCH_ROWS, LEARNING_RATE = 16, 1e-3


class Compare(TrainerCallback):
    """Measures again, with more rows, after each update of a TikMixCallback before it."""

    def __init__(self, callback: TikMixCallback, text: Text) -> None:
        self.callback, self.text = callback, text
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Compares the update of this step, if there was one."""
        if len(self.callback.updates) == len(self.rows):
            return
        started = time.perf_counter()
        record, plan = self.callback.updates[-1], self.callback.plan
        assert plan is not None
        matrix = record.influence
        row: dict[str, Any] = {"step": state.global_step}
        if matrix is not None:
            more = [self.measure(kwargs["model"], TIMES * plan.num_rows, n) for n in range(2)]
            own, ceiling = (tau(first, more[1], record.mixture) for first in (matrix, more[0]))
            row |= {
                "rows": plan.num_rows,
                "rounds": record.num_rounds,
                "tau against 10 x": round(own["overall"], 3),
                "ceiling": round(ceiling["overall"], 3),
                "tau, single targets": round(own["single targets"], 3),
                "ceiling, single targets": round(ceiling["single targets"], 3),
            }
        row |= {
            "tokens": record.num_tokens,
            "planned tokens": record.planned_tokens,
            "seconds": round(record.seconds, 2),
            "planned seconds": round(record.planned_seconds or np.nan, 2),
            "audit": None if record.audit is None else record.audit.to_dict().get("spearman"),
        }
        self.rows.append(row)
        self.seconds += time.perf_counter() - started

    def measure(self, model: LlamaForCausalLM, num_rows: int, part: int) -> InfluenceMatrix:
        """`num_rows` rows of each domain and target, in as many rounds as an update has."""
        share = num_rows // NUM_ROUNDS
        pools = {**self.text.domain_pools, **self.text.target_pools}
        # A pool that is too short for two parts gives each of them what it has.
        halves = {
            name: rows_NT[part::2].repeat(-(-2 * num_rows // len(rows_NT)), 1)[:num_rows]
            for name, rows_NT in pools.items()
        }
        rounds = []
        for r in range(NUM_ROUNDS):
            batches = {
                name: fidelity_text.batches(rows_NT[r * share : (r + 1) * share])
                for name, rows_NT in halves.items()
            }
            domains = {name: batches[name] for name in self.text.domain_pools}
            targets = {name: batches[name] for name in self.text.target_pools}
            rounds.append(GroupInfluence(model).measure(domains, targets))
        return InfluenceMatrix.mean(rounds)


def main() -> None:
    """Trains, compares and files the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    corpus, text = corpora.load(), fidelity_text.load()
    set_seed(arguments.seed)
    config = LlamaConfig(
        vocab_size=len(corpus.tokenizer),
        num_attention_heads=4,
        tie_word_embeddings=True,
        **SIZES["small"],
    )
    train = InterleavedDomainDataset(
        corpus.domains, "uniform", num_samples=arguments.steps * BATCH_ROWS, seed=arguments.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        callback = TikMixCallback(train, targets=corpus.targets, output_dir=folder)
        compare = Compare(callback, text)
        settings = TrainingArguments(
            folder,
            max_steps=arguments.steps,
            per_device_train_batch_size=BATCH_ROWS,
            learning_rate=LEARNING_RATE,
            warmup_steps=50,
            use_cpu=True,
            dataloader_pin_memory=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1000,
            seed=arguments.seed,
        )
        started = time.perf_counter()
        Trainer(
            LlamaForCausalLM(config),
            settings,
            train_dataset=train,
            data_collator=PackedCollator(),
            callbacks=[callback, compare],
        ).train()
        seconds = time.perf_counter() - started - compare.seconds
    own = sum(record.seconds for record in callback.updates)
    tokens = sum(record.num_tokens for record in callback.updates)
    trained = int(train.tokens_between(0, train.num_samples).sum())
    save_result(
        "default_run",
        title="A run with the default budget of 1 % of its tokens",
        rows=compare.rows,
        settings={"steps": arguments.steps, "seed": arguments.seed, "batch": BATCH_ROWS},
        notes=f"{trained:,} tokens trained, {tokens:,} measured: {tokens / trained:.2%} of the "
        f"tokens and {own / seconds:.2%} of the time ({own:.1f} of {seconds:.0f} s). Tau is "
        "Kendall's, between the rankings of the 8 domains; `ceiling` is between two measurements "
        f"of {TIMES} x the rows on other text.",
    )


if __name__ == "__main__":
    main()
