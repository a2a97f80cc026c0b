"""Models and batches small enough to be taken apart sample by sample, and the slow, obvious S."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

VOCABULARY = 31


def llama(dtype=torch.float64, *, tied=True, dropout=0.0):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=tied,
        attention_dropout=dropout,
        pad_token_id=0,
    )
    return in_its_own_precision(LlamaForCausalLM(config).to(dtype))


def gpt2(dtype=torch.float64, *, dropout=0.0):
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=16,
        n_embd=16,
        n_layer=2,
        n_head=2,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return in_its_own_precision(GPT2LMHeadModel(config).to(dtype))


def in_its_own_precision(model):
    """transformers computes norms and losses in float32, which would hide float64's precision."""

    def loss_function(logits, labels, *, vocab_size, **_):
        return nn.functional.cross_entropy(
            logits[:, :-1].reshape(-1, vocab_size), labels[:, 1:].reshape(-1)
        )

    if model.dtype == torch.float64:
        model.loss_function = loss_function
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, LlamaRMSNorm):
                    norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                    setattr(module, name, norm.to(torch.float64))
    return model


def rows(seed, num_rows, length=9):
    """Rows of text; a different part of each is padded or masked."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, VOCABULARY, (num_rows, length), generator=generator)
    labels = input_ids.clone()
    for row in range(num_rows):
        labels[row, : row % 3] = -100
        labels[row, length - row % 4 :] = -100
    attention_mask = torch.ones_like(input_ids)
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def split(rows, size):
    """Microbatches of `size` rows."""
    num_rows = len(rows["input_ids"])
    return [
        {name: column[start : start + size] for name, column in rows.items()}
        for start in range(0, num_rows, size)
    ]


def domains(size=2):
    """Three domains of unequal length, in microbatches."""
    return {
        name: split(rows(seed, num), size)
        for seed, (name, num) in enumerate([("web", 8), ("code", 6), ("books", 4)], start=10)
    }


def targets(size=2):
    """Two targets of unequal row length, in microbatches."""
    return {"arc": split(rows(20, 5, 7), size), "boolq": split(rows(21, 4, 12), size)}


def mean_token_gradient(model, batches):
    """(P,) float64: sample by sample, from the logits, without the model's own loss."""
    parameters = [p for p in dict.fromkeys(model.parameters()) if p.requires_grad]
    total, num_tokens = 0.0, 0
    for batch in batches:
        for row in range(len(batch["input_ids"])):
            one = {name: column[row : row + 1] for name, column in batch.items()}
            logits = model(
                input_ids=one["input_ids"], attention_mask=one["attention_mask"]
            ).logits.double()
            labels = one["labels"][:, 1:]
            counted = labels != -100
            losses = -logits[:, :-1].log_softmax(-1)[counted]
            loss = losses.gather(1, labels[counted][:, None]).sum()
            gradient = torch.autograd.grad(loss, parameters)
            total = total + torch.cat([g.double().flatten() for g in gradient])
            num_tokens += int(counted.sum())
    return total / num_tokens


def reference(model, domain_batches, target_batches, inverse_hessian):
    """(J, K) float64, S[j, k] = f_j . inverse_hessian(g_k)."""
    targets_J = [mean_token_gradient(model, batches) for batches in target_batches.values()]
    updates_K = [
        inverse_hessian(mean_token_gradient(model, batches)) for batches in domain_batches.values()
    ]
    return np.array([[float(f @ update) for update in updates_K] for f in targets_J])


class Quadratic(nn.Module):
    """loss = curvature / 2 * |theta - centre|^2 for every token; the Hessian is curvature * 1."""

    def __init__(self, theta, curvature=3.0):
        super().__init__()
        self.theta = nn.Parameter(torch.as_tensor(theta, dtype=torch.float64))
        self.curvature = curvature

    def forward(self, input_ids, labels, centre, use_cache):
        return SimpleNamespace(loss=self.curvature / 2 * (self.theta - centre).square().sum())


def quadratic_batch(centre, num_tokens=4):
    ids = torch.zeros(1, num_tokens + 1, dtype=torch.long)
    return {
        "input_ids": ids,
        "labels": ids,
        "centre": torch.as_tensor(centre, dtype=torch.float64),
    }
