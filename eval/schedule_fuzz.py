"""Does a damaged or hostile schedule file ever do anything but load or be refused in one sentence?

    python eval/schedule_fuzz.py --files 10000

Files of schedules are mutated, a few bytes or a few JSON values at a time, and hostile ones are
made that are as large as reading allows. Each must load, and then be written and read back alike,
or raise `ScheduleError` whose message is one line. Seconds of the processor for the slowest file
and the growth of the process are noted. Results go to `eval/results/`.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from provenance import save_result

from tikmix_hf.schedule import MAX_BYTES, DomainCard, MixtureSchedule, Run, ScheduleError, Segment

SEEDS_OF_BYTES = (
    b"",
    b"\x00",
    b"\xff",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"-",
    b"e",
)
SEEDS_OF_BYTES += (b"NaN", b"Infinity", b"1e999", b"null", b"true", b"\\ud800", b"9" * 5000)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**53,
    2**64,
    10**30,
    0.5,
    -0.0,
    1e308,
    5e-324,
)
VALUES += (
    float("nan"),
    float("inf"),
    "",
    "web",
    "../../etc/passwd",
    "a\x00b",
    "\u202egnp",
    "\ud800",
)
VALUES += ([], {}, [[]], {"": {}}, "x" * 5000, [0] * 100, "1.0", "2.0", "0.9", "1.7", "__class__")


def samples() -> list[dict[str, Any]]:
    """Schedules to begin with: short, of a run, of the first format, with operations noted."""
    rng = np.random.default_rng(0)
    update = {
        "step": 12,
        "mixer": {"mixer": "tikmix_d", "gamma": 0.5, "constraints": {"caps": {"code": 0.3}}},
        "notes": ["moved"],
        "targets": ["arc"],
        "cost": {"tokens": {"influence": 1024}},
        "influence": {
            "targets": ["arc"],
            "domains": ["web", "code", "books"],
            "values": [[0.1, 0.2, -0.3]],
            "stderr": [[0.1, None, 0.1]],
        },
        "versions": {"torch": "2.6"},
    }
    whole = MixtureSchedule(
        ("web", "code", "books/fiction"),
        tuple(
            Segment(from_sample=start, mixture=rng.dirichlet(np.ones(3)), update=update)
            for start in (0, 96, 4096)
        ),
        run=Run(num_samples=8192, num_tokens=8192 * 12, samples_per_step=8, seed=3, model="Llama"),
        cards={"web": DomainCard(description="Pages", num_tokens=10, num_rows=2, fingerprint="a")},
        provenance={"written_by": "tikmix_hf", "versions": {"torch": "2.6"}},
    )
    first = {"format": whole.to_dict()["format"], "version": 0, "domains": ["web", "code"]}
    first["segments"] = [{"from_sample": 0, "mixture": {"web": 0.5, "code": 0.5}, "update": {}}]
    short = MixtureSchedule.constant({"web": 0.75, "code": 0.25})
    return [whole.to_dict(), short.to_dict(), first, whole.rescale(num_samples=77).to_dict()]


def mutants(rng: np.random.Generator, num_files: int) -> Iterator[bytes]:
    """Mutated files: half by bytes, half by JSON values."""
    records = samples()
    for number in range(num_files):
        record = copy.deepcopy(records[int(rng.integers(len(records)))])
        if number % 2:
            for _ in range(int(rng.integers(1, 4))):
                change_values(record, rng)
            yield json.dumps(record).encode()
        else:
            content = json.dumps(record).encode()
            for _ in range(int(rng.integers(1, 5))):
                content = change_bytes(content, rng)
            yield content


def change_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """Cuts a piece out, writes something over a piece, or copies a piece elsewhere."""
    start, stop = sorted(rng.integers(0, len(content) + 1, 2).tolist())
    kind = rng.integers(5)
    if kind == 0:
        return content[:start]
    if kind == 1:
        return content[:start] + content[min(stop, start + 20) :]
    if kind == 2:
        return content[:start] + content[start : start + 300] + content[start:]
    piece = SEEDS_OF_BYTES[int(rng.integers(len(SEEDS_OF_BYTES)))]
    if kind == 3:
        piece = rng.bytes(int(rng.integers(1, 5)))
    return content[:start] + piece + content[start + int(rng.integers(3)) :]


def change_values(record: Any, rng: np.random.Generator) -> None:
    """Replaces, drops, renames, repeats or adds one entry anywhere in JSON types."""
    holders = [record]
    for holder in holders:
        entries = holder.values() if isinstance(holder, dict) else holder
        holders += [entry for entry in entries if isinstance(entry, (dict, list))]
    holder = holders[int(rng.integers(len(holders)))]
    value = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    kind = int(rng.integers(4))
    if not holder or kind == 0:
        if isinstance(holder, dict):
            holder[str(VALUES[int(rng.integers(len(VALUES)))])[:300]] = value
        else:
            holder.append(value)
        return
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = keys[int(rng.integers(len(keys)))]
    if kind == 1:
        del holder[key]
    elif kind == 2:
        other = keys[int(rng.integers(len(keys)))]
        holder[key] = copy.deepcopy(holder[other])
    else:
        holder[key] = value


def outcome(content: bytes) -> str:
    """What reading a file comes to: "loaded", or what kind of refusal.

    Raises:
        AssertionError: the refusal is not one short line, or what was loaded is not kept by a file.
    """
    try:
        schedule = MixtureSchedule.load(io.BytesIO(content))
    except ScheduleError as err:
        message = str(err)
        assert "\n" not in message, message
        assert len(message) < 2000, message
        return "no JSON" if "is not JSON" in message else "refused"
    again = MixtureSchedule.from_json(schedule.to_json().encode())
    assert again == schedule, "changed by a round trip"
    return "loaded"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "brackets": lambda: b"[" * MAX_BYTES,
    "empty lists": lambda: b"[" + b"[]," * (MAX_BYTES // 3 - 2) + b"[]]",
    "as many objects as allowed": lambda: b'{"provenance":[' + b'{"a":1},' * 490_000 + b"0]}",
    "as many texts as allowed": lambda: (
        b"[" + b",".join(b'"%d"' % n for n in range(990_000)) + b"]"
    ),
    "one long text": lambda: b'"' + b"x" * (MAX_BYTES - 2) + b'"',
    "one long wide text": lambda: '"\U0001f600'.encode() + b"x" * (MAX_BYTES - 6) + b'"',
    "escapes": lambda: b'"' + b'\\"' * (MAX_BYTES // 2 - 1) + b'"',
    "escapes without end": lambda: b'"' + b'\\"' * (MAX_BYTES // 2 - 1),
    "one long number": lambda: b"1" * MAX_BYTES,
    "domains times segments": lambda: _large_record(50_000, 50_000),
    "domains times segments as allowed": lambda: _large_record(1_000, 9_900),
    "unknown names": lambda: _many_names(),
    "above the size": lambda: b" " * (MAX_BYTES + 1),
}


def _large_record(num_domains: int, num_segments: int) -> bytes:
    """Few bytes that ask for large arrays: 20 GB for 50,000 domains and segments."""
    record = samples()[1]
    record["domains"] = [{"name": str(n)} for n in range(num_domains)]
    record["run"] = {}
    record["segments"] = [
        {"from_sample": n, "mixture": {"1": 1.0}, "update": {}} for n in range(num_segments)
    ]
    return json.dumps(record).encode()


def _many_names() -> bytes:
    record = samples()[1]
    record["domains"] = [{"name": f"{n} {'x' * 60}"} for n in range(90_000)]
    record["segments"][0]["mixture"] = {f"{n} {'y' * 60}": 0.0 for n in range(90_000)}
    return json.dumps(record).encode()


def hostile(name: str) -> dict[str, Any]:
    """Reads one hostile file in this process; says how, how long and what it took."""
    content = HOSTILE[name]()
    return worst([content])


def worst(contents: Iterable[bytes]) -> dict[str, Any]:
    """Reads files; says what they came to, the slowest, and by how much the process grew."""
    counts: Counter[str] = Counter()
    slowest = 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for content in contents:
        started = time.process_time()
        counts[outcome(content)] += 1
        slowest = max(slowest, time.process_time() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "outcome": ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())),
        "seconds": round(slowest, 2),
        "MiB": round(grown / 1024),
    }


def main() -> None:
    """Reads all files and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hostile", help="read this one hostile file and say what it took")
    words = parser.parse_args()
    if words.hostile:
        print(json.dumps(hostile(words.hostile)))
        return
    files = mutants(np.random.default_rng(words.seed), words.files)
    rows = [{"files": f"{words.files:,} mutants", **worst(files)}]
    for name in HOSTILE:  # in a process of its own: memory is given back late
        command = [sys.executable, __file__, "--hostile", name]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        rows.append({"files": name, **json.loads(told.stdout)})
    most = max(row["MiB"] for row in rows)
    notes = (
        f"Every one of {words.files:,} mutated files and {len(HOSTILE)} hostile ones loads or is "
        f"refused in one line; none takes more than {max(r['seconds'] for r in rows)} s or "
        f"{most} MiB. Seconds are of the processor, for the slowest file; MiB are what the "
        "process grew by. Each loaded file is also written and read back."
    )
    save_result(
        "schedule_fuzz",
        title="Damaged and hostile schedule files",
        rows=rows,
        settings={"files": words.files, "seed": words.seed, "max_bytes": MAX_BYTES},
        notes=notes,
        packages=("numpy",),
    )


if __name__ == "__main__":
    main()
