"""What came of an arena: tables, verdicts on the project's goals, a picture.

    python eval/report_arena.py --config eval/arena_small.yaml

In: the runs that `eval/arena.py` left, the `_runs.jsonl` of a report, of which the same tables come
out again, or both, so that seeds can be added on another machine. Out, in `eval/results/`: NAME.md,
NAME.json, NAME.png and NAME_runs.jsonl, all runs with one line each.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import arena_config
import arena_figures
import numpy as np
from arena_config import Arena
from arena_statistics import (
    CONTROL,
    TOKENS_GOAL,
    Record,
    Row,
    Runs,
    Verdict,
    group,
    row,
    verdicts,
)
from provenance import PACKAGES, RESULTS, provenance

from tikmix_hf.files import write_json, write_text

HERE = Path(__file__).parent
NOT_KEPT = ("settings", "versions", "date")
NOTES = (
    f"Bits per byte of the targets' judged text, which no mixer reads, of the mean of "
    "the weights over the last steps, because the learning rate does not decay. Differences are to "
    f"{CONTROL}, paired by seed, with 95 % intervals (Student t); negative: lower. *Tokens to "
    f"reach*: share of the run's tokens after which {CONTROL}'s final loss is reached, on curves "
    "smoothed over three points; `-`: not with every seed. *Off-target*: share of all tokens, and "
    "of the last mixture, on the domain that no target is like. *Cost*: seconds and FLOPs of "
    "choosing for each of training, runs that the choice rests on among them (proxies of regmix "
    "and best_single, the reference model of doremi, the whole run that final_static and "
    "schedule_shuffled repeat). Judging is no cost. Benchmarks: the right answer's bits per byte "
    "and, in brackets, the accuracy of the choice with the fewest; by chance it is 25 % of ARC "
    "and 50 % of PIQA."
)


def read_runs(folder: Path) -> list[Record]:
    """Reads all finished runs below a folder."""
    records = []
    for path in sorted(folder.glob("*/*.json")):
        record = json.loads(path.read_text("utf-8"))
        if "entry" in record:
            settings = record["settings"]
            plain = json.dumps(settings, sort_keys=True).encode()
            digest = hashlib.sha256(plain).hexdigest()[:16]
            records.append({**record, "entry_settings": settings["entry"], "digest": digest})
    return records


def read_lines(path: Path) -> list[Record]:
    """Reads a report's `_runs.jsonl`."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def merged(older: Sequence[Record], newer: Sequence[Record]) -> list[Record]:
    """All runs, of those that are in both the newer ones.

    Raises:
        ValueError: an entry with other settings in the two; says which.
    """
    runs: dict[tuple[str, str, int], Record] = {}
    digests: dict[tuple[str, str], str] = {}
    for record in (*older, *newer):
        regime, entry = record["regime"], record["entry"]
        if digests.setdefault((regime, entry), record["digest"]) != record["digest"]:
            raise ValueError(
                f"`--runs` and `--folder` must hold runs of the same settings; those of {entry} "
                f"in {regime} differ. Report them by themselves."
            )
        runs[regime, entry, record["seed"]] = record
    return list(runs.values())


def rows_of(runs: Runs, off_target: str | None) -> list[Row]:
    """A row for each entry that has a seed in common with the control, the lowest loss first."""
    if CONTROL not in runs:
        raise ValueError(f"`--folder` has no run of {CONTROL!r}, with which others are compared.")
    common = [entry for entry in runs if set(runs[entry]) & set(runs[CONTROL])]
    return sorted((row(runs, entry, off_target) for entry in common), key=lambda own: own.gap.mean)


def loss_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The table of a regime."""
    return [
        {
            "entry": own.entry,
            "bits per byte": f"{own.loss:.4f}",
            f"less {CONTROL} (95 % interval)": "" if own.entry == CONTROL else str(own.gap),
            "by seed": " ".join(f"{gap:+.4f}" for gap in own.gaps),
            "tokens to reach": _reached(own),
            "off-target": f"{own.off_target:.1%}, {own.final_off_target:.1%}",
            "cost in seconds": f"{own.seconds_share:.1%}",
            "cost in FLOPs": f"{own.flops_share:.1%}",
        }
        for own in rows
    ]


def target_table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Differences by target, and benchmarks."""
    return [
        {
            "entry": own.entry,
            **{target: f"{gap:+.4f}" for target, gap in own.target_gaps.items()},
            **{
                f"{name} benchmark": f"{scores['bits_per_byte']:.3f} ({scores['accuracy']:.1%})"
                for name, scores in own.benchmarks.items()
            },
        }
        for own in rows
    ]


def verdict_table(found: Sequence[Verdict]) -> list[dict[str, str]]:
    """The goals."""
    return [dataclasses.asdict(verdict) for verdict in found]


def _reached(own: Row) -> str:
    share = float(np.mean(own.reach))
    if math.isinf(share):
        return f"- ({sum(map(math.isinf, own.reach))} of {len(own.reach)})"
    return f"{share:.0%}" + (" *" if share <= TOKENS_GOAL else "")


