"""`tikmix eval`: a checkpoint's scores on a suite, with all that one needs to get them again.

In: the parsed options, which name a folder or a repository of the Hub with a model and its
tokenizer. Out: `NAME_SUITE.json` and `.md` in runs/scores or `--output` (`NAME_SUITE_seedN`, where
`--seed` says with which seed it was trained); on request each question as a line of JSON, gzipped
if the name ends in .gz. Ranks share the questions, rank 0 writes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tikmix_hf import distributed, files
from tikmix_hf.commands import eval_identity, first_checks, screen
from tikmix_hf.harness import Harness, Suite, SuiteScores
from tikmix_hf.harness.answers import bits_per_byte
from tikmix_hf.harness.questions import FEWSHOT_SEED
from tikmix_hf.harness.suite import BENCHMARK
from tikmix_hf.provenance import PACKAGES, provenance

ALL = "all"


def run(args: argparse.Namespace) -> int:
    """Scores and writes; `first_checks.scoring` went before.

    Returns:
        1 if a task failed, which stderr names; the others' scores are written. Else 0.

    Raises:
        ValueError: the options, or what they name, are wrong; another result would be overwritten.
        OSError: the scores cannot be written.
        ImportError: lm-eval is missing.
        OtherRankFailed: on the ranks that went well, where another did not.
    """
    state = PartialState(cpu=not torch.cuda.is_available())
    with distributed.FailTogether():
        harness = _harness(args)
        model, tokenizer = _load(args.checkpoint)
        settings = _settings(args, harness.suite, model)
        place = _place(args, harness.suite)
        _refuse_to_overwrite(args, place, settings)
    scores = harness.score(model.to(state.device), tokenizer)  # pyright: ignore[reportArgumentType]
    with distributed.FailTogether():
        if distributed.rank() == 0:
            _write(args, place, settings, scores)
    for task, reason in scores.failures.items():
        print(f"tikmix eval: {task} failed: {reason}", file=sys.stderr)
    state.destroy_process_group()
    return 1 if scores.failures else 0


def _harness(args: argparse.Namespace) -> Harness:
    suite = Suite.load(args.suite)
    if made := [task.task for task in suite.tasks if task.kind != BENCHMARK]:
        raise ValueError(
            f"`--suite` must be of benchmarks; {', '.join(made)} of {suite.name!r} are made of a "
            "run's own held-out text. Ask them in a recipe (`eval_suites`) or with EvalCallback."
        )
    return Harness(
        suite if args.tasks is None else suite.only(args.tasks),
        data_dir=args.data_dir,
        limit=args.limit,
        batch_size=first_checks.batch_size(args.batch_size),
        keep_samples=args.samples is not None,
    )


def _load(checkpoint: str) -> tuple[PreTrainedModel, Any]:
    try:
        model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="auto")
        return model.eval(), AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as err:
        reason = " ".join(str(err).split())
        raise ValueError(
            f"`checkpoint` must be a folder, or a name on the Hub, with a causal language model "
            f"and its tokenizer; got {checkpoint!r} ({reason})."
        ) from err


def _settings(args: argparse.Namespace, suite: Suite, model: PreTrainedModel) -> dict[str, Any]:
    """What was asked of whom, as the result carries it."""
    return {
        "name": _name(args),
        "seed": args.seed,
        "checkpoint": args.checkpoint,
        "model": eval_identity.of_model(model),
        **eval_identity.of_questions(suite, args.data_dir),
        "fewshot_seed": FEWSHOT_SEED,
        "batch_size": args.batch_size,
        "num_ranks": distributed.world_size(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _name(args: argparse.Namespace) -> str:
    folder = Path(args.checkpoint)
    own = folder.resolve().name if folder.exists() else args.checkpoint.replace("/", "--")
    name = args.name or own
    if not name or Path(name).name != name:
        raise ValueError(f"`--name` must be a file's name without a folder; got {name!r}.")
    return name


def _place(args: argparse.Namespace, suite: Suite) -> Path:
    """Of the result, without ending."""
    seed = "" if args.seed is None else f"_seed{args.seed}"
    return args.output / f"{_name(args)}_{suite.name}{seed}"


def _samples_place(args: argparse.Namespace) -> str | None:
    """The questions' file as the result names it: from its own folder on, so that both can move."""
    if args.samples is None:
        return None
    return Path(os.path.relpath(args.samples.resolve(), args.output.resolve())).as_posix()


