"""The main figure of a result, in a sentence.

In: a result's name and record. Out: its verdict where it has one; for results that are older than
verdicts, what their tables say, read off here; and the first sentence of the notes for all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def headline(name: str, record: Record) -> str:
    """What came out."""
    if "verdict" in record:
        return record["verdict"]["line"]
    if "regimes" in record:
        return arena(record)
    if "best_on" in record:
        counts = record["best_on"]
        best = [f"{run} on {n}" for run, n in counts.items() if run != "of"]
        return f"Best of {counts['of']} tasks: {', '.join(best)}."
    if "averages" in record:
        return scores(record)
    if name in READERS:
        return READERS[name](record)
    return first_sentence(record.get("notes", "")) or "See the table."


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence.

    Example:
        >>> first_sentence("Mean of 0.5 runs. And more.")
        'Mean of 0.5 runs.'
    """
    head, stop, _ = text.partition(". ")
    return f"{head}." if stop else text


def arena(record: Record) -> str:
    """Of each regime the entry with the lowest loss, and how many goals are held."""
    parts = []
    for regime, own in record["regimes"].items():
        best = own["losses"][0]
        gap = next((value for key, value in best.items() if key.startswith("less ")), "")
        held = sum(goal["held"] == "held" for goal in own["goals"])
        parts.append(
            f"{regime}: {best['entry']} has the lowest loss, {best['bits per byte']} bits per byte"
            f"{f' ({gap} to the control)' if gap else ''}; "
            f"{held} of {len(own['goals'])} goals held"
        )
    return ". ".join(parts) + "."


def scores(record: Record) -> str:
    """Each task's own metric."""
    parts = []
    for task, own in record["tasks"].items():
        value = own["values"].get(own["metric"])
        parts.append(f"{task} {'failed' if value is None else f'{value:.4f}'}")
    return f"{', '.join(parts)}."


def _row(record: Record, **wanted: Any) -> Record:
    """The first row with these cells."""
    rows: Sequence[Record] = record["rows"]
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def _additivity(record: Record) -> str:
    own = [row for row in record["rows"] if (row["preconditioner"], row["rows"]) == ("kfac", 64)]
    parts = [
        f"{row['mean']} at {row['checkpoint']} (reachable {row['reachable']}, worst target "
        f"{row['least']})"
        for row in own
    ]
    return f"Mean r with `kfac` and 64 rows: {'; '.join(parts)}."


def _default_run(record: Record) -> str:
    own = record["rows"][0]
    cost = first_sentence(record["notes"].partition("measured: ")[2])
    return f"Tau {own['tau against 10 x']} (ceiling {own['ceiling']}), for {cost}"


def _fidelity(record: Record) -> str:
    own, again = (
        _row(record, predictor=name, runs="mixtures", steps=80)["pearson"]
        for name in ("kfac", "real training again")
    )
    return (
        f"Over mixtures trained for 80 steps `kfac` predicts the decrease of a target's loss with "
        f"r = {own}; two real trainings agree by {again}."
    )


def _checkpoints(record: Record) -> str:
    names = [row["predictor"] for row in record["rows"]]
    shown = [name for name in dict.fromkeys(names) if name.startswith("kfac")]
    parts = [
        f"{name} {', '.join(row['mixtures'] for row in record['rows'] if row['predictor'] == name)}"
        for name in shown
    ]
    where = [row["checkpoint"] for row in record["rows"] if row["predictor"] == shown[0]]
    return f"Mixtures, at {'; '.join(where)}: {'. '.join(parts)}."


def _variants(record: Record) -> str:
    parts = [
        f"{row['measured']} {row['mixtures 80'].partition(' ')[0]}"
        for row in record["rows"]
        if row["measured"].endswith("rows")
    ]
    usual = record["rows"][0]["mixtures 80"].partition(" ")[0]
    return f"Mixtures, 80 steps: {usual} with 64 rows; {', '.join(parts)}."


def _quickstart(record: Record) -> str:
    own = _row(record, target="mean")
    return (
        f"Mean target loss, tikmix_d less static: {own['difference']} nats per token "
        f"(95 % interval {own['95 % interval']})."
    )


def _ranking(record: Record) -> str:
    own = [row for row in record["rows"] if row["rows"] == 128]
    parts = [f"{row['tau, overall']} ({row['model']})" for row in own]
    return f"Tau with 128 rows: {', '.join(parts)}."


def _whole_loop(record: Record) -> str:
    static = _row(record, setting="static")
    rows = [row for row in record["rows"] if row is not static]
    best = min(rows, key=lambda row: float(row["mean target loss"]))
    return (
        f"Lowest: {best['setting']}, {best['mean target loss']} nats per token, "
        f"{best['against static']} to static (95 % interval {best['95 % interval']})."
    )


def _loader(record: Record) -> str:
    own = [row for row in record["rows"] if row["goal"] is not None]
    parts = [
        f"{row['loader']}, {row['workers']} workers: {row['ratio']} (goal {row['goal']})"
        for row in own
    ]
    return f"Ratio to interleave_datasets: {'; '.join(parts)}."


def _speed(record: Record) -> str:
    return f"Goal: {record['notes'].partition('Goal: ')[2]}"


def _overhead(record: Record) -> str:
    held = [row["preconditioner"] for row in record["rows"] if row["holds"]]
    missed = [row["preconditioner"] for row in record["rows"] if not row["holds"]]
    worst = max(record["rows"], key=lambda row: row["wall_time_ratio"])
    return (
        f"Time and memory are as promised for {', '.join(held)}"
        f"{'; not for ' + ', '.join(missed) if missed else ''}. The slowest, "
        f"{worst['preconditioner']}, takes {worst['wall_time_ratio']:.2f} times plain passes."
    )


def _certificates(record: Record) -> str:
    own = record["table"][0]
    return (
        f"{own['failures']} failures in {own['instances']} instances, {own['disputed']} disputed; "
        f"at most {own['max_difference']:.1e} from Clarabel."
    )


READERS: dict[str, Callable[[Record], str]] = {
    "additivity": _additivity,
    "default_run": _default_run,
    "influence_fidelity": _fidelity,
    "influence_fidelity_checkpoints": _checkpoints,
    "influence_fidelity_parts": _checkpoints,
    "influence_fidelity_variants": _variants,
    "influence_overhead": _overhead,
    "loader_throughput": _loader,
    "quickstart_seeds": _quickstart,
    "ranking": _ranking,
    "solver_certificates": _certificates,
    "tikmix_m_speed": _speed,
    "whole_loop_small": _whole_loop,
}
"""Result to what reads its figure."""
