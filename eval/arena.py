"""Mixers side by side: same model, data, seeds and tokens; only how the mixture is chosen differs.

    python eval/arena.py --config eval/arena_small.yaml --processes 2

In: an arena's file (`arena_config.py`). Out: one JSON file for each run, below
`runs/arena/<config>/<targets>/<regime>/`, which `eval/report_arena.py` makes tables of. Each run is
a process of its own; one that has its file is not run again, so that whatever ended early goes on
where it was: a kill loses the runs in flight and no other. What a run waits for (a checkpoint to
start from, proxies, another entry's run) is run before it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import arena_config
from arena_config import Arena
from arena_jobs import Job, jobs, ready

from tikmix_hf import mixers

HERE = Path(__file__).parent
POLL_SECONDS = 0.5


class Scheduler:
    """Runs jobs as processes, at most so many at a time.

    Args:
        wanted: all jobs, by name.
        folder: of their files.
        command: of a job's process, without the job's name.
        num_processes: at most.
    """

    def __init__(
        self, wanted: dict[str, Job], folder: Path, command: Sequence[str], num_processes: int
    ) -> None:
        self.wanted, self.folder = wanted, folder
        self.command, self.num_processes = list(command), num_processes
        self.finished = {name for name, job in wanted.items() if job.path(folder).is_file()}
        self.failed: set[str] = set()
        self.seconds: list[float] = []
        self._running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> bool:
        """Runs what is left; returns whether all of it went well."""
        print(f"{len(self.wanted)} jobs, {len(self.finished)} of them done: {self.folder}")
        try:
            while self._start() or self._running:
                time.sleep(POLL_SECONDS)
                self._collect()
        finally:
            for process, _ in self._running.values():
                process.terminate()
        left = [name for name in self.wanted if name not in self.finished]
        if left:
            print(f"not done: {', '.join(left)}")
        return not left

    def _start(self) -> bool:
        """Starts what can be started; returns whether anything was."""
        free = self.num_processes - len(self._running)
        startable = ready(self.wanted, self.finished, {*self.failed, *self._running})[:free]
        for job in startable:
            log = self.folder / f"{job.name}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*self.command, job.name],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
            self._running[job.name] = (process, time.perf_counter())
        return bool(startable)

    def _collect(self) -> None:
        """Takes note of what has ended."""
        for name, (process, started) in list(self._running.items()):
            if process.poll() is None:
                continue
            del self._running[name]
            seconds = time.perf_counter() - started
            path = self.wanted[name].path(self.folder)
            if process.returncode or not path.is_file():
                self.failed.add(name)
                print(f"{name}: failed, see {path.with_suffix('.log')}", flush=True)
                continue
            self.finished.add(name)
            self.seconds.append(seconds)
            print(self._progress(name, seconds), flush=True)

    def _progress(self, name: str, seconds: float) -> str:
        num_left = len(self.wanted) - len(self.finished)
        mean = sum(self.seconds) / len(self.seconds)
        minutes = num_left * mean / self.num_processes / 60
        done = f"{len(self.finished)} of {len(self.wanted)}"
        return f"{name}: {seconds:.0f} s; {done}, about {minutes:.0f} min left"


def refuse_other_settings(arena: Arena, wanted: Mapping[str, Job], folder: Path) -> None:
    """Refuses to go on where finished runs were made with other settings.

    Raises:
        ValueError: names the file.
    """
    for job in wanted.values():
        path = job.path(folder)
        if job.kind != "run" or not path.is_file():
            continue
        kept = json.loads(path.read_text("utf-8"))["settings"]
        settings = arena.settings_of(job.regime, job.entry)
        if changed := [key for key in settings if settings[key] != kept.get(key)]:
            raise ValueError(
                f"`--folder`: {path} was run with another {' and '.join(changed)}. Remove it to "
                "run it again, or name another folder."
            )


def present(arena: Arena) -> set[str]:
    """Names of the entries whose mixer there is; says which are left out."""
    there = {name for name, e in arena.entries.items() if e.mixer in mixers.available()}
    for name in arena.entries:
        if name not in there:
            print(f"{name}: left out, there is no mixer {arena.entries[name].mixer!r}")
    return there


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", help="folder of the text, or 'embedded'; before the config's")
    parser.add_argument("--targets", default="report", help="set of targets: report, dev")
    parser.add_argument("--seeds", type=int, nargs="+", help="the config's for these targets")
    parser.add_argument("--regimes", nargs="+")
    parser.add_argument("--only", nargs="+", help="entries; what they wait for is run as well")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of all runs of this config")
    parser.add_argument("--list", action="store_true", help="print the jobs and end")
    words = parser.parse_args()
    try:
        arena = arena_config.load(words.config, words.data)
        arena_config.refuse_unknown("--targets", words.targets, arena.targets)
        there = present(arena)
        wanted = jobs(
            arena,
            seeds=words.seeds or arena.seeds[words.targets],
            regimes=words.regimes,
            entries=there if words.only is None else there.intersection(words.only),
        )
        root = words.folder or HERE.parent / "runs" / "arena" / words.config.stem
        folder = root / words.targets
        refuse_other_settings(arena, wanted, folder)
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err
    if words.list:
        print("\n".join(wanted))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # takes the runs in flight along
    command = [sys.executable, str(HERE / "arena_run.py"), "--config", str(words.config)]
    command += ["--folder", str(folder), "--targets", words.targets]
    command += ["--data", words.data] if words.data else []
    if not Scheduler(wanted, folder, command, words.processes).run():
        raise SystemExit(1)


if __name__ == "__main__":
    main()
