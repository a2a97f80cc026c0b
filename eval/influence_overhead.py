"""What measuring influence costs beyond plain forward and backward passes over the same batches.

    python eval/influence_overhead.py

A small Llama from its config and random tokens on the CPU, one thread. Per preconditioner, beside a
plain loop (`loss.backward()` into `.grad`, reset after each domain and target):

* time: of an update of four rounds with one fit, as `TikMixCallback` measures by default, in one
  process beside the plain loop: the median over repetitions of the ratio to the plain loop just
  before. A round that fits and one that does not are timed, the latter counted three times;
* memory: resident-set high-water mark of a child process of its own, less that of the plain loop's
  child, in units of one fp32 gradient. glibc's mmap threshold is pinned there, so that every large
  tensor goes back to the system when it dies and the mark follows live tensors. Once with more
  domains than targets (targets are held), once with fewer (domains are held).

Promised: time at most 1.10 times for those without a state of their own, 1.5 times for `kfac`; for
`ggn` what its products cost. Memory within 10 % of what `tikmix_hf/signals/influence.py` states:
1.5 gradients for each target that is held, 1.5 for each domain (2 where the preconditioner is not
linear), and 1 more; for `kfac` what its docstring states besides. Writes JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from tikmix_hf.signals import GroupInfluence, preconditioners

# Which side is held -> targets, domains.
CASES = {"targets": (3, 5), "domains": (5, 3)}
NUM_MICROBATCHES, NUM_ROUNDS = 4, 4
BATCH_ROWS, ROW_TOKENS, VOCABULARY = 8, 128, 4096
PLAIN = "plain"
MAX_TIME_RATIOS = {"kfac": 1.5, "ggn": None}
MAX_TIME_RATIO, MAX_MEMORY_RATIO = 1.10, 1.10

Batches = dict[str, list[dict[str, torch.Tensor]]]


def build() -> tuple[LlamaForCausalLM, torch.optim.Optimizer]:
    """A model of some million parameters, and AdamW after one step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=False)
    model(**random_batch(10**6)).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def random_batch(seed: int) -> dict[str, torch.Tensor]:
    """BATCH_ROWS rows of ROW_TOKENS random tokens, all of them labels."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (BATCH_ROWS, ROW_TOKENS), generator=generator)
    return {"input_ids": ids, "labels": ids}


def batches(kind: str, count: int, first_seed: int) -> Batches:
    """`count` lists of microbatches, by name."""
    return {
        f"{kind} {i}": [
            random_batch(first_seed + NUM_MICROBATCHES * i + m) for m in range(NUM_MICROBATCHES)
        ]
        for i in range(count)
    }


def sides(held: str) -> tuple[Batches, Batches]:
    """The domains' and the targets' microbatches."""
    num_targets, num_domains = CASES[held]
    return batches("domain", num_domains, 1000), batches("target", num_targets, 0)


def run(name: str, held: str, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """One measurement with the preconditioner `name`, or one plain pass over the same batches."""
    domains, targets = sides(held)
    if name != PLAIN:
        GroupInfluence(model, preconditioner=name, optimizer=optimizer).measure(domains, targets)
        return
    for part in (*targets.values(), *domains.values()):
        for batch in part:
            model(**batch, use_cache=False).loss.backward()
        optimizer.zero_grad()


def time_ratios(name: str, repetitions: int) -> dict[str, list[float]]:
    """Time of an update's rounds over that of as many plain ones, {"cpu": [...], "wall": [...]}.

    After a warm-up. "fitting round" is the wall-clock ratio of a round with a fit of its own.
    """
    model, optimizer = build()
    domains, targets = sides("targets")
    engine = GroupInfluence(model, preconditioner=name, optimizer=optimizer)
    ratios: dict[str, list[float]] = {"cpu": [], "wall": [], "fitting round": []}
    for repetition in range(repetitions + 1):
        plain = timed(lambda: run(PLAIN, "targets", model, optimizer))
        fitting = timed(lambda: engine.measure(domains, targets))
        reads = engine.preconditioner.fit_passes(1, optimizer) > 0
        other = timed(lambda: engine.measure(domains, targets, refit=False)) if reads else fitting
        if repetition:
            update = (fitting + (NUM_ROUNDS - 1) * other) / NUM_ROUNDS
            for clock, ratio in zip(("cpu", "wall"), update / plain, strict=True):
                ratios[clock].append(float(ratio))
            ratios["fitting round"].append(float(fitting[1] / plain[1]))
    return ratios


def timed(work: Callable[[], Any]) -> np.ndarray:
    """Seconds of CPU and of wall-clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return np.array([time.process_time() - cpu, time.perf_counter() - wall])


