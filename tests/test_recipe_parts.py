"""Parts of the recipes, one at a time: text, callback, length, the model at the end."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from test_recipe_sft import callback_of, sft

from tikmix_hf.recipe import MixtureArguments

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))  # as running the script does

import instructions  # noqa: E402  # pyright: ignore[reportMissingImports]
import mixing  # noqa: E402  # pyright: ignore[reportMissingImports]
import pretrain  # noqa: E402  # pyright: ignore[reportMissingImports]

pytestmark = pytest.mark.filterwarnings("ignore")  # trl's and peft's own


def functions_of(unseen: bool) -> set[str]:
    """Whole functions, a few hundred, of the targets' packages or of the domains'."""
    found = (instructions._unseen if unseen else instructions._seen)(0)
    return {f"{header}{body}" for header, body, _ in found}


def test_no_function_of_a_target_is_in_a_domain(monkeypatch):
    # Every file of a package has one function, named after its path; parsing all takes long.
    def one(path):
        return (instructions.Function("def f():", str(path), f"What {path} does."),)

    monkeypatch.setattr(instructions, "functions", one)
    seen, unseen = functions_of(unseen=False), functions_of(unseen=True)
    assert len(seen) > 100
    assert len(unseen) > 50
    assert not seen & unseen


def test_a_completion_is_kept_once_and_the_rows_are_still_as_many_as_asked_for():
    rows = [{"prompt": f"{n}", "completion": text} for n, text in enumerate("aabbcd")]
    kept = instructions._rows(rows, 3)
    assert kept["prompt"] == ["0", "2", "4"]
    assert kept["completion"] == ["a", "b", "c"]


# Every setting differs from its default, and so do those that a callback is made of.
SET: dict[str, Any] = {
    "mixer_settings": {"gamma": 0.5},
    "constraints": {"caps": {"d0": 0.5}},
    "budget": 0.25,
    "every_steps": 3,
    "num_rows": 9,
    "num_rounds": 3,
    "tolerance": 0.125,
    "noise_guard": 0.5,
    "observe": True,
    "preconditioner": "adam",
    "preconditioner_settings": {"damping": 0.2},
    "parameters": "lm_head",
    "offload": True,
}
# Not the callback's: the dataset's, what runs are made, and a model that would be loaded.
NOT_ITS_OWN = {
    *("mixture", "mixture_revision", "replay_by", "control", "reference_model_name_or_path"),
    "mixer",
}


def test_every_setting_of_a_recipe_arrives_in_its_callback():
    args = MixtureArguments(**SET)
    names = {field.name for field in dataclasses.fields(args)}
    assert set(SET) == names - NOT_ITS_OWN
    assert all(getattr(args, name) != getattr(MixtureArguments(), name) for name in SET)

    def collate(rows):
        return {}

    callback = mixing.make_callback(
        args, tiny.make_dataset(), tiny.make_targets(), seed=7, data_collator=collate
    )
    wishes, updater = callback.wishes, callback._updater
    assert (wishes.budget, wishes.every_steps, wishes.num_rows) == (0.25, 3, 9)
    assert (updater.noise_guard, updater.observe, callback.observe) == (0.5, True, True)
    mixer = callback.mixer
    assert (mixer.gamma, mixer.constraints.caps) == (0.5, {"d0": 0.5})
    settings = updater.measurer.settings
    assert (settings.num_rounds, settings.tolerance, settings.seed) == (3, 0.125, 7)
    assert (settings.parameters, settings.offload) == ("lm_head", True)
    assert settings.data_collator is collate
    assert updater.measurer.preconditioner.damping == 0.2


@pytest.mark.parametrize(
    ("max_steps", "num_samples"),
    # 23 rows in steps of 2 x 3 are 3 whole steps; 5 steps are 30 samples, some of them read twice.
    [(-1, 18), (5, 30)],
)
def test_without_a_number_of_steps_the_run_is_one_pass_of_whole_steps(
    monkeypatch, max_steps, num_samples
):
    domains = tiny.make_domains((13, 10))
    args = SimpleNamespace(
        train_batch_size=2,
        gradient_accumulation_steps=3,
        world_size=1,
        max_steps=max_steps,
        seed=0,
        process_index=1,
    )
    data = SimpleNamespace(domains=domains, targets=tiny.make_targets())
    callbacks: list[Any] = []
    trainer = SimpleNamespace(args=args, data_collator=None, add_callback=callbacks.append)
    trainer.callback_handler = SimpleNamespace(callbacks=callbacks)
    monkeypatch.setattr(sft, "read_prepared", lambda *_, **__: data)
    monkeypatch.setattr(sft, "describe", lambda data: "")
    _, dataset = sft.mix(trainer, MixtureArguments(mixer="static"), None, 0.1)
    assert len(dataset) == num_samples
    assert trainer.train_dataset is dataset is callback_of(trainer).dataset


def test_a_sharded_model_is_gathered_before_it_is_saved(tmp_path, monkeypatch):
    done: list[Any] = []
    plugin = SimpleNamespace(set_state_dict_type=done.append)

    class Sharded:
        """Stands for a Trainer that shards."""

        is_fsdp_enabled = True
        accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))

        def __init__(self, model, args, **settings):
            self.args = args

        def train(self, **settings):
            done.append("trained")
            return SimpleNamespace(metrics={"train_runtime": 1.0})

        def save_model(self, folder):
            done.append(folder)

    monkeypatch.setattr(pretrain, "Trainer", Sharded)
    monkeypatch.setattr(pretrain, "make_model", lambda *_: None)
    monkeypatch.setattr(pretrain, "result", lambda *_, **__: {})
    args = tiny.make_arguments(tmp_path, max_steps=2)
    data = SimpleNamespace(
        domains=tiny.make_domains(), targets=tiny.make_targets(), evals={}, tokenizer=None
    )
    pretrain.train(None, MixtureArguments(mixer="static"), args, data)
    assert done == ["trained", "FULL_STATE_DICT", str(tmp_path / "model")]
