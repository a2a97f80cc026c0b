"""Scores of several runs side by side: a line for each task, a column for each run.

    python eval/compare.py dynamic-0.json static-0.json dynamic-1.json static-1.json \
        --baseline static --output runs/scores/comparison

In: results of `eval/run.py`, one for each run and seed; those of one `name` are one column, its
seeds are averaged. Out: OUTPUT.md, OUTPUT.json and OUTPUT.png: each task's metric, the difference
to the baseline with a paired bootstrap 95 % interval, and on how many tasks each run is best. The
interval is over questions where both runs of every common seed kept their samples, over seeds
otherwise, and the table says which; how: `compare_statistics.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compare_results import Run, differing, is_comparison, read, task_names
from compare_statistics import Difference, Line, compare, known
from compare_tables import markdown
from provenance import provenance

from tikmix_hf import figures
from tikmix_hf.files import write_json, write_text

OUTPUT = Path("runs/scores/comparison")
NOTES = (
    "Means over the seeds that all runs of a line have. In brackets: the difference to "
    "{baseline}, over the seeds that both have, with a paired bootstrap 95 % interval over what "
    "`interval over` says: *questions*, resampled with their answers by all seeds, or *seeds*. "
    "Over questions the interval says what other questions of the kind would give, not what other "
    "seeds would; over few seeds it is too narrow. *Best on* counts tasks that all runs were "
    "scored on, with a seed that all have; runs that share the best score all count."
)


def table(lines: Sequence[Line], names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the Markdown table, with a last one that counts the best."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {"task": line.task, "metric": f"{line.metric} ({line.better})"}
        for name in names:
            row[name] = _cell(line, name)
        row["interval over"] = ", ".join(sorted({d.over for d in line.differences.values()}))
        rows.append(row)
    counted, best = best_counts(lines, names)
    last: dict[str, Any] = {"task": "best on", "metric": ""}
    last |= {name: f"{best[name]}/{counted}" for name in names}
    return [*rows, {**last, "interval over": ""}]


def _cell(line: Line, name: str) -> str:
    if name not in line.means:
        return "failed"
    bold = "**" if name in line.best else ""
    text = f"{bold}{line.means[name]:.4f}{bold}"
    difference = line.differences.get(name)
    return text if difference is None else f"{text} ({_interval(difference)})"


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.4f}"
    return f"{difference.value:+.4f}, {difference.low:+.4f} ... {difference.high:+.4f}"


def best_counts(lines: Sequence[Line], names: Sequence[str]) -> tuple[int, dict[str, int]]:
    """Tasks that all runs were scored on with a seed in common, and where each run is best."""
    common = [line for line in lines if line.best and all(name in line.means for name in names)]
    return len(common), {name: sum(name in line.best for line in common) for name in names}


def draw(lines: Sequence[Line], names: Sequence[str], baseline: str, path: Path) -> None:
    """Differences to the baseline, better to the right whatever the metric.

    Args:
        lines: of the table.
        names: of the runs.
        baseline: which of them.
        path: of the file.
    """
    others = [name for name in names if name != baseline]
    figure = figures.new_figure(width=6, height=1 + 0.5 * len(lines))
    axes = figure.subplots()
    for k, name in enumerate(others):
        for place, line in enumerate(lines):
            if (own := line.differences.get(name)) is None:
                continue
            sign, height = line.sign, place + 0.25 * (k - (len(others) - 1) / 2)
            if own.low is not None and own.high is not None:
                ends = [sign * own.low, sign * own.high]
                axes.plot(ends, [height, height], color=figures.colour(k))
            label = name if not place else None
            axes.plot(sign * own.value, height, "o", color=figures.colour(k), label=label)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [f"{line.task}, {line.metric}" for line in lines])
    axes.invert_yaxis()
    axes.set_xlabel(f"better than {baseline} by (95 % interval)")
    if others:
        axes.legend(fontsize="small")
    figures.save(figure, path)


def told_of_seeds(seeds: Mapping[str, Sequence[int]]) -> str:
    """Which seeds each run has."""
    parts = [f"{name}: {', '.join(map(str, own)) or 'not told'}" for name, own in seeds.items()]
    return f"Seeds: {'; '.join(parts)}."


def told_of_steps(runs: Sequence[Run]) -> list[str]:
    """After how many steps each run was scored, where any of them tells."""
    if not any(run.steps for run in runs):
        return []
    parts = []
    for run in runs:
        steps = sorted(set(run.steps.values()))
        parts.append(f"{run.title}: {', '.join(map(str, steps)) or 'not told'}")
    return [f"Scored after steps: {'; '.join(parts)}."]


def left_out(lines: Sequence[Line], runs: Sequence[Run]) -> list[str]:
    """Scores that means have nothing of, since not all runs have the seed."""
    parts = []
    for line in lines:
        scored = [run for run in runs if run.value(line.task) is not None]
        if scored and not line.seeds:
            parts.append(f"{line.task}: no seed that all have, means are over each run's own")
        elif out := [run.title for run in scored if run.seed not in line.seeds]:
            parts.append(f"{line.task}: without {', '.join(out)}")
    return [f"Not all runs have the same seeds: {'; '.join(parts)}."] if parts else []


def write(runs: Sequence[Run], baseline: str, output: Path) -> str:
    """Compares, writes the three files, and returns the page.

    Args:
        runs: all of them.
        baseline: name that others are compared with.
        output: the files' path without its ending.

    Raises:
        ValueError: no run of that name, or runs that were asked different things.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    if baseline not in names:
        raise ValueError(f"`--baseline` must be one of {', '.join(names)}; got {baseline!r}.")
    if problem := differing(runs):
        raise ValueError(problem)
    lines = [compare(runs, task, baseline) for task in task_names(runs)]
    notes, origin = NOTES.format(baseline=baseline), provenance()
    counted, best = best_counts(lines, names)
    seeds = {name: known(run.seed for run in runs if run.name == name) for name in names}
    title = "Scores of " + ", ".join(names)
    failures = [
        f"* {run.title}: {task} failed: {reason}"
        for run in runs
        for task, reason in run.failures.items()
    ]
    told = [notes, told_of_seeds(seeds), *left_out(lines, runs), *told_of_steps(runs)]
    page = [f"# {title}", "", " ".join(told), "", *markdown(table(lines, names)), ""]
    page += [*failures, *([""] if failures else []), f"![{title}]({output.name}.png)", ""]
    page += [f"`{origin['command']}`, {origin['date']}; {origin['hardware']}.", ""]
    output.parent.mkdir(parents=True, exist_ok=True)
    tasks = [line.to_dict() for line in lines]
    record = {"title": title, **origin, "notes": notes, "baseline": baseline, "seeds": seeds}
    record["steps"] = {run.title: dict(run.steps) for run in runs}
    record |= {"tasks": tasks, "best_on": {"of": counted, **best}, "failures": failures}
    write_json(output.with_name(f"{output.name}.json"), record)
    draw(lines, names, baseline, output.with_name(f"{output.name}.png"))
    write_text(output.with_name(f"{output.name}.md"), "\n".join(page))
    return "\n".join(page)


def main() -> None:
    """Reads results and compares them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="files that eval/run.py wrote")
    parser.add_argument("--baseline", help="name of a run; the first file's otherwise")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="without ending")
    parser.add_argument("--suite", help="whose scores to compare; else those of all suites")
    words = parser.parse_args()
    try:
        own = [path for path in words.results if not is_comparison(path)]
        for path in words.results:
            if path not in own:
                print(f"{path} is a comparison and no result: left out.", file=sys.stderr)
        runs = read(own, words.suite)
        print(write(runs, words.baseline or runs[0].name, words.output))
    except (ValueError, OSError) as err:
        raise SystemExit(str(err)) from err


if __name__ == "__main__":
    main()
