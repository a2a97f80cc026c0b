"""The text of an arena, tokenised once and kept on disk.

In: an `Arena` and the name of a set of targets. Out: an `ArenaText`: domains, what mixers measure
and what runs are judged by. `prepare` reads and tokenises (half a minute); `load` maps the files
that it left, so that each run starts within a second.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from arena_config import Arena
from arena_text import Question, benchmark_documents, domain_documents, questions
from datasets import Dataset, load_from_disk
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from tikmix_hf import Domains, corpora
from tikmix_hf.domains import tokenize_and_pack

# J targets, K domains, V entries of the vocabulary.

EOS = "<|endoftext|>"
TOKENIZER_CHARACTERS = 400_000
"""Of each domain, so that the vocabulary belongs to none."""
ROOT = Path(__file__).parent.parent
EMBEDDED = "embedded"


class ArenaText(NamedTuple):
    """What runs read."""

    domains: Domains
    """To train on, with their held-out rows."""
    measured: dict[str, Dataset]
    """Target to packed rows that mixers may read."""
    judged: dict[str, Dataset]
    """Target to packed rows of other documents."""
    questions: dict[str, list[Question]]
    """Benchmark to its questions."""
    tokenizer: PreTrainedTokenizerFast
    """Byte-level BPE."""
    token_bytes_V: NDArray[np.int64]
    """Bytes of text that each token stands for; none for special ones."""


@contextmanager
def _without_bars() -> Iterator[None]:
    """Silences the bars of datasets, of which many jobs at once would make a mess."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


@_without_bars()
def prepare(arena: Arena, targets: str, cache: Path) -> None:
    """Tokenises and packs everything, unless the cache has it."""
    folder = _folder(arena, targets, cache)
    if arena.data == EMBEDDED or folder.is_dir():
        return
    data = data_folder(arena)
    texts = {
        f"{split}/{domain}": domain_documents(data, domain, split, num)
        for domain in arena.domains
        for split, num in (
            ("train", arena.domain_characters),
            ("heldout", arena.domain_characters // 10),
        )
    }
    for name, target in arena.targets[targets].items():
        for side, files in (("measured", target.measured), ("judged", target.judged)):
            documents = [text for file in files for text in benchmark_documents(data, file)]
            texts[f"{side}/{name}"] = documents
    texts = without_known(texts)
    tokenizer = _train_tokenizer(
        [texts[f"train/{domain}"] for domain in arena.domains], arena.vocab_size
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        unfinished = Path(temporary) / "text"
        for name, documents in texts.items():
            rows = Dataset.from_dict({"text": documents})
            packed = tokenize_and_pack(rows, tokenizer, block_size=arena.block_size)
            packed.save_to_disk(str(unfinished / name))
        tokenizer.save_pretrained(str(unfinished / "tokenizer"))
        os.rename(unfinished, folder)


@_without_bars()
def load(arena: Arena, targets: str, cache: Path, *, domain_tokens: int | None = None) -> ArenaText:
    """Maps what `prepare` left.

    Args:
        arena: whose text.
        targets: name of the set of targets.
        cache: folder of cache folders.
        domain_tokens: what each domain's training rows are cut to.
    """
    if arena.data == EMBEDDED:
        corpus = corpora.load(block_size=arena.block_size, vocab_size=arena.vocab_size)
        train = {domain.name: domain.train for domain in corpus.domains}
        heldout = {domain.name: domain.heldout for domain in corpus.domains}
        measured, judged = corpus.targets, corpus.target_evals
        tokenizer, asked = corpus.tokenizer, {}
    else:
        folder, data = _folder(arena, targets, cache), data_folder(arena)
        train, heldout = (_rows(folder / side, arena.domains) for side in ("train", "heldout"))
        names = tuple(arena.targets[targets])
        measured, judged = (_rows(folder / side, names) for side in ("measured", "judged"))
        tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder / "tokenizer"))
        asked = {
            name: questions(data, path, arena.training.benchmark_items)
            for name, path in arena.benchmarks.items()
        }
    if domain_tokens is not None:
        num = max(domain_tokens // arena.block_size, 1)
        train = {name: rows.select(range(min(num, len(rows)))) for name, rows in train.items()}
    domains = Domains.from_datasets(train, heldout=heldout)
    return ArenaText(domains, measured, judged, asked, tokenizer, token_bytes(tokenizer))


def token_bytes(tokenizer: PreTrainedTokenizerFast) -> NDArray[np.int64]:
    """Bytes that each token of a byte-level vocabulary stands for, (V,); none for special ones."""
    # Byte-level BPE writes every byte as one character.
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_tokens)
    return np.array([0 if piece in special else len(piece) for piece in pieces], dtype=np.int64)


def data_folder(arena: Arena) -> Path:
    """The data folder, absolute."""
    path = Path(arena.data)
    return path if path.is_absolute() else ROOT / path


def _rows(folder: Path, names: tuple[str, ...]) -> dict[str, Dataset]:
    rows = {}
    for name in names:
        rows[name] = load_from_disk(str(folder / name))
        assert isinstance(rows[name], Dataset)
    return rows


def _folder(arena: Arena, targets: str, cache: Path) -> Path:
    """Named by all that the rows depend on."""
    kept = (arena.domains, arena.block_size, arena.vocab_size, arena.domain_characters)
    content = json.dumps([str(data_folder(arena).resolve()), kept, repr(arena.targets[targets])])
    return cache / f"text-{targets}-{blake2b(content.encode(), digest_size=8).hexdigest()}"


def without_known(texts: dict[str, list[str]]) -> dict[str, list[str]]:
    """Leaves out of what is judged every document that is trained on or measured, too.

    Benchmarks repeat some questions in several splits.

    Args:
        texts: documents by "train/...", "heldout/...", "measured/..." and "judged/...".

    Raises:
        ValueError: less than half of a target would be left.
    """
    known = {t for name, own in texts.items() if not name.startswith("judged/") for t in own}
    kept = {}
    for name, documents in texts.items():
        is_judged = name.startswith("judged/")
        kept[name] = [t for t in documents if t not in known] if is_judged else documents
        if 2 * len(kept[name]) < len(documents):
            raise ValueError(
                f"`targets`: of {len(documents)} documents of {name} only {len(kept[name])} are "
                "neither trained on nor measured. Name other files or halves."
            )
    return kept


def _train_tokenizer(texts_K: list[list[str]], vocab_size: int) -> PreTrainedTokenizerFast:
    """As for the embedded corpus: byte-level BPE on as many characters of every domain."""
    tokenizer = corpora.train_tokenizer(texts_K, vocab_size)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS)
