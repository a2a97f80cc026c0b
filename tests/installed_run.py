"""A training run as who installed a wheel without extras would write it; its folder is the first
argument. Run by a Python that has the wheel, outside the repository."""

from __future__ import annotations

import sys
import warnings

import datasets
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import tikmix_hf

warnings.filterwarnings("ignore")
torch.manual_seed(0)
rows = {
    name: datasets.Dataset.from_dict({"input_ids": torch.randint(0, 64, (40, 8)).tolist()})
    for name in ("web", "code", "exam")
}
exam = {"exam": rows.pop("exam")}
domains = tikmix_hf.Domains.from_datasets(rows, heldout=0.2, seed=0)
train = tikmix_hf.InterleavedDomainDataset(domains, "uniform", num_samples=32, seed=0)
callback = tikmix_hf.TikMixCallback(train, targets=exam, every_steps=2, num_rows=4)
sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_attention_heads=2, **sizes))
args = TrainingArguments(sys.argv[1], max_steps=8, per_device_train_batch_size=4, use_cpu=True)
args.report_to = []
trainer = Trainer(
    model,
    args,
    train_dataset=train,
    data_collator=tikmix_hf.PackedCollator(),
    callbacks=[callback],
)
trainer.train()
print(tikmix_hf.MixtureSchedule.load(f"{sys.argv[1]}/schedule.json").to_dict()["domains"])
