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

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "recipes"))  # as running the script does

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # trl's and peft's own, on what they find in transformers
    import sft

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs again, when they are used


def options(text: str) -> list[str]:
    return text.split()


TINY = options(
    "--config recipes/sft.yaml --max_rows 16 --max_length 96 --max_steps 6 "
    "--logging_steps 1 --per_device_train_batch_size 2 --num_rows 4 --num_rounds 2 "
    "--every_steps 2 --noise_guard 0 --preconditioner identity --disable_tqdm true"
)
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
        self.callback = callback_of(trainer)
        self.collate = trainer.data_collator

    def on_step_end(self, args, state, control, *, model, **kwargs):
        if state.global_step != MEASURED_AT:
            return
        measurer = self.callback._updater.measurer
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

    monkeypatch.setattr(sft, "report", lambda *_: None)  # it takes long, and is looked at elsewhere
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


def test_without_its_marked_lines_the_recipe_is_a_plain_trl_script(tmp_path):
    source = (ROOT / "recipes" / "sft.py").read_text()
    plain = re.sub(r"# tikmix: from here\n.*?# tikmix: to here\n", "", source, flags=re.DOTALL)
    plain = re.sub(r"^(?!A plain).*# tikmix.*\n", "", plain, flags=re.MULTILINE)
    assert "tikmix_hf" not in plain
    stock = types.ModuleType("stock")
    exec(compile(plain, "stock", "exec"), stock.__dict__)
    words = options(
        "--use_peft true --lora_target_modules all-linear --max_rows 8 --max_length 64 "
        "--max_steps 1 --per_device_train_batch_size 2 --use_cpu true --bf16 false "
        "--report_to none --save_strategy no --dataloader_pin_memory false --disable_tqdm "
        "true"
    )
    trained = stock.main([*words, "--output_dir", str(tmp_path)])
    assert trained.state.global_step == 1
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def jsonl(path: Path, num_rows: int = 8, **columns: str) -> str:
    row = columns or {"prompt": "What is 1 + 1?", "completion": " 2"}
    path.write_text("\n".join(json.dumps(row) for _ in range(num_rows)))
    return str(path)


def test_ones_own_files_become_domains_of_their_names(tmp_path):
    web = jsonl(tmp_path / "web.jsonl")
    exam = jsonl(tmp_path / "exam.jsonl", prompt="a", completion="b")
    words = ["--domain", f"web={web}", "--domain", f"sums={exam}", "--target", f"exam={exam}"]
    (args,) = sft.parse([sft.InstructionArguments], words)
    read = sft.load(args, seed=0)
    assert (list(read.domains), list(read.targets)) == (["web", "sums"], ["exam"])
    assert read.domains["sums"][0] == {"prompt": "a", "completion": "b"}
    assert len(read.targets["exam"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--control", "true"], "`control` must be left out here"),
        (["--mixer_settings", '{"gamma": .5}'], "`mixer_settings` must be JSON"),
        (["--domain", "web={ok}"], "`domain` and `target` must be given together"),
        (["--domain", "web", "--target", "t={ok}"], "`domain` must be NAME=FILE.jsonl"),
        (["--domain", "web=nowhere.jsonl", "--target", "t={ok}"], "of a file that is there"),
        (["--domain", "w={ok}", "w={ok}", "--target", "t={ok}"], "each one once; got 'w' twice"),
        (["--domain", "w={ok}", "--target", "t={other}"], "`prompt` and `completion` in each"),
        (["--domain", "w={ok}", "--target", "t={short}"], r"4 rows or more; \['t'\] have fewer"),
        (["--domain", "w={bad}", "--target", "t={ok}"], "`domain` w=.*bad: no JSON lines"),
        (["--mixer", "doremi"], "`reference_model` must be a trained model"),
    ],
    ids=str,
)
def test_what_could_only_fail_later_fails_before_there_is_a_model(tmp_path, words, message):
    (tmp_path / "bad").write_text("no JSON")
    files = {
        "ok": jsonl(tmp_path / "ok.jsonl"),
        "other": jsonl(tmp_path / "other.jsonl", text="no completion"),
        "short": jsonl(tmp_path / "short.jsonl", num_rows=3),
        "bad": str(tmp_path / "bad"),
    }
    words = [re.sub(r"\{(\w+)\}$", lambda found: files[found[1]], word) for word in words]
    with pytest.raises(SystemExit, match=message) as raised:
        run(tmp_path, *words)
    assert len(str(raised.value).splitlines()) == 1
