"""DataLoader throughput against `datasets.interleave_datasets` over the same Arrow files.

    python eval/loader_throughput.py

Eight domains of packed blocks of 1,024 tokens lie on disk as Arrow files. Each loader reads them in
a process of its own (allocators remember), batch 16; rounds alternate between loaders, so that they
share whatever else the machine does. Printed are tokens per second and ratios to map-style
`interleave_datasets` in torch format with `default_data_collator`; results go to `eval/results/`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from provenance import save_result

NUM_DOMAINS, BLOCK, BATCH = 8, 1024, 16
LOADERS = {
    "interleave_datasets": "default_data_collator",
    "tikmix_default": "default_data_collator",
    "tikmix_packed": "PackedCollator",
}
GOALS = {  # (loader, workers): least ratio to interleave_datasets with as many workers
    ("tikmix_default", 0): 2.0,
    ("tikmix_packed", 0): 5.0,
    ("tikmix_packed", 2): 1.5,
}


def write_domains(folder: Path, rows: int) -> None:
    """Writes the Arrow files that all loaders read."""
    from datasets import Dataset, Features, Sequence, Value

    rng = np.random.default_rng(0)
    features = Features({"input_ids": Sequence(Value("int32"))})
    for k in range(NUM_DOMAINS):
        blocks = rng.integers(0, 32_000, (rows, BLOCK), dtype=np.int32)
        Dataset.from_dict({"input_ids": list(blocks)}, features=features).save_to_disk(
            str(folder / f"d{k}")
        )


def tokens_per_second(folder: Path, loader: str, workers: int, batches: int) -> float:
    """Reads `batches` batches after a few to warm up."""
    from datasets import Dataset, interleave_datasets
    from torch.utils.data import DataLoader
    from transformers import default_data_collator

    from tikmix_hf import Domains, InterleavedDomainDataset, PackedCollator

    parts = {f"d{k}": Dataset.load_from_disk(str(folder / f"d{k}")) for k in range(NUM_DOMAINS)}
    if loader == "interleave_datasets":
        mixture = [1 / NUM_DOMAINS] * NUM_DOMAINS
        data = interleave_datasets(list(parts.values()), probabilities=mixture, seed=0)
        data, collate = data.with_format("torch"), default_data_collator
    else:
        heldout = {name: part.select(range(1)) for name, part in parts.items()}
        domains = Domains.from_datasets(parts, heldout=heldout)
        data = InterleavedDomainDataset(domains, "uniform", num_samples=10**9)
        collate = PackedCollator() if loader == "tikmix_packed" else default_data_collator
    warm_up = 4 + 4 * workers
    iterator = iter(
        DataLoader(cast(Any, data), batch_size=BATCH, num_workers=workers, collate_fn=collate)
    )
    for _ in range(warm_up):
        next(iterator)
    started = time.perf_counter()
    for _ in range(batches):
        batch = next(iterator)
        assert batch["input_ids"].shape == (BATCH, BLOCK)
    return batches * BATCH * BLOCK / (time.perf_counter() - started)


def measure(folder: Path, args: argparse.Namespace) -> list[dict]:
    """Measures every loader in fresh processes, `rounds` times in turn."""
    speeds: dict[tuple[str, int], list[float]] = {}
    for workers in (0, 2):
        for _ in range(args.rounds):
            for loader in LOADERS:
                words = [
                    "--child",
                    str(folder),
                    loader,
                    str(workers),
                    "--batches",
                    str(args.batches),
                ]
                done = subprocess.run(
                    [sys.executable, __file__, *words], capture_output=True, text=True, check=True
                )
                speeds.setdefault((loader, workers), []).append(json.loads(done.stdout))
    rows = []
    for (loader, workers), own in speeds.items():
        base = speeds["interleave_datasets", workers]
        ratios = [mine / theirs for mine, theirs in zip(own, base, strict=True)]
        rows.append(
            {
                "loader": loader,
                "collator": LOADERS[loader],
                "workers": workers,
                "million_tokens_per_second": round(statistics.median(own) / 1e6, 2),
                "ratio": round(statistics.median(ratios), 2),
                "least": round(min(ratios), 2),
                "goal": GOALS.get((loader, workers)),
            }
        )
    return rows


def main() -> None:
    """Measures, prints a table and files it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per loader")
    parser.add_argument("--batches", type=int, default=1500, help="batches timed in each")
    parser.add_argument("--rows", type=int, default=4000, help="blocks per domain")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        folder, loader, workers = args.child
        print(tokens_per_second(Path(folder), loader, int(workers), args.batches))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_domains(Path(folder), args.rows)
        rows = measure(Path(folder), args)
    save_result(
        "loader_throughput",
        title="DataLoader throughput",
        rows=rows,
        settings={name: value for name, value in vars(args).items() if name != "child"},
        notes="Ratio: median over rounds to interleave_datasets with as many workers.",
    )


if __name__ == "__main__":
    main()