def _markdown(rows: Sequence[Mapping[str, str]]) -> list[str]:
    if not rows:
        return ["Nothing to compare."]
    keys = list(rows[0])
    lines = [" | ".join(keys), " | ".join("---" for _ in keys)]
    lines += [" | ".join(own[key] for key in keys) for own in rows]
    return [f"| {line} |" for line in lines]


def page(name: str, arena: Arena, tables: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """The report as Markdown.

    Args:
        name: of the files.
        arena: what was run.
        tables: regime to (seeds, losses, targets, verdicts).
        origin: command, versions, hardware and day.
    """
    title = name.replace("_", " ", 1)
    lines = [f"# {title}: mixers side by side", "", NOTES, "", f"![{title}]({name}.png)"]
    for regime, (seeds, losses, targets, goals) in tables.items():
        lines += ["", f"## {regime}", "", _setting(arena, regime, seeds), "", *_markdown(losses)]
        lines += ["", f"Differences to {CONTROL} by target, and benchmarks:", ""]
        lines += [*_markdown(targets), "", "Goals:", "", *_markdown(goals)]
    lines += ["", *(f"`{command}`" for command in origin["commands"]), ""]
    versions = ", ".join(f"{package} {number}" for package, number in origin["versions"].items())
    lines += [f"{origin['date']}; {'; '.join(origin['hardware'])}; {versions}.", ""]
    return "\n".join(lines)


def _setting(arena: Arena, regime: str, seeds: Sequence[int]) -> str:
    own, training = arena.regimes[regime], arena.training
    tokens = own.steps * training.batch_rows * arena.block_size
    repeated = f" Each domain is cut to {own.domain_tokens:,} tokens." if own.domain_tokens else ""
    start = (
        f" From a checkpoint of {own.start_steps} steps on {', '.join(own.start_domains)}."
        if own.start_steps
        else ""
    )
    return (
        f"{own.steps} steps, {tokens:,} tokens, learning rate "
        f"{own.learning_rate or training.learning_rate:g}; Llama "
        f"{json.dumps(dict(arena.model))}, vocabulary {arena.vocab_size:,}; seeds "
        f"{', '.join(map(str, seeds))}.{repeated}{start}"
    )


def report(name: str, arena: Arena, records: Sequence[Record], commands: Sequence[str]) -> None:
    """Writes all files of a report, and prints the tables."""
    tables, rows, runs = {}, {}, {}
    for regime in arena.regimes:
        found = group(records, regime)
        if not found:
            continue
        rows[regime], runs[regime] = rows_of(found, arena.off_target), found
        tables[regime] = (
            sorted(found[CONTROL]),
            loss_table(rows[regime]),
            target_table(rows[regime]),
            verdict_table(verdicts(found, arena.off_target)),
        )
    if not tables:
        raise ValueError("`--folder` has no finished run. Run eval/arena.py first.")
    own = provenance((*PACKAGES, "lightgbm"))
    hardware = sorted({record.get("hardware", own["hardware"]) for record in records})
    origin = {**own, "hardware": hardware, "commands": [*commands, own["command"]]}
    RESULTS.mkdir(exist_ok=True)
    names = ("seeds", "losses", "targets", "goals")
    by_name = {regime: dict(zip(names, t, strict=True)) for regime, t in tables.items()}
    write_json(RESULTS / f"{name}.json", {**origin, "notes": NOTES, "regimes": by_name})
    kept = [{k: v for k, v in record.items() if k not in NOT_KEPT} for record in records]
    write_text(RESULTS / f"{name}_runs.jsonl", "".join(f"{json.dumps(r)}\n" for r in kept))
    arena_figures.draw(rows, runs, RESULTS / f"{name}.png")
    text = page(name, arena, tables, origin)
    write_text(RESULTS / f"{name}.md", text)
    print(text)


def main() -> None:
    """Reads the runs and writes the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--targets", default="report", help="set of targets: report, dev")
    parser.add_argument("--folder", type=Path, help="of all runs of this config")
    parser.add_argument("--runs", type=Path, help="a report's _runs.jsonl, to which a folder adds")
    parser.add_argument("--name", help="of the files in eval/results")
    parser.add_argument(
        "--arguments", action="append", default=[], help="of eval/arena.py, that made further runs"
    )
    words = parser.parse_args()
    stem = words.config.stem
    root = words.folder or HERE.parent / "runs" / "arena" / stem
    name = words.name or (stem if words.targets == "report" else f"{stem}_{words.targets}")
    wanted = f" --targets {words.targets}" if words.targets != "report" else ""
    try:
        arena = arena_config.load(words.config)
        records = merged(
            read_lines(words.runs) if words.runs else [], read_runs(root / words.targets)
        )
        made_by = f"python eval/arena.py --config eval/{stem}.yaml{wanted}"
        further = [f"{made_by} {arguments}" for arguments in words.arguments]
        report(name, arena, records, [made_by, *further])
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err


if __name__ == "__main__":
    main()
