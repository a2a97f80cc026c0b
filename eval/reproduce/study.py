"""What all reproductions share: the command line, jobs in processes of their own, the result.

In: a `Study`, which says what to train and measure (`jobs`, `do`) and what that means (`report`).
Out: `eval/results/reproduce_NAME.{json,md,png}`, and the verdict as the last line on the screen.
Jobs leave one file each below `runs/reproduce/NAME-DIGEST/`, where the digest is of all settings,
the code, the versions and the data (`fingerprint.py`): a killed script goes on where it was, and
whatever may give another outcome has another folder, with its text.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import arena_config
import arena_data
import provenance
import torch
from arena import Scheduler
from arena_config import Arena
from arena_data import ArenaText
from arena_jobs import TEXT, Job
from compare_tables import markdown

from reproduce import fingerprint
from reproduce.verdict import Verdict
from tikmix_hf.files import write_json, write_text
from tikmix_hf.installed_text import metadata_folders

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPLITS = ("train", "heldout")
Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a reproduction was told; a study's defaults otherwise."""

    arena: Arena
    """Text, model and training."""
    targets: str
    """Set of targets."""
    seeds: tuple[int, ...]
    """Of initialisations and orders of rows."""
    steps: int
    """Optimizer steps of a run."""
    rows: int
    """Rows of each domain and target that influence is measured on."""
    mixtures: int
    """Number of them."""
    limit: int
    """Questions of each benchmark."""
    folder: Path
    """Of the jobs' files."""

    def text(self) -> ArenaText:
        """What the text job left."""
        return arena_data.load(self.arena, self.targets, self.folder)

    def told(self) -> dict[str, Any]:
        """All that decides the outcome, as plain JSON types."""
        own = {name: getattr(self, name) for name in ("targets", "steps", "rows", "mixtures")}
        common = self.arena.settings_of(*_only_entry(self.arena))
        kept = {k: v for k, v in common.items() if k not in ("regime", "entry", "proxies")}
        return {**own, "limit": self.limit, "seeds": list(self.seeds), **kept}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a reproduction found."""

    title: str
    """Of its page."""
    verdict: Verdict
    """The last line."""
    rows: Sequence[Mapping[str, Any]]
    """Of the table."""
    notes: str
    """What a reader must know to read the table."""
    draw: Callable[[Path], None]
    """Draws the picture into a file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """A reproduction."""

    name: str
    """Of its script and its files."""
    targets: str
    """Set of targets."""
    defaults: Mapping[str, Any]
    """`seeds`, `steps`, `rows`, `mixtures` and `limit` of the small setting."""
    jobs: Callable[[Setting], list[Job]]
    """What to run; the text comes before all of them."""
    do: Callable[[Setting, Job], Record]
    """Runs one job; returns its file's content."""
    report: Callable[[Setting, Mapping[str, Record]], Finding]
    """Makes the finding of all jobs' files by name."""
    benchmarks: tuple[str, ...] = ()
    """Names of those that models are scored on."""

    def all_jobs(self, setting: Setting) -> dict[str, Job]:
        """Every job by name, in an order in which they can be run."""
        own = self.jobs(setting)
        return {TEXT: Job(name=TEXT, kind="text")} | {job.name: job for job in own}

    def run_job(self, setting: Setting, name: str) -> None:
        """Does one job and writes its file."""
        started = time.perf_counter()
        job = self.all_jobs(setting)[name]
        if job.kind == "text":
            arena_data.prepare(setting.arena, setting.targets, setting.folder)
            record: Record = {}
        else:
            record = self.do(setting, job)
        job.path(setting.folder).parent.mkdir(parents=True, exist_ok=True)
        seconds = round(time.perf_counter() - started, 1)
        write_json(job.path(setting.folder), {**record, "seconds": seconds})

    def finish(self, setting: Setting) -> None:
        """Reports on what the jobs left, in `eval/results` and on the screen."""
        paths = {name: job.path(setting.folder) for name, job in self.all_jobs(setting).items()}
        records = {name: json.loads(path.read_text("utf-8")) for name, path in paths.items()}
        seconds = sum(record["seconds"] for record in records.values())
        save(self.name, self.report(setting, records), setting.told(), seconds)


