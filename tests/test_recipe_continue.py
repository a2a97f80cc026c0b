"""Continued pre-training of a folder's model: two processes, a checkpoint, and FSDP2's keys."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from test_distributed import on_two_ranks
from test_sharded import domains, model, targets, trained
from tiny import assert_same_bits
from tiny_recipe import make_tiny
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from tikmix_hf import MixtureSchedule, distributed, recipe
from tikmix_hf.signals import GroupInfluence

ROOT = Path(__file__).parent.parent
SHARDED = str(ROOT / "recipes" / "fsdp2.yaml")
CONTINUED = ROOT / "recipes" / "continue_pretrain.yaml"


def write_recipe(folder: Path) -> str:
    """The recipe as it stands, but for its text, its model and its size."""
    tiny = make_tiny(folder)
    sources = yaml.safe_load(Path(tiny.recipe).read_text())
    settings = yaml.safe_load(CONTINUED.read_text()) | {
        "model_name_or_path": tiny.model,
        **{name: sources[name] for name in ("domains", "targets", "block_size", "heldout")},
        "constraints": {"floors": {"words": 0.1}},
        **{"every_steps": 2, "num_rows": 4, "num_rounds": 2, "noise_guard": 0},
        **{"max_steps": 6, "save_steps": 4, "warmup_steps": 1, "learning_rate": 1.0e-2},
        **{"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        **{"use_cpu": True, "bf16": False, "dataloader_pin_memory": False, "disable_tqdm": True},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "run.yaml")


def test_two_processes_train_a_folders_model_further_and_resume_to_the_same_bits(tmp_path):
    words = ["--config_file", SHARDED, "--num_processes", "2", "--mixed_precision", "no"]
    words += ["--main_process_port", "0"]
    script = [str(ROOT / "tests" / "continued_run.py"), write_recipe(tmp_path), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *words, *script],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # This machine has no GPUs, which accelerate does not mention.
    assert "FSDP is asked for and not given, because the device is 'cpu'" in done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    weights, resumed, start = (
        load_file(folder / "model.safetensors")
        for folder in (whole / "model", killed / "model", tmp_path / "model")
    )
    assert_same_bits(weights, resumed)
    moved = [(weights[name] - start[name]).abs().max() for name in weights]
    assert 0 < max(moved) < 0.1  # it went on from the folder's weights, and not from others
    schedules = [MixtureSchedule.load(folder / "schedule.json") for folder in (whole, killed)]
    for one, other in zip(*(schedule.segments for schedule in schedules), strict=True):
        assert one.from_sample == other.from_sample
        np.testing.assert_array_equal(one.mixture, other.mixture)
    assert [segment.from_sample for segment in schedules[0].segments] == [0, 24, 40]
    metrics = [json.loads((f / "metrics.json").read_text())["runs"] for f in (whole, killed)]
    assert metrics[0]["tikmix_d"]["losses"] == metrics[1]["tikmix_d"]["losses"]
    assert metrics[0]["tikmix_d"]["trained_tokens"] == 6 * 2 * 2 * 2 * 16


def test_the_recipe_is_one_that_pretrain_reads():
    read = recipe.load(CONTINUED)
    assert read.model.model_name_or_path == "HuggingFaceTB/SmolLM2-135M"
    assert set(read.mixture.constraints["floors"]) <= set(read.data.domains)


def plugin(monkeypatch) -> FullyShardedDataParallelPlugin:
    """What `accelerate launch --config_file recipes/fsdp2.yaml` makes of the file."""
    assert load_config_from_file(SHARDED).fsdp_config["fsdp_version"] == 2  # refuses unknown keys
    words = ["--config_file", SHARDED, "--num_processes", "2", "script.py"]
    args, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    for name, value in prepare_multi_gpu_env(args).items():
        if name.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(name, value)
    return FullyShardedDataParallelPlugin()


def test_accelerate_reads_every_key_as_fsdp2s(monkeypatch):
    made = plugin(monkeypatch)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    assert (made.fsdp_version, made.reshard_after_forward) == (2, True)
    assert "SHARDED_STATE_DICT" in str(made.state_dict_type)
    assert not made.cpu_ram_efficient_loading
    made.set_state_dict_type("FULL_STATE_DICT")  # what the recipe does before it saves the model
    assert "FULL_STATE_DICT" in str(made.state_dict_type)


def check_influence_of_accelerates_shards(expected):
    accelerator = SimpleNamespace(
        state=SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin()),
        mixed_precision="no",
        is_main_process=True,
        device=torch.device("cpu"),
    )
    network = fsdp2_prepare_model(accelerator, model())
    assert all(isinstance(layer, FSDPModule) for layer in network.model.layers)
    assert all(isinstance(parameter, DTensor) for parameter in network.parameters())
    two = measure(network)
    distributed.check_identical("influence", two.tobytes())
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(two - expected) <= 1e-5 * scale).all()


def measure(network) -> np.ndarray:
    influence = GroupInfluence(network, preconditioner="sign", optimizer=trained(network))
    return influence.measure(domains(3), targets()).values


@pytest.mark.filterwarnings("ignore")  # accelerate's own, on torch's
def test_what_accelerate_shards_by_that_file_has_the_influence_of_one_process(
    tmp_path, monkeypatch
):
    plugin(monkeypatch)
    check = functools.partial(check_influence_of_accelerates_shards, measure(model()))
    on_two_ranks(check, tmp_path)
