"""The whole loop, setting by setting: what the target losses are at the end, paired by seed.

    python eval/whole_loop.py --size small --seeds 0 1 2
    python eval/whole_loop.py --size quickstart --settings sign "sign, centred"

Every run trains a small Llama on the embedded corpora from the same initialisation, with
the same seed, batch and number of tokens; only how the mixture is chosen differs. Losses are of the
targets' own held-out rows, which no run measures. A run that has its file is not run again, so that
settings may be added later and runs shared out over processes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fidelity_truth import SIZES
from provenance import save_result
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from tikmix_hf import InterleavedDomainDataset, PackedCollator, TikMixCallback, corpora, mixers
from tikmix_hf.files import write_json

STEPS, BATCH_ROWS, LEARNING_RATE = 400, 16, 2e-3
EVERY_STEPS, NUM_ROWS = 50, 32
JUDGED_ROWS = 256
CONTROL = "static"
# What each run gives TikMixCallback; `mixer_settings` go to TiKMiX-D.
SETTINGS: dict[str, dict[str, Any]] = {
    CONTROL: {"mixer": "static"},
    "sign": {"preconditioner": "sign"},
    "sign, no guard": {"preconditioner": "sign", "noise_guard": 0.0},
    "sign, centred": {"preconditioner": "sign", "mixer_settings": {"centred": True}},
    "adam_unit": {"preconditioner": "adam_unit"},
    "adam": {"preconditioner": "adam"},
    "identity": {"preconditioner": "identity"},
    "kfac": {"preconditioner": "kfac"},
    "kfac, centred": {"preconditioner": "kfac", "mixer_settings": {"centred": True}},
    "kfac, no guard": {"preconditioner": "kfac", "noise_guard": 0.0},
    "ggn": {"preconditioner": "ggn"},
}


def run(size: str, setting: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains one run, or reads what it left."""
    path = folder / "result.json"
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    started = time.perf_counter()
    text = corpora.load(block_size=128, vocab_size=2048, seed=seed)
    set_seed(seed)
    config = LlamaConfig(
        vocab_size=len(text.tokenizer),
        num_attention_heads=4,
        tie_word_embeddings=True,
        **SIZES[size],
    )
    model = LlamaForCausalLM(config)
    train = InterleavedDomainDataset(
        text.domains, "uniform", num_samples=STEPS * BATCH_ROWS, seed=seed
    )
    choices = dict(SETTINGS[setting])
    mixer = mixers.load(choices.pop("mixer", "tikmix_d"))(**choices.pop("mixer_settings", {}))
    callback = TikMixCallback(
        train,
        targets=text.targets,
        mixer=mixer,
        every_steps=EVERY_STEPS,
        num_rows=NUM_ROWS,
        progress=False,
        **choices,
    )
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH_ROWS,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=25,
        weight_decay=0.1,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        logging_steps=STEPS,
        disable_tqdm=True,
        seed=seed,
    )
    Trainer(
        model,
        arguments,
        train_dataset=train,
        data_collator=PackedCollator(),
        callbacks=[callback],
    ).train()
    model.eval()
    result = {
        "losses": {name: loss(model, rows) for name, rows in text.target_evals.items()},
        "mixtures": [segment.mixture.tolist() for segment in train.schedule.segments],
        "notes": [list(update.notes) for update in callback.updates],
        "seconds": time.perf_counter() - started,
    }
    write_json(path, result)
    return result


@torch.no_grad()
def loss(model: LlamaForCausalLM, rows: Any) -> float:
    """Nats per token over the first JUDGED_ROWS packed rows."""
    blocks = torch.tensor(rows[:JUDGED_ROWS]["input_ids"])
    sums = [float(model(input_ids=b, labels=b).loss) * len(b) for b in blocks.split(64)]
    return sum(sums) / len(blocks)


def table(results: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row per setting: mean loss over targets and seeds, and its paired gap to the control."""
    means = {
        setting: np.array([np.mean(list(run["losses"].values())) for run in runs])
        for setting, runs in results.items()
    }
    rows = []
    for setting, runs in results.items():
        gaps = means[setting] - means[CONTROL]
        error = gaps.std(ddof=1) / np.sqrt(len(gaps)) if len(gaps) > 1 else np.nan
        half = stats.t.ppf(0.975, max(len(gaps) - 1, 1)) * error
        worst = [
            max(run["losses"][name] - control["losses"][name] for name in run["losses"])
            for run, control in zip(runs, results[CONTROL], strict=True)
        ]
        moved = [
            np.mean(
                [
                    np.abs(np.subtract(a, b)).sum() / 2
                    for a, b in itertools.pairwise(run["mixtures"])
                ]
                or [0]
            )
            for run in runs
        ]
        is_control = setting == CONTROL
        rows.append(
            {
                "setting": setting,
                "mean target loss": f"{means[setting].mean():.4f}",
                "against static": None if is_control else f"{gaps.mean():+.4f}",
                "95 % interval": None
                if is_control
                else f"{gaps.mean() - half:+.4f} ... {gaps.mean() + half:+.4f}",
                "by seed": " ".join(f"{gap:+.4f}" for gap in gaps),
                "worst target": None if is_control else f"{np.mean(worst):+.3f}",
                "moved per change": f"{np.mean(moved):.3f}",
            }
        )
    return rows


def main() -> None:
    """Runs what is missing, prints the table and files it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", default="small", choices=list(SIZES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path, default=Path("runs/whole_loop"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    chosen = [CONTROL, *(setting for setting in arguments.settings if setting != CONTROL)]
    results: dict[str, list[dict[str, Any]]] = {setting: [] for setting in chosen}
    for seed in arguments.seeds:
        for setting in chosen:
            name = setting.replace(", ", "_").replace(" ", "_")
            folder = arguments.folder / f"{arguments.size}-{name}-{seed}"
            results[setting].append(run(arguments.size, setting, seed, folder))
            print(folder, f"{results[setting][-1]['seconds']:.0f} s", flush=True)
    save_result(
        f"whole_loop_{arguments.size}",
        title=f"The whole loop, model {arguments.size!r}: mean target loss at the end, nats per "
        "token",
        rows=table(results),
        settings={
            "size": arguments.size,
            "seeds": arguments.seeds,
            "settings": {s: SETTINGS[s] for s in chosen},
        },
        notes=f"Llama {SIZES[arguments.size]}, {STEPS} steps of {BATCH_ROWS} x 128 tokens, "
        f"updates every {EVERY_STEPS} steps from {NUM_ROWS} rows of each domain and target in four "
        "rounds, uniform at first. Negative: lower than with the mixture that never changes. "
        "Intervals are of the difference paired by seed (Student t). `worst target`: the largest "
        "loss of a single target against the control, mean over seeds; `moved per change`: total "
        "variation from one mixture to the next.",
    )


if __name__ == "__main__":
    main()
