"""The embedded default: real text that every Python installation with our dependencies carries.

In: the tables of `installed_text`. Out: :func:`documents`, the text of eight unlike training
domains and six targets; :func:`load`, the same tokenised and packed, a run without downloads.

Documents are de-duplicated across domains and targets (whitespace apart) and split by file: no file
has text on both sides of a split. The same installation and seed give the same corpus.
"""

from __future__ import annotations

import os
import platform
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import InMemoryTable
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tikmix_hf.domains import Domain, Domains, tokenize_and_pack
from tikmix_hf.installed_text import DOMAINS, TARGETS, TextFiles, metadata_folders

# Raise it when other text, or another file, comes out of the same installation: it renames caches.
FORMAT = 1
MIN_DOMAINS, MIN_TARGETS = 6, 3
# About 400,000 tokens: a domain that is read and tokenised within two seconds.
MAX_DOMAIN_CHARACTERS = 1_200_000
MAX_TARGET_CHARACTERS = 500_000
# About 15 blocks of 128 tokens; what has less on either side of its split counts as missing.
MIN_PART_CHARACTERS = 5_000
# Shorter documents say "Return the name." in a thousand ways.
MIN_DOCUMENT_CHARACTERS = 200
# Of each domain, so that the vocabulary belongs to none; 2,000 merges are settled by far less.
TOKENIZER_CHARACTERS = 250_000
# A tenth of a domain is held out, half of a target only evaluated.
HELDOUT_EVERY, EVAL_EVERY = 10, 2
EOS = "<|endoftext|>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """Text by name, without duplicates."""

    domains: dict[str, tuple[list[str], list[str]]]
    """Domain to its (train, held-out) documents, of different files."""
    targets: dict[str, list[str]]
    """Target to the documents that influence is measured on."""
    target_evals: dict[str, list[str]]
    """Target to documents of other files, so that what is reported is not what was optimised."""
    descriptions: dict[str, str]
    """Domain or target to one line for people."""


class Embedded(NamedTuple):
    """The embedded corpus, tokenised and packed."""

    domains: Domains
    """Training domains with their held-out blocks."""
    targets: dict[str, Dataset]
    """Target to the blocks that influence is measured on."""
    target_evals: dict[str, Dataset]
    """Target to the blocks that a run is judged by; no file is in both."""
    tokenizer: PreTrainedTokenizerFast
    """Byte-level BPE, trained on the training documents alone."""


def documents(seed: int = 0) -> Corpus:
    """Read the embedded corpus as text.

    Args:
        seed: Draws which files are used where a package has more than enough, and the splits.

    Returns:
        The corpus. Its size depends on the installation, its content on installation and `seed`.

    Raises:
        RuntimeError: If fewer than six domains or three targets are installed.
    """
    seen: set[bytes] = set()
    targets = _split_all(TARGETS, seen, seed, MAX_TARGET_CHARACTERS, EVAL_EVERY)
    domains = _split_all(DOMAINS, seen, seed, MAX_DOMAIN_CHARACTERS, HELDOUT_EVERY)
    for kind, table, found, least in (
        ("domains", DOMAINS, domains, MIN_DOMAINS),
        ("targets", TARGETS, targets, MIN_TARGETS),
    ):
        if len(found) < least:
            missing = {name: table[name].roots for name in table if name not in found}
            raise RuntimeError(
                f"The embedded corpus needs at least {least} {kind}; this installation has text "
                f"for {len(found)} ({', '.join(found)}). Install what is missing: {missing}."
            )
    return Corpus(
        domains=domains,
        targets={name: used for name, (used, _) in targets.items()},
        target_evals={name: kept_back for name, (_, kept_back) in targets.items()},
        descriptions={n: (DOMAINS | TARGETS)[n].description for n in (*domains, *targets)},
    )


def load(
    *,
    block_size: int = 128,
    vocab_size: int = 2048,
    cache_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Embedded:
    """Load the embedded corpus as packed blocks, building it (some 20 s) where no cache holds it.

    Args:
        block_size: Tokens per row.
        vocab_size: Entries of the byte-level BPE vocabulary, 257 at least.
        cache_dir: Folder of cache files; None is ``$HF_HOME/tikmix_hf``, or ``~/.cache/tikmix_hf``.
        seed: See :func:`documents`.

    Returns:
        Domains, targets and tokenizer.

    Raises:
        RuntimeError: If fewer than six domains or three targets are installed.
        ValueError: If `vocab_size` has no room for the 256 bytes and EOS, or `block_size` is longer
            than the shortest part of the corpus.
    """
    if vocab_size < 257:
        raise ValueError(
            f"`vocab_size` must have room for 256 bytes and EOS, 257; got {vocab_size}."
        )
    path = _cache_folder(cache_dir) / f"corpus-{_cache_key(block_size, vocab_size, seed)}.npz"
    arrays = _read(path)
    if arrays is None:
        arrays = _build(documents(seed), block_size, vocab_size)
        _write(path, arrays)
    return _assemble(arrays)


def _split_all(
    table: Mapping[str, TextFiles], seen: set[bytes], seed: int, max_characters: int, every: int
) -> dict[str, tuple[list[str], list[str]]]:
    """Name to (used, kept back) for all entries that have text enough on both sides."""
    parts = {
        name: _split(files.units(f"{seed}/{name}"), seen, max_characters, every)
        for name, files in table.items()
    }
    return {
        name: sides
        for name, sides in parts.items()
        if min(sum(map(len, side)) for side in sides) >= MIN_PART_CHARACTERS
    }


def _split(
    units: Iterable[list[str]], seen: set[bytes], max_characters: int, every: int
) -> tuple[list[str], list[str]]:
    """Take whole files up to `max_characters`, keeping back about one character in `every`.

    Files differ in size by a factor of a thousand, so that counting files would not do: a file is
    kept back whenever less than its share has been so far.
    """
    used: list[str] = []
    kept_back: list[str] = []
    num_characters = num_kept_back = 0
    for unit in units:
        if num_characters >= max_characters:
            break
        fresh = list(_unseen(unit, seen))
        size = sum(map(len, fresh))
        if num_kept_back * every < num_characters:
            kept_back += fresh
            num_kept_back += size
        else:
            used += fresh
        num_characters += size
    return used, kept_back


def _unseen(unit: list[str], seen: set[bytes]) -> Iterator[str]:
    """Yield the documents that are long enough and new, and remember them."""
    for text in unit:
        digest = blake2b(" ".join(text.split()).encode("utf-8", "replace"), digest_size=16).digest()
        if len(text) >= MIN_DOCUMENT_CHARACTERS and digest not in seen:
            seen.add(digest)
            yield text


def _build(corpus: Corpus, block_size: int, vocab_size: int) -> dict[str, np.ndarray]:
    """Tokenise and pack: "train/web" to (N, T) int32 and so on, and the tokenizer as bytes."""
    tokenizer = train_tokenizer([train for train, _ in corpus.domains.values()], vocab_size)
    parts = {f"train/{name}": train for name, (train, _) in corpus.domains.items()}
    parts |= {f"heldout/{name}": kept_back for name, (_, kept_back) in corpus.domains.items()}
    parts |= {f"target/{name}": texts for name, texts in corpus.targets.items()}
    parts |= {f"eval/{name}": texts for name, texts in corpus.target_evals.items()}
    wrapped = _wrap(tokenizer)
    arrays = {"tokenizer": np.frombuffer(tokenizer.to_str().encode(), np.uint8)}
    for key, texts in parts.items():
        blocks = tokenize_and_pack(
            Dataset.from_dict({"text": texts}), wrapped, block_size=block_size
        )
        tokens = blocks.with_format("arrow")[:]["input_ids"].combine_chunks().flatten()
        arrays[key] = tokens.to_numpy().reshape(-1, block_size)
    return arrays


def train_tokenizer(texts_K: list[list[str]], vocab_size: int) -> Tokenizer:
    """Byte-level BPE on the same number of characters of every domain."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    samples = ("\n".join(texts)[:TOKENIZER_CHARACTERS] for texts in texts_K)
    tokenizer.train_from_iterator(samples, trainer)
    return tokenizer


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=EOS)


