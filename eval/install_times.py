"""How long imports and the command line take where the wheel alone is installed, without extras.

    python eval/install_times.py --environment build/empty [--constraint constraints.txt]

A wheel is built (`pip install build`) and installed with pip into an environment that is made for
it, or was on an earlier call. Then each command starts a Python of its own, once to warm the disk's
cache, then in turns with the others; seconds are of the wall clock. `import transformers` alone is
lazy, so what a training script takes from it stands beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from provenance import save_result

REPOSITORY = Path(__file__).parents[1]
PUBLIC = "import tikmix_hf; [getattr(tikmix_hf, name) for name in tikmix_hf.__all__]"
TRAINER = "from transformers import Trainer, TrainerCallback, TrainingArguments"
IMPORTS = {
    "import transformers": "import transformers",
    "import transformers, tikmix_hf": "import transformers, tikmix_hf",
    TRAINER: TRAINER,
    f"{TRAINER}; all public names of tikmix_hf": f"{TRAINER}; {PUBLIC}",
}
GOALS = {"beyond import transformers": 1.5, "beyond the Trainer": 1.5, "tikmix --help": 1.0}


def main() -> None:
    """Installs, measures and saves the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--constraint", type=Path, help="versions to install, as pip reads them")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    commands = install(options.environment, options.constraint)
    calls = {name: [str(commands / "python"), "-c", code] for name, code in IMPORTS.items()}
    calls["tikmix --help"] = [str(commands / "tikmix"), "--help"]
    seconds = {name: [] for name in calls}
    for number in range(options.rounds + 1):
        for name, call in calls.items():
            taken = timed(call)
            if number:  # the first one reads the disk
                seconds[name].append(taken)
    rows = [
        {
            "what": name,
            "median seconds": round(statistics.median(taken), 2),
            "longest": round(max(taken), 2),
        }
        for name, taken in seconds.items()
    ]
    save_result(
        "install_times",
        title="Imports and the command line of an installed wheel without extras",
        rows=rows,
        settings={"rounds": options.rounds},
        notes=verdict({row["what"]: float(row["median seconds"]) for row in rows}),
        packages=("torch", "transformers", "accelerate", "datasets"),
    )


def install(environment: Path, constraint: Path | None) -> Path:
    """Builds the wheel and installs it; returns the environment's folder of commands."""
    commands = environment.absolute() / ("Scripts" if os.name == "nt" else "bin")
    if not environment.exists():
        venv.create(environment, with_pip=True)
    with tempfile.TemporaryDirectory() as out:
        build = [sys.executable, "-m", "build", "--wheel", "--outdir", out, str(REPOSITORY)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(out).glob("*.whl")
        pip = [str(commands / "python"), "-m", "pip", "install", "--quiet"]
        limits = [] if constraint is None else ["--constraint", str(constraint)]
        subprocess.run([*pip, *limits, str(wheel)], check=True)
        subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
    return commands


def timed(call: list[str]) -> float:
    """Seconds of a command that must succeed, in a folder that has no package in it."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(call, check=True, cwd=folder, env=variables, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started


def verdict(medians: dict[str, float]) -> str:
    """What was promised beside what came out."""
    bare, with_ours, trainer, everything, command = medians.values()
    came_out = dict(zip(GOALS, (with_ours - bare, everything - trainer, command), strict=True))
    told = (
        f"{what}: {came_out[what]:.2f} s (promised: at most {goal:.1f})"
        for what, goal in GOALS.items()
    )
    kept = all(came_out[what] <= goal for what, goal in GOALS.items())
    return f"**Verdict: {'kept' if kept else 'missed'}.** " + "; ".join(told) + "."


if __name__ == "__main__":
    main()
