"""A recipe of tiny files, a tokenizer, a model, and a checkpoint as the Trainer saves it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tikmix_hf import cli

BLOCK = 16
ROWS, ROUNDS = 8, 2


def texts() -> dict[str, list[str]]:
    return {
        "numbers": [" ".join(str(i * j) for j in range(40)) for i in range(60)],
        "words": [f"the {a} fox of page {i} jumps over the {a} dog. " * 4
                  for i, a in enumerate(["red", "quick", "old"] * 20)],
        "code": [f"def f{i}(x):\n    return x + {i}\n" * 3 for i in range(60)],
        "tales": [f"the {a} dog sleeps on page {i}. " * 4
                  for i, a in enumerate(["red", "old"] * 9)],
        "sums": [" ".join(str(i + j) for j in range(30)) for i in range(18)],
    }  # fmt: skip


def make_tokenizer(vocabulary: int = 300) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for part in texts().values() for text in part], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def make_model(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    return LlamaForCausalLM(config)


def train_a_little(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """Three AdamW steps in the Trainer's groups: matrices decay, norms do not."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    for seed in range(3):
        ids = torch.randint(0, 290, (4, BLOCK), generator=torch.Generator().manual_seed(seed))
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def make_tiny(folder: Path) -> SimpleNamespace:
    """Sources, a recipe with training keys in it, a model, and a checkpoint as Trainer saves it."""
    for name, documents in texts().items():
        lines = [json.dumps({"text": text}) for text in documents]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    settings = {
        "domains": {n: {"path": str(folder / f"{n}.jsonl")} for n in ("numbers", "words", "code")},
        "targets": {n: {"path": str(folder / f"{n}.jsonl")} for n in ("tales", "sums")},
        "heldout": 0.2,
        "block_size": BLOCK,
        "mixture": {"numbers": 0.5, "words": 0.3, "code": 0.2},
        "mixer": "tikmix_d",
        "mixer_settings": {"gamma": 0.5},
        "num_rows": ROWS,
        "num_rounds": ROUNDS,
        "seed": 3,
        # Of the training, and nothing that measuring reads:
        "model_config": {"model_type": "llama"},
        "max_steps": 10,
        "learning_rate": 1.0e-3,
        "output_dir": "nowhere",
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    make_model(len(tokenizer)).save_pretrained(folder / "model")
    trained = make_model(len(tokenizer))
    optimizer = train_a_little(trained)
    checkpoint = folder / "run" / "checkpoint-3"
    tokenizer.save_pretrained(checkpoint)
    trained.save_pretrained(checkpoint)
    torch.save(optimizer.state_dict(), checkpoint / "optimizer.pt")
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 3}))
    return SimpleNamespace(
        folder=folder,
        recipe=str(folder / "recipe.yaml"),
        model=str(folder / "model"),
        checkpoint=str(checkpoint),
        trained=trained,
        optimizer=optimizer,
        tokenizer=tokenizer,
    )


def run(tiny, folder: Path, *words: str, models: tuple[str, ...] = ()) -> int:
    options = ["--config", tiny.recipe, "--output", str(folder), "--device", "cpu", "--quiet"]
    return cli.main(["influence", "--model", *(models or (tiny.model,)), *options, *words])
