"""What measuring influence costs beyond plain forward and backward passes over the same batches.

    python eval/influence_overhead.py

A small Llama from its config and random tokens on the CPU, one thread. Two figures per
preconditioner, each beside a plain loop (`loss.backward()` into `.grad`, reset after each domain
and target):

* time: of `GroupInfluence.measure`, interleaved with the plain loop in one process; the ratio is of
  the least CPU times over repetitions, since whatever else runs on a machine only ever adds;
* memory: resident-set high-water mark of a child process of its own, less that of the plain loop's
  child, in units of one fp32 gradient. glibc's mmap threshold is pinned there, so that every large
  tensor goes back to the system when it dies and the mark follows live tensors.

Promised: time at most 1.10 times, memory at most 1.2 times (J + 1) gradients where the
preconditioner acts on the target side, 1.2 times (J + 2) where on the domain side. Writes JSON and
Markdown.
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

NUM_TARGETS, NUM_DOMAINS, NUM_MICROBATCHES = 5, 3, 2
BATCH_ROWS, ROW_TOKENS, VOCABULARY = 8, 128, 4096
PLAIN = "plain"
MAX_TIME_RATIO, MAX_MEMORY_RATIO = 1.10, 1.2

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


def run(name: str, model: LlamaForCausalLM, optimizer: torch.optim.Optimizer) -> None:
    """One measurement with the preconditioner `name`, or one plain pass over the same batches."""
    targets = batches("target", NUM_TARGETS, 0)
    domains = batches("domain", NUM_DOMAINS, 1000)
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
            run(name, model, optimizer)
            if repetition:
                seconds[name]["cpu"].append(time.process_time() - cpu)
                seconds[name]["wall"].append(time.perf_counter() - wall)
    return seconds


def high_water_bytes(name: str) -> int:
    """The largest resident set of a child process that does `run(name)` and nothing else."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, __file__, "--high-water-of", name],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return int(child.stdout)


def measure(repetitions: int) -> dict[str, Any]:
    """Everything that the report says."""
    names = [PLAIN, *preconditioners.available()]
    gradient_bytes = 4 * sum(p.numel() for p in build()[0].parameters())
    memory = {name: high_water_bytes(name) for name in names}
    seconds = times(names, repetitions)
    rows = []
    for name in names[1:]:
        allowed = NUM_TARGETS + (1 if preconditioners.load(name).side == "target" else 2)
        extra = (memory[name] - memory[PLAIN]) / gradient_bytes
        ratios = {
            "cpu": min(seconds[name]["cpu"]) / min(seconds[PLAIN]["cpu"]),
            "wall": statistics.median(seconds[name]["wall"])
            / statistics.median(seconds[PLAIN]["wall"]),
        }
        rows.append(
            {
                "preconditioner": name,
                "cpu_time_ratio": ratios["cpu"],
                "wall_time_ratio": ratios["wall"],
                "extra_gradients": extra,
                "promised_gradients": allowed,
                "memory_ratio": extra / allowed,
                "holds": ratios["cpu"] <= MAX_TIME_RATIO and extra / allowed <= MAX_MEMORY_RATIO,
            }
        )
    return {"rows": rows, "seconds": seconds, "high_water_bytes": memory} | circumstances(
        gradient_bytes // 4, repetitions
    )


def circumstances(num_parameters: int, repetitions: int) -> dict[str, Any]:
    """What one needs to know to repeat it."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "parameters": num_parameters,
        "targets": NUM_TARGETS,
        "domains": NUM_DOMAINS,
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
        f"`{result['command']}`: Llama of {result['parameters']:,} parameters, "
        f"{result['targets']} targets and {result['domains']} domains of "
        f"{result['microbatches_each']} microbatches of {result['tokens_per_microbatch']:,} random "
        f"tokens, {result['repetitions']} repetitions, {result['threads']} thread. "
        f"{result['hardware']}; {versions}.",
        "",
        "Time is relative to plain forward and backward passes over the same batches: least CPU "
        f"time (promised: at most {MAX_TIME_RATIO}) and median wall-clock, which the machine's "
        "other work disturbs; memory is resident-set high-water mark of a child process above "
        "that of the plain passes, in fp32 gradients (promised: at most "
        f"{MAX_MEMORY_RATIO} x the number in brackets).",
        "",
        "| preconditioner | CPU time | wall-clock | extra gradients | holds |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['preconditioner']}` | {row['cpu_time_ratio']:.3f} | {row['wall_time_ratio']:.3f} "
        f"| {row['extra_gradients']:.2f} ({row['promised_gradients']}) "
        f"| {'yes' if row['holds'] else 'no'} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=5, help="timed repetitions (default 5)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--high-water-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.high_water_of:
        run(arguments.high_water_of, *build())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    result = measure(arguments.repetitions)
    arguments.results.mkdir(parents=True, exist_ok=True)
    stem = arguments.results / "influence_overhead"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    stem.with_suffix(".md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