def _assemble(arrays: Mapping[str, np.ndarray]) -> Embedded:
    """Turn what a cache file holds into what :func:`load` returns."""

    def blocks(kind: str) -> dict[str, Dataset]:
        found = {
            key.removeprefix(f"{kind}/"): array
            for key, array in arrays.items()
            if key.startswith(f"{kind}/")
        }
        return {name: _dataset(array) for name, array in found.items()}

    heldout = blocks("heldout")
    domains = Domains(
        Domain(
            name=name,
            train=train,
            heldout=heldout[name],
            description=DOMAINS[name].description,
            tags=DOMAINS[name].tags,
        )
        for name, train in blocks("train").items()
    )
    tokenizer = _wrap(Tokenizer.from_str(arrays["tokenizer"].tobytes().decode()))
    return Embedded(domains, blocks("target"), blocks("eval"), tokenizer)


def _dataset(blocks_NT: np.ndarray) -> Dataset:
    # Dataset.from_dict would encode row by row, which takes longer than all the rest of a load.
    tokens = pa.array(blocks_NT.reshape(-1))
    blocks = pa.FixedSizeListArray.from_arrays(tokens, blocks_NT.shape[1])
    return Dataset(InMemoryTable.from_pydict({"input_ids": blocks}))


def _cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    if cache_dir is not None:
        return Path(cache_dir)
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tikmix_hf"


def _cache_key(*settings: int) -> str:
    """Hash all that the corpus depends on: what is installed, the settings and the format."""
    installed = [folder.name for folder in metadata_folders()]
    content = repr((FORMAT, platform.python_version(), installed, settings))
    return blake2b(content.encode(), digest_size=12).hexdigest()


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """Read a cache file; None if there is none or it is damaged (each array has a checksum)."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            return dict(file)
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write elsewhere and rename: of two racing processes the later replaces like by like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        np.savez(unfinished, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(unfinished, path)
