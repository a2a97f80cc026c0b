"""What measuring influence costs beyond plain forward and backward passes over the same batches.

    python eval/influence_overhead.py

A small Llama from its config and random tokens on the CPU, one thread. Per preconditioner, beside a
plain loop (`loss.backward()` into `.grad`, reset after each domain and target):

* time: of `GroupInfluence.measure`, interleaved with the plain loop in one process; the ratio is of
  the least CPU times over repetitions, since whatever else runs on a machine only ever adds;
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
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from tikmix_hf.signals import GroupInfluence, preconditioners

# Which side is held -> targets, domains.
CASES = {"targets": (3, 5), "domains": (5, 3)}
NUM_MICROBATCHES = 4
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


def run(name: str, held: str, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """One measurement with the preconditioner `name`, or one plain pass over the same batches."""
    num_targets, num_domains = CASES[held]
    targets = batches("target", num_targets, 0)
    domains = batches("domain", num_domains, 1000)
    if name != PLAIN:
        GroupInfluence(model, preconditioner=name, optimizer=optimizer).measure(domains, targets)
        return
    for part in (*targets.values(), *domains.values()):
        for batch in part:
            model(**batch, use_cache=False).loss.backward()
        optimizer.zero_grad()


def times(names: list[str], repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each repetition, {name: {"cpu": [...], "wall": [...]}}, after one warm-up."""
    model, optimizer = build()
    seconds: dict[str, dict[str, list[float]]] = {name: {"cpu": [], "wall": []} for name in names}
    for repetition in range(repetitions + 1):
        for name in names:
            cpu, wall = time.process_time(), time.perf_counter()
            run(name, "targets", model, optimizer)
            if repetition:
                seconds[name]["cpu"].append(time.process_time() - cpu)
                seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


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
    seconds = times(names, repetitions)
    rows = []
    for name in names[1:]:
        cpu = min(seconds[name]["cpu"]) / min(seconds[PLAIN]["cpu"])
        most = MAX_TIME_RATIOS.get(name, MAX_TIME_RATIO)
        row: dict[str, Any] = {
            "preconditioner": name,
            "cpu_time_ratio": cpu,
            "wall_time_ratio": statistics.median(seconds[name]["wall"])
            / statistics.median(seconds[PLAIN]["wall"]),
            "promised_time_ratio": most,
        }
        holds = most is None or cpu <= most
        for held in CASES:
            extra = (memory[held][name] - memory[held][PLAIN]) / gradient_bytes
            promised = promised_gradients(name, held)
            row[f"extra_gradients_{held}_held"] = extra
            row[f"promised_gradients_{held}_held"] = promised
            holds = holds and (promised is None or extra <= MAX_MEMORY_RATIO * promised)
        rows.append(row | {"holds": holds})
    return {"rows": rows, "seconds": seconds, "high_water_bytes": memory} | circumstances(
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
        "Time is relative to plain forward and backward passes over the same batches: least CPU "
        "time (what is promised in brackets) and median wall-clock, which the machine's other work "
        "disturbs. Memory is the resident-set high-water mark of a child process above that of the "
        "plain passes, in fp32 gradients (what is promised in brackets; it holds within "
        f"{MAX_MEMORY_RATIO - 1:.0%}).",
        "",
        "| preconditioner | CPU time | wall-clock | gradients, targets held "
        "| gradients, domains held | holds |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        memory = [
            f"{row[f'extra_gradients_{held}_held']:.2f} "
            f"({_or_dash(row[f'promised_gradients_{held}_held'])})"
            for held in CASES
        ]
        lines.append(
            f"| `{row['preconditioner']}` | {row['cpu_time_ratio']:.3f} "
            f"({_or_dash(row['promised_time_ratio'])}) | {row['wall_time_ratio']:.3f} "
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