def high_water_bytes(name: str, held: str) -> int:
    """The largest resident set of a child process that does `run` once and nothing else."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, __file__, "--high-water-of", name, held],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(child.stdout)


def measure(chosen: list[str], repetitions: int) -> dict[str, Any]:
    """Everything that the report says."""
    names = [PLAIN, *chosen]
    gradient_bytes = 4 * sum(p.numel() for p in build()[0].parameters())
    memory = {held: {name: high_water_bytes(name, held) for name in names} for held in CASES}
    rows = []
    for name in names[1:]:
        ratios = time_ratios(name, repetitions)
        most = MAX_TIME_RATIOS.get(name, MAX_TIME_RATIO)
        row: dict[str, Any] = {
            "preconditioner": name,
            "cpu_time_ratio": statistics.median(ratios["cpu"]),
            "wall_time_ratio": statistics.median(ratios["wall"]),
            "fitting_round_ratio": statistics.median(ratios["fitting round"]),
            "promised_time_ratio": most,
            "repetitions": ratios,
        }
        holds = most is None or row["wall_time_ratio"] <= most
        for held in CASES:
            extra = (memory[held][name] - memory[held][PLAIN]) / gradient_bytes
            promised = promised_gradients(name, held)
            row[f"extra_gradients_{held}_held"] = extra
            row[f"promised_gradients_{held}_held"] = promised
            holds = holds and (promised is None or extra <= MAX_MEMORY_RATIO * promised)
        rows.append(row | {"holds": holds})
    return {"rows": rows, "high_water_bytes": memory} | circumstances(
        gradient_bytes // 4, repetitions
    )


def promised_gradients(name: str, held: str) -> float | None:
    """What `tikmix_hf/signals/influence.py` states."""
    if name == "ggn":
        return None
    each = 2.0 if held == "domains" and preconditioners.load(name).side == "domain" else 1.5
    gradients = each * min(CASES[held]) + 1
    return gradients + kfac_gradients() if name == "kfac" else gradients


def kfac_gradients() -> float:
    """2 (I^2 + O^2 + I O) over the Linear layers; the tied head is an embedding."""
    model = build()[0]
    sides = [m.weight.shape for m in model.modules() if isinstance(m, torch.nn.Linear)]
    numbers = sum(2 * (i * i + o * o + i * o) for o, i in sides if VOCABULARY not in (o, i))
    return numbers / sum(parameter.numel() for parameter in model.parameters())


def circumstances(num_parameters: int, repetitions: int) -> dict[str, Any]:
    """What one needs to know to repeat it."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "parameters": num_parameters,
        "targets_and_domains": CASES,
        "microbatches_each": NUM_MICROBATCHES,
        "tokens_per_microbatch": BATCH_ROWS * ROW_TOKENS,
        "repetitions": repetitions,
        "threads": torch.get_num_threads(),
        "hardware": processor(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def processor() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def markdown(result: dict[str, Any]) -> str:
    """The report for readers."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [
        "# What measuring influence costs",
        "",
        f"`{result['command']}`: Llama of {result['parameters']:,} parameters, targets and domains "
        f"{result['targets_and_domains']} of {result['microbatches_each']} microbatches of "
        f"{result['tokens_per_microbatch']:,} random tokens, {result['repetitions']} repetitions, "
        f"{result['threads']} thread. {result['hardware']}; {versions}.",
        "",
        f"Time is that of {NUM_ROUNDS} rounds with one fit, relative to plain forward and backward "
        "passes over the same batches, median over repetitions: wall-clock (what is promised in "
        "brackets), CPU time, and wall-clock of a round with a fit of its own. Memory is the "
        "resident-set high-water mark of a child process above that of the plain passes, in fp32 "
        f"gradients (what is promised in brackets; it holds within {MAX_MEMORY_RATIO - 1:.0%}).",
        "",
        "| preconditioner | wall-clock | CPU time | one round, fitted | gradients, targets held "
        "| gradients, domains held | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        memory = [
            f"{row[f'extra_gradients_{held}_held']:.2f} "
            f"({_or_dash(row[f'promised_gradients_{held}_held'])})"
            for held in CASES
        ]
        lines.append(
            f"| `{row['preconditioner']}` | {row['wall_time_ratio']:.3f} "
            f"({_or_dash(row['promised_time_ratio'])}) | {row['cpu_time_ratio']:.3f} "
            f"| {row['fitting_round_ratio']:.3f} "
            f"| {memory[0]} | {memory[1]} | {'yes' if row['holds'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _or_dash(promised: float | None) -> str:
    return "-" if promised is None else f"{promised:g}"


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5, help="timed repetitions (default 5)")
    # ggn takes minutes a measurement, and nothing is promised of it.
    cheap = [name for name in preconditioners.available() if name != "ggn"]
    parser.add_argument(
        "--names", nargs="+", default=cheap, choices=preconditioners.available(), metavar="NAME"
    )
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--high-water-of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.high_water_of:
        name, held = arguments.high_water_of
        run(name, held, *build())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    result = measure(arguments.names, arguments.repetitions)
    arguments.results.mkdir(parents=True, exist_ok=True)
    stem = arguments.results / "influence_overhead"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
