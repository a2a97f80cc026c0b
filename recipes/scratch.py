"""A model to fine-tune: one of the Hub or a folder, or a tiny one that knows nothing.

In: a name, or rows of text. Out: model and tokenizer. Without a name the tokenizer is trained on
the text and the Llama is as it was initialised, which is enough to try a recipe without a download.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from tikmix_hf.corpora import EOS, train_tokenizer

VOCABULARY = 1024


def make_model(
    name: str | None, text: Mapping[str, datasets.Dataset]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads a model and its tokenizer, or makes tiny ones.

    Args:
        name: of the Hub, or a folder; None makes a model of 0.4 million parameters from the state
            of torch's generator.
        text: rows by domain, for the tokenizer where no model is named.

    Raises:
        ValueError: no name, and rows that are not strings, which need a chat template.
    """
    if name is not None:
        return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    documents_K = [[_document(row) for row in rows] for rows in text.values()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(documents_K, VOCABULARY), eos_token=EOS, pad_token=EOS
    )
    eos = tokenizer.get_vocab()[EOS]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=eos,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    return LlamaForCausalLM(config), tokenizer


def _document(row: Any) -> str:
    parts = list(row.values())
    if any(not isinstance(part, str) for part in parts):
        raise ValueError(
            "`model_name_or_path` must be set for conversations, which need its chat template; "
            f"got None and rows such as {str(row)[:80]}..."
        )
    return "".join(map(str, parts))
