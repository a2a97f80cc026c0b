"""The fine-tuning recipe: TRL and LoRA, at a tiny size, without a download."""

from __future__ import annotations

import json
import re
import shutil
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import assert_same_bits
from transformers import TrainerCallback

from tikmix_hf import MixtureSchedule, TikMixCallback
from tikmix_hf.signals.losses import mean_losses

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))  # as running the script does

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # trl's and peft's own, on what they find in transformers
    import sft

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs again, when they are used

TINY = (
    "--config recipes/sft.yaml --max_rows 24 --max_length 96 --max_steps 6 --logging_steps 1 "
    "--per_device_train_batch_size 2 --num_rows 4 --num_rounds 2 --every_steps 2 --noise_guard 0 "
    "--preconditioner identity --disable_tqdm true"
).split()
MEASURED_AT = 4


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(folder: Path, *words: str):
    return sft.main([*TINY, "--output_dir", str(folder), *words])


def adapters(trainer) -> dict[str, torch.Tensor]:
    found = {n: p.detach() for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert found
    assert all("lora_" in name for name in found)
    return found


def losses(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def callback_of(trainer) -> Any:
    (found,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, TikMixCallback))
    return found


def completion_losses(model, batch) -> torch.Tensor:
    """Of every token of the completions, from the logits; the prompts' are left out."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    chosen = logits[:, :-1].double().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])
    return -chosen[..., 0][labels != -100]


class ByHand(TrainerCallback):
    """Influence over the adapters, and the targets' losses, right after they were measured."""

    def __init__(self, trainer) -> None:
        self.trainer, self.callback = trainer, callback_of(trainer)
        self.collate = trainer.data_collator

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.global_step != MEASURED_AT:
            return
        measurer, moved = self.callback._updater.measurer, list(adapters(self.trainer).values())
        moved = [p for p in model.parameters() if p.requires_grad]
        model.eval()

        def part(rows):
            values = completion_losses(model, self.collate(list(rows))).mean()
            pieces = torch.autograd.grad(values, moved)
            return values.item(), torch.cat([piece.double().flatten() for piece in pieces])

        self.losses, targets_JP = zip(*map(part, measurer.targets.values()), strict=True)
        _, domains_KP = zip(*map(part, measurer.domains.values()), strict=True)
        self.values = (torch.stack(targets_JP) @ torch.stack(domains_KP).T).numpy()
        model.train()


def test_observing_changes_no_bit_and_measures_the_loss_of_the_completions(tmp_path, monkeypatch):
    every = ("--observe", "true", "--num_rounds", "1", "--num_rows", "99", "--every_steps", "4")
    mixed, seen = sft.mix, []

    def mix_and_watch(trainer, *rest):
        outcome = mixed(trainer, *rest)
        seen.append(ByHand(trainer))
        trainer.add_callback(seen[0])
        return outcome

    monkeypatch.setattr(sft, "mix", mix_and_watch)
    observed = run(tmp_path / "observed", *every)
    (by_hand,) = seen
    matrix = callback_of(observed).influence
    np.testing.assert_allclose(matrix.target_losses, by_hand.losses, rtol=1e-5)
    scale = np.abs(by_hand.values).max()
    assert np.abs(matrix.values - by_hand.values).max() <= 1e-4 * scale

    def mix_without_callback(trainer, *rest):
        outcome = mixed(trainer, *rest)
        trainer.remove_callback(TikMixCallback)
        return outcome

    monkeypatch.setattr(sft, "mix", mix_without_callback)
    monkeypatch.setattr(sft, "report", lambda *_: None)  # there is no schedule to report on
    alone = run(tmp_path / "alone", *every)
    assert losses(alone) == losses(observed)
    assert len(losses(alone)) == 6
    assert_same_bits(adapters(alone), adapters(observed))


def test_a_killed_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    save = ("--save_strategy", "steps", "--save_steps", "3")
    whole = run(tmp_path / "whole", *save)
    (tmp_path / "killed").mkdir()  # after step 5, with whatever it had written by then
    for name in ("checkpoint-3", "schedule.json", "influence.jsonl"):
        copy = shutil.copytree if name.startswith("check") else shutil.copy
        copy(tmp_path / "whole" / name, tmp_path / "killed" / name)
    resumed = run(tmp_path / "killed", *save, "--resume_from_checkpoint", "auto")
    assert losses(resumed) == losses(whole)
    assert_same_bits(adapters(resumed), adapters(whole))
    schedules = [MixtureSchedule.load(tmp_path / n / "schedule.json") for n in ("whole", "killed")]
    assert len(schedules[0].segments) == 3
    for one, other in zip(*(schedule.segments for schedule in schedules), strict=True):
        assert one.from_sample == other.from_sample
        np.testing.assert_array_equal(one.mixture, other.mixture)
    metrics = [json.loads((tmp_path / n / "metrics.json").read_text()) for n in ("whole", "killed")]
    for found in metrics:
        assert found["num_updates"] == 2
        assert list(found["runs"]) == ["tikmix_d"]
        assert found["runs"]["tikmix_d"]["num_samples"] == 6 * 4
    assert metrics[0]["runs"]["tikmix_d"]["losses"] == metrics[1]["runs"]["tikmix_d"]["losses"]
    check_rows_and_final_losses(whole, metrics[0]["runs"]["tikmix_d"])


def check_rows_and_final_losses(trainer, told) -> None:
    domains, measurer = trainer.train_dataset.domains, callback_of(trainer)._updater.measurer
    decode = trainer.processing_class.decode
    for rows in [*(domain.train for domain in domains), *measurer.targets.values()]:
        for row in rows.select(range(3)):
            whole = decode(row["input_ids"])
            answer = decode([label for label in row["labels"] if label != -100])
            assert whole.endswith(answer)
            assert re.search(r"(Description:|Function:|paragraph \d+\?|return\?)\n+$",
                             whole.removesuffix(answer))  # fmt: skip
    model = trainer.model.eval()
    for name, evals in trainer.eval_dataset.items():
        reported = evals.select(range(1, len(evals), 2)).select_columns(["input_ids", "labels"])
        measured = [row["input_ids"] for row in measurer.targets[name]]
        assert all(row["input_ids"] not in measured for row in reported)
        with torch.no_grad():
            by_hand = completion_losses(model, trainer.data_collator(list(reported))).mean()
        np.testing.assert_allclose(told["losses"][name], by_hand, rtol=1e-5)
    mean_losses  # noqa: B018


def test_without_its_marked_lines_the_recipe_is_a_plain_trl_script(tmp_path):
    source = (ROOT / "recipes" / "sft.py").read_text()
    plain = re.sub(r"# tikmix: from here\n.*?# tikmix: to here\n", "", source, flags=re.DOTALL)
    plain = "".join(line for line in plain.splitlines(True) if "# tikmix" not in line.split('"""')[0])
    assert "tikmix_hf" not in plain
    stock = types.ModuleType("stock")
    exec(compile(plain, "stock", "exec"), stock.__dict__)
    words = [word for word in TINY]
    for name in ("--num_rows", "--num_rounds", "--every_steps", "--noise_guard", "--preconditioner"):
        del words[words.index(name) : words.index(name) + 2]
    with pytest.raises(SystemExit, match="Unknown arguments from config file"):
        stock.main([*words, "--output_dir", str(tmp_path)])
