"""A published schedule replayed by a larger run: recipes/transfer.yaml, at a tiny size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hub_server import HubServer

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))  # as running the script does

import tiny  # noqa: E402
import tiny_recipe  # noqa: E402
from arguments import parse  # noqa: E402  # pyright: ignore[reportMissingImports]

from tikmix_hf import MixtureSchedule, sources  # noqa: E402
from tikmix_hf.recipe import MixtureArguments  # noqa: E402
from tikmix_hf.schedule import Run, Segment  # noqa: E402

NAMES = ("numbers", "words", "code")
SMALL = MixtureSchedule(
    NAMES,
    (
        Segment(from_sample=0, mixture=np.array([0.5, 0.25, 0.25])),
        Segment(from_sample=4, mixture=np.array([0.0, 0.25, 0.75])),
    ),
    run=Run(num_samples=8, num_tokens=128),
)


def settings() -> dict:
    return yaml.safe_load((ROOT / "recipes" / "transfer.yaml").read_text("utf-8"))


def test_a_small_runs_schedule_is_fetched_by_name_and_replayed_by_a_larger_run(tmp_path):
    given = tiny_recipe.make_tiny(tmp_path)
    mine = yaml.safe_load(Path(given.recipe).read_text())
    changed = {name: mine[name] for name in ("domains", "targets", "heldout", "block_size")}
    changed |= {
        "tokenizer_name_or_path": given.model,
        "model_config": {**settings()["model_config"], "hidden_size": 16, "num_hidden_layers": 1},
        "mixture": "user/small",
        "max_steps": 3,
        "per_device_train_batch_size": 8,
        "warmup_steps": 1,
        "output_dir": str(tmp_path / "large"),
    }
    (tmp_path / "transfer.yaml").write_text(yaml.safe_dump({**settings(), **changed}))
    server = HubServer()
    try:
        server.add("user/small", {"mixture_schedule.json": SMALL.to_json().encode()})
        done = subprocess.run(
            [sys.executable, "recipes/pretrain.py", "--config", str(tmp_path / "transfer.yaml")],
            cwd=ROOT,
            env={
                **{k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"},
                "HF_ENDPOINT": server.endpoint,
                "HF_HOME": str(tmp_path / "home"),
            },
            capture_output=True,
            text=True,
            timeout=500,
        )
    finally:
        server.close()
    assert done.returncode == 0, done.stderr[-3000:]
    large = MixtureSchedule.load(tmp_path / "large" / "schedule.json")
    assert large.run.num_samples == 24
    assert [segment.from_sample for segment in large.segments] == [0, 12]
    for fraction in (0.0, 0.49, 0.5, 1.0):
        assert large.mixture_at_fraction(fraction) == SMALL.mixture_at_fraction(fraction)
    assert large.provenance["operations"][-1]["rescale"]["by"] == "fraction"
    metrics = json.loads((tmp_path / "large" / "metrics.json").read_text())
    assert list(metrics["runs"]) == ["static"]
    assert metrics["runs"]["static"]["trained_tokens"] == 24 * tiny_recipe.BLOCK


def test_the_recipe_names_the_folder_of_the_small_run_and_measures_nothing(tmp_path):
    path = str(ROOT / "recipes" / "transfer.yaml")
    _, _, mixture, args = parse(["--config", path, "--output_dir", str(tmp_path)])
    quickstart = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text("utf-8"))
    assert mixture.mixture == quickstart["output_dir"]
    assert (mixture.mixer, mixture.replay_by) == ("static", "fraction")
    small = quickstart["max_steps"] * quickstart["per_device_train_batch_size"]
    assert args.max_steps * args.per_device_train_batch_size == 4 * small
    with pytest.raises(SystemExit, match="invalid choice: 'halves'"):
        parse(["--config", path, "--replay_by", "halves"])


@pytest.mark.parametrize(
    ("replay_by", "starts", "num_samples"),
    # 12 tokens a sample instead of 16: as many tokens are 4 * 16 / 12 = 5 1/3 samples.
    [("sample", [0, 4], 8), ("fraction", [0, 12], 24), ("tokens", [0, 5], 24)],
)
def test_a_schedule_is_cut_to_the_run_as_the_recipe_says(tmp_path, replay_by, starts, num_samples):
    domains = tiny.make_domains()
    folder = SMALL.save_pretrained(tmp_path / "small")
    args = MixtureArguments(mixture=str(folder), replay_by=replay_by)
    found = sources.replayed(args, domains, num_samples=24)
    assert isinstance(found, MixtureSchedule)
    assert [segment.from_sample for segment in found.segments] == starts
    assert found.run.num_samples == num_samples
    assert found.mixture_at(0) == SMALL.mixture_at(0)


def test_words_and_shares_stay_what_they_are_and_what_is_not_there_is_named(tmp_path):
    domains = tiny.make_domains()
    for mixture in ("uniform", {"a": 1.0}):
        args = MixtureArguments(mixture=mixture, replay_by="fraction")
        assert sources.replayed(args, domains, num_samples=9) == mixture
    with pytest.raises(FileNotFoundError, match="may not be asked for user/none"):
        sources.read_mixture("user/none")
    with pytest.raises(ValueError, match="`repo_or_folder` must be a folder"):
        sources.read_mixture("runs/proxy/none")
    path = replace(SMALL, run=Run()).save(tmp_path / "small.json")
    args = MixtureArguments(mixture=str(path), replay_by="fraction")
    with pytest.raises(ValueError, match=r"`run\.num_samples`"):
        sources.replayed(args, domains, num_samples=9)
    args = MixtureArguments(mixture=str(path), mixture_revision="main")
    with pytest.raises(ValueError, match="`revision` must be None"):
        sources.replayed(args, domains, num_samples=9)