def _refuse_to_overwrite(args: argparse.Namespace, place: Path, record: Mapping[str, Any]) -> None:
    """Refuses to replace what another checkpoint scored, or the same one on other questions.

    Raises:
        ValueError: there is such a result; says what differs.
    """
    if args.force:
        return
    path = place.with_name(f"{place.name}.json")
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if old and (differing := eval_identity.differing(old, record)):
        raise ValueError(
            f"{path} holds another result; differing: {', '.join(differing)}. Choose another "
            "`--name` or `--output`, or overwrite it with `--force`."
        )
    if (
        args.samples is not None
        and args.samples.exists()
        and old.get("samples") != _samples_place(args)
    ):
        raise ValueError(
            f"{args.samples} is there already, and not this result's. Choose another `--samples`, "
            "or overwrite it with `--force`."
        )


def averages(suite: Suite, scores: SuiteScores) -> dict[str, float | None]:
    """Means of the tasks' own metrics: of all tasks, and of each group.

    A task that failed leaves its averages None: those of the rest would not compare.
    """
    groups = dict.fromkeys(task.group for task in suite.tasks if task.group is not None)
    found: dict[str, float | None] = {}
    for name in (ALL, *groups):
        values = [scores[t.task].value for t in suite.tasks if name in (ALL, t.group)]
        known = [value for value in values if value is not None]
        found[name] = sum(known) / len(known) if len(known) == len(values) else None
    return found


def _write(
    args: argparse.Namespace, place: Path, settings: Mapping[str, Any], scores: SuiteScores
) -> None:
    """Each file at once or not at all; the scores first, which took longest to get."""
    means = averages(_harness(args).suite, scores)
    origin = provenance((*PACKAGES, "lm_eval"))
    record = {**settings, **scores.to_dict(), "averages": means, **origin}
    record = files.finite({**record, "samples": _samples_place(args)})
    path, page = place.with_name(f"{place.name}.json"), _page(settings, scores, means, origin)
    files.write_json(path, record)
    files.write_text(place.with_name(f"{place.name}.md"), "\n".join(page))
    if args.samples is not None:
        try:
            _write_samples(args.samples, scores)
        except OSError:
            files.write_json(path, {**record, "samples": None})
            raise
    if args.json:
        screen.document(json.loads(path.read_text("utf-8")))
    else:
        screen.say(*page)


def _page(
    settings: Mapping[str, Any],
    scores: SuiteScores,
    means: Mapping[str, float | None],
    origin: Mapping[str, Any],
) -> list[str]:
    """The result as lines of Markdown."""
    versions = ", ".join(f"{package} {number}" for package, number in origin["versions"].items())
    named = [f"{name} {'none' if mean is None else f'{mean:.4f}'}" for name, mean in means.items()]
    seed = "" if settings["seed"] is None else f", trained with seed {settings['seed']}"
    num_ranks = settings["num_ranks"]
    return [
        f"# {settings['name']} on the suite {scores.suite}",
        "",
        scores.to_markdown(),
        f"Average of the tasks' own metrics: {', '.join(named)}.",
        "",
        f"Checkpoint `{settings['checkpoint']}`, weights "
        f"{settings['model']['weights_sha256'][:16]}{seed}. Value ± standard error over questions.",
        "",
        f"`{origin['command']}`, {num_ranks} rank{'s' if num_ranks > 1 else ''}, {origin['date']}; "
        f"{origin['hardware']}, {settings['accelerator'] or 'no GPU'}; {versions}.",
        "",
    ]


def _write_samples(path: Path, scores: SuiteScores) -> None:
    """A line of JSON for each question; gzipped where the name says so."""
    text = "".join(f"{json.dumps(files.finite(line))}\n" for line in _questions(scores))
    if path.suffix == ".gz":
        files.write_bytes(path, gzip.compress(text.encode(), mtime=0))
    else:
        files.write_text(path, text)


def _questions(scores: SuiteScores) -> Iterator[dict[str, Any]]:
    """Each question's scores, for paired comparisons, and what they were made of."""
    for task in scores.tasks:
        for sample in task.samples:
            values = {name: sample[name] for name in sample["metrics"]}
            bits = bits_per_byte(sample)
            yield {
                "task": task.task,
                "subset": sample["subset"],
                "doc_id": sample["doc_id"],
                **({} if bits is None else {"bits_per_byte": bits}),
                **values,
                "target": sample["target"],
                "arguments": sample["arguments"],
                "answers": sample["filtered_resps"],
            }
