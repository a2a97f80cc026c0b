"""The quickstart over several seeds: target losses of the dynamic run and of its static control.

    python eval/quickstart_seeds.py --seeds 0 1 2

Each seed is one run of `recipes/quickstart.yaml`, which trains twice: with the mixer, and with the
uniform mixture it starts from; model, text, order of rows and number of tokens are the same. A seed
that has its `metrics.json` is not run again. Differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from provenance import save_result
from scipy import stats

ROOT = Path(__file__).parent.parent


def run(seed: int, folder: Path) -> dict:
    """Runs the quickstart with a seed, or reads what it left."""
    if not (folder / "metrics.json").exists():
        started = time.perf_counter()
        words = ["--config", str(ROOT / "recipes/quickstart.yaml"), "--seed", str(seed)]
        subprocess.run(
            [
                *(sys.executable, "-m", "accelerate.commands.launch"),
                *(str(ROOT / "recipes/pretrain.py"), *words, "--output_dir", str(folder)),
            ],
            check=True,
        )
        (folder / "seconds.json").write_text(json.dumps(time.perf_counter() - started))
    metrics = json.loads((folder / "metrics.json").read_text())
    return {**metrics, "seconds": json.loads((folder / "seconds.json").read_text())}


def main() -> None:
    """Runs all seeds, prints the table and files it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "seeds")
    args = parser.parse_args()
    results = {seed: run(seed, args.folder / f"seed{seed}") for seed in args.seeds}
    first = next(iter(results.values()))["runs"]
    dynamic, static = first
    rows = []
    for target in [*first[dynamic]["losses"], "mean"]:
        losses = {
            label: np.array([_loss(result["runs"][label], target) for result in results.values()])
            for label in (dynamic, static)
        }
        gaps = losses[dynamic] - losses[static]
        half = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps))
        rows.append(
            {
                "target": target,
                dynamic: round(losses[dynamic].mean(), 4),
                static: round(losses[static].mean(), 4),
                "difference": round(gaps.mean(), 4),
                "95 % interval": f"{gaps.mean() - half:+.4f} ... {gaps.mean() + half:+.4f}",
                "by seed": " ".join(f"{gap:+.4f}" for gap in gaps),
            }
        )
    seconds = ", ".join(f"{result['seconds']:.0f}" for result in results.values())
    save_result(
        "quickstart_seeds",
        title="Quickstart: loss on targets, nats per token, mean over seeds",
        rows=rows,
        settings={"seeds": args.seeds},
        notes=f"Negative differences: {dynamic} is lower. Intervals are of the paired difference "
        f"(Student t, {len(results)} seeds). Whole runs, both mixers and set-up of the text "
        f"included: {seconds} seconds.",
    )


def _loss(run: dict, target: str) -> float:
    return run["mean_loss"] if target == "mean" else run["losses"][target]


if __name__ == "__main__":
    main()