def save(name: str, finding: Finding, settings: Mapping[str, Any], seconds: float | None) -> None:
    """Writes a finding's files and prints it.

    Args:
        name: the script's.
        finding: what was found.
        settings: what the script was told.
        seconds: of all jobs together, if there were any.
    """
    origin = provenance.provenance()
    origin["command"] = shlex.join(["python", f"eval/reproduce/{name}.py", *sys.argv[1:]])
    stem, results = f"reproduce_{name}", provenance.RESULTS
    results.mkdir(exist_ok=True)
    finding.draw(results / f"{stem}.png")
    line = finding.verdict.line
    record = {
        "title": finding.title,
        **origin,
        "settings": dict(settings),
        "notes": finding.notes,
        "verdict": {**finding.verdict._asdict(), "line": line},
        "processor_seconds": seconds,
        "rows": [dict(row) for row in finding.rows],
    }
    write_json(results / f"{stem}.json", record)
    versions = ", ".join(f"{package} {number}" for package, number in origin["versions"].items())
    took = "" if seconds is None else f" {seconds / 60:.0f} minutes of one core;"
    page = [f"# {finding.title}", "", finding.notes, "", *markdown(finding.rows), ""]
    page += [f"![{finding.title}]({stem}.png)", "", f"**{line}**", ""]
    page += [f"`{origin['command']}`, {origin['date']};{took} {origin['hardware']}; {versions}."]
    write_text(results / f"{stem}.md", "\n".join([*page, ""]))
    print("\n".join([*page[:-4], page[-1], "", line]))


def main(study: Study, description: str) -> None:
    """Runs what is missing in processes, or the one job that such a process is for, and reports.

    Args:
        study: which.
        description: of the script, for `--help`.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--config", type=Path, default=HERE / "small.yaml")
    parser.add_argument("--data", help="folder of the text, or 'embedded'; before the config's")
    parser.add_argument("--seeds", type=int, nargs="+", default=study.defaults["seeds"])
    for name in ("steps", "rows", "mixtures", "limit"):
        parser.add_argument(f"--{name}", type=int, default=study.defaults[name])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "reproduce")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--of", help=argparse.SUPPRESS)  # the folder that the job was started for
    words = parser.parse_args()
    try:
        setting = make_setting(study, words)
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err
    if words.job is not None:
        if words.of not in (None, setting.folder.name):
            raise SystemExit(
                f"Code, versions or data have changed since {words.of} was begun; this job would "
                f"be of {setting.folder.name}. Start the script again."
            )
        torch.set_num_threads(1)
        warnings.filterwarnings("ignore")
        study.run_job(setting, words.job)
        return
    command = [sys.executable, *sys.argv, "--of", setting.folder.name, "--job"]
    wanted = study.all_jobs(setting)
    if not Scheduler(wanted, setting.folder, command, words.processes).run():
        raise SystemExit(1)
    study.finish(setting)


def make_setting(study: Study, words: argparse.Namespace) -> Setting:
    """The setting that a command line asks for.

    Raises:
        ValueError: an unknown key or name in the config; says which.
    """
    arena = arena_config.load(words.config, words.data)
    arena_config.refuse_unknown("targets", study.targets, arena.targets)
    numbers = {name: getattr(words, name) for name in ("steps", "rows", "mixtures", "limit")}
    seeds = tuple(words.seeds)
    unplaced = Setting(
        arena=arena, targets=study.targets, seeds=seeds, folder=words.folder, **numbers
    )
    folder = words.folder / f"{study.name}-{digest(study, unplaced)}"
    return replace(unplaced, folder=folder)


def digest(study: Study, setting: Setting) -> str:
    """Of all that decides what a job finds: settings, code, versions and data."""
    arena = setting.arena
    # Seeds are other jobs, not another setting: with one more, those that are done still count.
    told = {k: v for k, v in setting.told().items() if k != "seeds"}
    settings = [told, repr(arena.targets[study.targets]), dict(arena.benchmarks)]
    code = fingerprint.of_code(fingerprint.sources(HERE / f"{study.name}.py"))
    if arena.data == arena_data.EMBEDDED:
        data = [folder.name for folder in metadata_folders()]  # whose files it is made of
    else:
        data = fingerprint.of_data(arena_data.data_folder(arena), data_files(study, arena))
    content = json.dumps([settings, code, fingerprint.versions(), data])
    return blake2b(content.encode(), digest_size=6).hexdigest()


def data_files(study: Study, arena: Arena) -> list[str]:
    """What a study reads of the data folder: files, and the folders of benchmarks."""
    splits = [f"text/{name}.{side}.jsonl.gz" for name in arena.domains for side in SPLITS]
    targets = arena.targets[study.targets].values()
    measured = [file.path for own in targets for file in (*own.measured, *own.judged)]
    below = [*measured, *arena.benchmarks.values(), *study.benchmarks]
    return [*splits, *(f"benchmarks/{name}" for name in below)]


def _only_entry(arena: Arena) -> tuple[str, str]:
    return next(iter(arena.regimes)), next(iter(arena.entries))
