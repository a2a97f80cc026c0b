"""How far TiKMiX-D's solver is from the optimum, against CVXPY with Clarabel, and how fast it is.

In go a number of random instances over all families and a seed; out come a table per family
(largest difference of objectives, largest violation, failures, solver used, time) and the times at
fixed sizes, as JSON and Markdown. Run: `python eval/solver_certificates.py`.

The reference states equations 9-11 anew and shares no code with the package. Where the two differ
by more than 1e-6 max(1, |f*|), the dual bound decides who is wrong: a reference below the bound
violates a constraint, one above our feasible point is not optimal. Such instances are counted.
"""

# Shape letters: J targets, K domains.

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import cvxpy as cp
import numpy as np
from numpy.typing import NDArray

from tikmix_hf.mixers.base import MixerError
from tikmix_hf.mixers.tikmix_d import solve_certified

Array = NDArray[np.float64]

FAMILIES = (
    "gaussian",
    "all positive",
    "common direction",
    "all negative",
    "identical columns",
    "one useful domain",
    "hardly any help",
    "duplicated rows",
    "opposed rows",
    "tiny scale",
    "huge scale",
    "mixed scales",
    "zero rows",
    "zero shares",
    "one domain in force",
    "rank one",
    "ties",
)
COEFFICIENTS = ((1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (1.0, 1.0, 0.0), (3.0, 1.0, 0.1), (1.0, 0.0, 1.0))
TOLERANCE = 1e-6


def instance(
    family: str, rng: np.random.Generator, num_targets: int, num_domains: int
) -> tuple[Array, Array]:
    """Influence (J, K) and a mixture in force (K,) of one family."""
    values_JK = rng.standard_normal((num_targets, num_domains))
    current_K = rng.dirichlet(np.ones(num_domains))
    rows = rng.integers(0, num_targets, num_targets)
    match family:
        case "all positive":
            values_JK = np.abs(values_JK) + 0.1
        case "common direction":
            values_JK = 3 + 0.1 * values_JK
        case "all negative":
            values_JK = -np.abs(values_JK)
        case "identical columns":
            values_JK[:] = values_JK[:, :1]
        case "one useful domain":
            values_JK[:, 1:] = -np.abs(values_JK[:, 1:])
            values_JK[:, 0] = np.abs(values_JK[:, 0])
        case "hardly any help":
            values_JK[:, 1:] = -np.abs(values_JK[:, 1:])
            values_JK[:, 0] = 10.0 ** rng.uniform(-4, -1, num_targets)
        case "duplicated rows":
            values_JK = values_JK[rows // 2]
        case "opposed rows":
            values_JK[-1] = -values_JK[0]
        case "tiny scale":
            values_JK *= 1e-12
        case "huge scale":
            values_JK *= 1e6
        case "mixed scales":
            values_JK *= 10.0 ** rng.uniform(-12, 6, (num_targets, 1))
        case "zero rows":
            values_JK[rows[: num_targets // 2]] = 0
            values_JK[0, 0] = 1.0
        case "zero shares":
            current_K *= rng.random(num_domains) < 0.5
            current_K[0] += 0.1
            current_K /= current_K.sum()
        case "one domain in force":
            current_K = np.eye(num_domains)[rng.integers(num_domains)]
        case "rank one":
            values_JK = np.outer(values_JK[:, 0], values_JK[0])
        case "ties":
            values_JK = np.sign(values_JK)
    return np.asarray(values_JK, dtype=np.float64), current_K


def normalised(values_JK: Array) -> tuple[Array, Array]:
    """Phat's rows and the guard's rows, zero rows left out."""
    rows_JK = values_JK[np.abs(values_JK).max(axis=1) > 0]
    size_J1 = np.abs(rows_JK).max(axis=1, keepdims=True)
    top_J1 = rows_JK.max(axis=1, keepdims=True)
    divisor_J1 = np.where(top_J1 > 0, top_J1, size_J1)
    return rows_JK / divisor_J1, rows_JK / size_J1


def objective(
    values_JK: Array, mixture_K: Array, coefficients: tuple[float, float, float]
) -> float:
    """Equation 10, as the paper writes it."""
    phat_J = normalised(values_JK)[0] @ mixture_K
    shares = mixture_K[mixture_K > 0]
    alpha, beta, gamma = coefficients
    entropy = -np.sum(shares * np.log(shares))
    return float(alpha * phat_J.std() - beta * phat_J.sum() - gamma * entropy)


def reference(
    values_JK: Array,
    current_K: Array,
    coefficients: tuple[float, float, float],
    box: tuple[Array, Array] | None = None,
) -> Array:
    """The optimum as Clarabel finds it."""
    gain_JK, guard_JK = normalised(values_JK)
    alpha, beta, gamma = coefficients
    mixture = cp.Variable(len(current_K))
    phat = gain_JK @ mixture
    spread = cp.norm(phat - cp.sum(phat) / len(gain_JK), 2) / np.sqrt(len(gain_JK))
    conditions = [cp.sum(mixture) == 1, mixture >= 0, guard_JK @ mixture >= guard_JK @ current_K]
    if box is not None:
        conditions += [mixture >= box[0], mixture <= box[1]]
    value = -beta * cp.sum(phat)
    if alpha:
        value += alpha * spread
    if gamma:
        value -= gamma * cp.sum(cp.entr(mixture))
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-9)
    with warnings.catch_warnings():
        # Where it stops short of these it says so; the comparison finds out by how much.
        warnings.filterwarnings(
            "ignore", message="Solution may be inaccurate", category=UserWarning
        )
        cp.Problem(cp.Minimize(value), conditions).solve(solver=cp.CLARABEL, **tolerances)
    found_K = np.clip(np.asarray(mixture.value, dtype=np.float64), 0, None)
    return found_K / found_K.sum()


def compare(num_instances: int, seed: int) -> list[dict[str, object]]:
    """One record per instance; families and coefficients take turns."""
    rng = np.random.default_rng(seed)
    records: list[dict[str, object]] = []
    for i in range(num_instances):
        family, coefficients = FAMILIES[i % len(FAMILIES)], COEFFICIENTS[i % len(COEFFICIENTS)]
        num_targets, num_domains = int(rng.integers(1, 21)), int(2 + 198 * rng.random() ** 3)
        values_JK, current_K = instance(family, rng, num_targets, num_domains)
        start = time.perf_counter()
        try:
            solution = solve_certified(values_JK, current_K, coefficients)
        except MixerError:
            records.append({"family": family, "failed": True})
            continue
        seconds = time.perf_counter() - start
        found = objective(values_JK, solution.mixture, coefficients)
        best = objective(values_JK, reference(values_JK, current_K, coefficients), coefficients)
        guard_JK = normalised(values_JK)[1]
        difference = (found - best) / max(1.0, abs(best))
        records.append(
            {
                "family": family,
                "failed": False,
                "difference": abs(difference),
                "disputed": abs(difference) > TOLERANCE,
                "gap": abs(solution.gap) / max(1.0, abs(solution.objective)),
                "violation": float((guard_JK @ (current_K - solution.mixture)).max()),
                "solver": solution.solver,
                "kept": solution.kept,
                "seconds": seconds,
            }
        )
    return records


def slsqp_alone(num_instances: int, seed: int) -> int:
    """How many of the first instances with K <= 40 the paper's solver gets certified."""
    rng = np.random.default_rng(seed)
    certified = 0
    for i in range(num_instances):
        sizes = int(rng.integers(1, 21)), int(rng.integers(2, 41))
        values_JK, current_K = instance(FAMILIES[i % len(FAMILIES)], rng, *sizes)
        try:
            solve_certified(values_JK, current_K, solver="slsqp")
        except MixerError:
            continue
        certified += 1
    return certified


def timing(num_targets: int, num_domains: int, repeats: int, solver: str, seed: int) -> float:
    """Median seconds on Gaussian instances."""
    rng = np.random.default_rng(seed)
    seconds = []
    for _ in range(repeats):
        values_JK, current_K = instance("gaussian", rng, num_targets, num_domains)
        start = time.perf_counter()
        solve_certified(values_JK, current_K, solver=solver)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def summary(name: str, records: list[dict[str, object]]) -> dict[str, object]:
    """One line of the table."""
    solved = [record for record in records if not record["failed"]]
    line: dict[str, object] = {"family": name, "instances": len(records)}
    line["failures"] = len(records) - len(solved)
    for key in ("difference", "gap", "violation"):
        line[f"max_{key}"] = max(record[key] for record in solved)  # pyright: ignore
    line["disputed"] = sum(bool(record["disputed"]) for record in solved)
    line["kept"] = sum(bool(record["kept"]) for record in solved)
    line["by_slsqp"] = sum(record["solver"] == "slsqp" for record in solved)
    line["median_ms"] = 1e3 * float(np.median([record["seconds"] for record in solved]))  # pyright: ignore
    return line


def markdown(report: dict[str, object]) -> str:
    """The report as a page."""
    table: list[dict[str, object]] = report["table"]  # pyright: ignore
    timings: dict[str, float] = report["median_seconds"]  # pyright: ignore
    keys = list(table[0])
    lines = [
        "# TiKMiX-D: certificates",
        "",
        f"`{report['command']}`; {report['versions']}; {report['processor']}.",
        "",
        "Differences and gaps in units of max(1, |f|), violations in units of a row's largest",
        "influence (negative: slack to spare). Disputed: further than 1e-6 from Clarabel. Kept:",
        "the mixture in force is the answer.",
        "",
        f"| {' | '.join(keys)} |",
        f"|{'---|' * len(keys)}",
    ]
    for line in table:
        cells = (f"{v:.1e}" if isinstance(v, float) else str(v) for v in line.values())
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| size, solver | median seconds |", "|---|---|"]
    lines += [f"| {name} | {seconds:.4f} |" for name, seconds in timings.items()]
    lines += ["", f"SLSQP alone, K <= 40: {report['slsqp_alone']} certified.", ""]
    return "\n".join(lines)


def main() -> None:
    """Run everything and write `solver_certificates.json` and `.md`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    records = compare(args.instances, args.seed)
    table = [summary("all", records)]
    table += [summary(f, [r for r in records if r["family"] == f]) for f in FAMILIES]
    sizes = ((9, 26, 50), (20, 200, 20), (20, 1000, 10))
    seconds = {
        f"J = {j}, K = {k}, interior_point": timing(j, k, repeats, "interior_point", args.seed)
        for j, k, repeats in sizes
    }
    seconds["J = 9, K = 26, slsqp"] = timing(9, 26, 10, "slsqp", args.seed)
    packages = ("numpy", "scipy", "cvxpy", "clarabel")
    report: dict[str, object] = {
        "command": f"python eval/solver_certificates.py --instances {args.instances} "
        f"--seed {args.seed}",
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "processor": f"{platform.machine()}, Python {platform.python_version()}, one thread",
        "table": table,
        "median_seconds": seconds,
        "slsqp_alone": f"{slsqp_alone(200, args.seed)} of 200",
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "solver_certificates.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "solver_certificates.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
