"""Rows: one dataset of documents becomes tokenised rows, and is checked, counted and split.

In: a ``datasets.Dataset`` with a column of text, and a tokenizer. Out: a ``datasets.Dataset`` whose
one column ``input_ids`` holds T int32 tokens per row: row r is the tokens r T to (r + 1) T - 1 of
the stream ``document_0 EOS document_1 EOS ...``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import datasets as hf_datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from datasets import Sequence as ListOf
from transformers import PreTrainedTokenizerBase

# T tokens of a row, N rows of a dataset.

COLUMNS = ("input_ids", "attention_mask", "labels")
# Below so many rows a map is over before a progress bar could be read.
PROGRESS_BAR_ROWS = 20_000


def tokenize_and_pack(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    block_size: int,
    text_column: str = "text",
    num_proc: int | None = None,
) -> Dataset:
    """Tokenise documents, end each with EOS, join them in order and cut the stream into blocks.

    Called once per domain, so no block holds text of two. The tail that fills no block is dropped.

    Args:
        dataset: One document per row.
        tokenizer: Any tokenizer with an EOS token; no other special token is added.
        block_size: Tokens per row, T.
        text_column: Column of strings.
        num_proc: Processes that tokenise; None uses this one.

    Returns:
        Dataset with the one column ``input_ids``: lists of exactly `block_size` int32.

    Raises:
        ValueError: If the column or the EOS token is missing, or the text fills no block.
    """
    if tokenizer.eos_token_id is None:
        raise ValueError(
            "`tokenizer` must have an EOS token to end documents with; got none. "
            "Set tokenizer.eos_token."
        )
    if block_size < 1:
        raise ValueError(f"`block_size` must be at least 1 token; got {block_size}.")
    if text_column not in dataset.column_names:
        raise ValueError(
            f"`text_column` must name a column of `dataset` ({', '.join(dataset.column_names)}); "
            f"got {text_column!r}."
        )
    texts = dataset.with_format(None).select_columns(text_column)
    with _progress_bar_only_if_long(texts):
        documents = texts.map(
            _Tokenize(tokenizer, text_column),
            batched=True,
            num_proc=num_proc,
            remove_columns=[text_column],
            features=Features({"input_ids": ListOf(Value("int32"))}),
            desc="Tokenising",
        )
        blocks = documents.with_format("arrow").map(
            _Pack(block_size),
            batched=True,
            features=Features({"input_ids": ListOf(Value("int32"), length=block_size)}),
            desc="Packing",
        )
    if len(blocks) == 0:
        raise ValueError(
            f"`dataset` must fill at least one block of `block_size` {block_size} tokens; got "
            f"{row_lengths(documents).sum()} tokens. Add text or choose smaller blocks."
        )
    return blocks.with_format(None)


class _Tokenize:
    """Batch of texts -> batch of token lists, each ended by EOS."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text_column: str) -> None:
        self.tokenizer, self.text_column = tokenizer, text_column

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, list[np.ndarray]]:
        # verbose=False: a document longer than the model is no mistake here, it is cut into blocks.
        tokens = self.tokenizer(
            batch[self.text_column],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        eos = self.tokenizer.eos_token_id
        return {"input_ids": [np.array([*document, eos], np.int32) for document in tokens]}


class _Pack:
    """Batch of token lists -> blocks; what fills no block yet waits for the next batch."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.rest = np.empty(0, np.int32)

    def __call__(self, batch: pa.Table) -> pa.Table:
        column = batch["input_ids"].combine_chunks()
        stream = np.concatenate([self.rest, column.flatten().to_numpy()])
        end = len(stream) - len(stream) % self.block_size
        self.rest = stream[end:]
        blocks = pa.FixedSizeListArray.from_arrays(pa.array(stream[:end]), self.block_size)
        return pa.table({"input_ids": blocks})


def split(dataset: Dataset, fraction: float, *, name: str, seed: int) -> tuple[Dataset, Dataset]:
    """Draw held-out rows from `seed` and `name` alone, so other domains and order do not matter.

    Args:
        dataset: Rows of one domain.
        fraction: Share of rows to hold out, in (0, 1); at least one row is.
        name: The domain's name.
        seed: Another seed draws other rows.

    Returns:
        (train, held-out), both in the order of `dataset`.

    Raises:
        TypeError: If `fraction` is no number.
        ValueError: If `fraction` is out of range or leaves no training row.
    """
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
        raise TypeError(
            "`heldout` must be a share of rows or a mapping of names to datasets; "
            f"got {type(fraction).__name__}."
        )
    if not 0.0 < fraction < 1.0:
        raise ValueError(
            f"`heldout` must be a share of rows in (0, 1); got {fraction}: no held-out rows or no "
            "training rows would be left. Pass a small share such as 0.02, or datasets by name."
        )
    num_rows = len(dataset)
    num_heldout = max(1, round(fraction * num_rows))
    if num_heldout >= num_rows:
        raise ValueError(
            f"`heldout` must leave training rows; domain {name!r} has {num_rows} and {fraction} "
            f"keeps {num_heldout} back, so it would be an empty domain. Add rows, lower `heldout` "
            "or pass held-out datasets by name."
        )
    # NumPy promises the raw bits of PCG64 across its versions, but not those of its shuffles.
    entropy = int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=16).digest(), "little")
    keys_N = np.random.PCG64(entropy).random_raw(num_rows)
    heldout_N = np.zeros(num_rows, bool)
    heldout_N[np.argsort(keys_N, kind="stable")[:num_heldout]] = True
    return dataset.select(np.flatnonzero(~heldout_N)), dataset.select(np.flatnonzero(heldout_N))


def straight(dataset: Dataset) -> Dataset:
    """Return the same rows without format and indices mapping, so that row i is Arrow row i."""
    if dataset._indices is None:  # flatten_indices would copy all the same
        return dataset.with_format(None)
    with _progress_bar_only_if_long(dataset):
        # The arrow format keeps the copy from passing through Python lists.
        return dataset.with_format("arrow").flatten_indices().with_format(None)


def row_lengths(dataset: Dataset) -> np.ndarray:
    """Tokens of each row, (N,) int32, read from the list offsets.

    Raises:
        ValueError: If a row's ``input_ids`` is null.
    """
    column = dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    if column.null_count:
        raise ValueError(
            f"`input_ids` must be a list in every row; got {column.null_count} nulls. Filter them."
        )
    return pc.call_function("list_value_length", [column]).to_numpy().astype(np.int32)


def check_rows(dataset: Dataset, where: str) -> None:
    """Raise unless `dataset` holds tokenised rows; `where` is what the message calls it.

    Raises:
        TypeError: If it is no ``datasets.Dataset``.
        ValueError: If it is empty, has other columns than COLUMNS or no lists of ``input_ids``.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"{where} must be a datasets.Dataset, whose rows can be read in any order; got "
            f"{type(dataset).__name__}. Pick a split of a DatasetDict, build one from a list with "
            "Dataset.from_list, or from an IterableDataset with Dataset.from_generator."
        )
    columns = dataset.column_names
    if "input_ids" not in columns:
        mend = "Tokenise it first" + (" with tokenize_and_pack." if "text" in columns else ".")
        raise ValueError(f"{where} must have a column 'input_ids'; got {columns}. {mend}")
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ValueError(
            f"{where} may have the columns {', '.join(COLUMNS)}; got also {', '.join(unknown)}. "
            f"Drop them with dataset.remove_columns({unknown})."
        )
    if len(dataset) == 0:
        raise ValueError(f"{where} must have rows; got an empty domain. Add rows or leave it out.")
    for column in columns:
        _check_column(dataset, column, where)


def _check_column(dataset: Dataset, column: str, where: str) -> None:
    """Every row a list of integers, and as many as there are tokens."""
    kind = dataset.features.arrow_schema.field(column).type
    is_a = pa.types
    is_list = is_a.is_list(kind) or is_a.is_large_list(kind) or is_a.is_fixed_size_list(kind)
    if not (is_list and (is_a.is_integer(kind.value_type) or is_a.is_boolean(kind.value_type))):
        what = "token ids" if column == "input_ids" else "integers"
        raise ValueError(f"{where} must hold lists of {what} in {column!r}; got {kind}.")
    lengths = {name: _list_lengths(dataset, name) for name in {"input_ids", column}}
    if missing := lengths[column].null_count:
        raise ValueError(f"{where} must have no empty cell in {column!r}; got {missing} nulls.")
    if column != "input_ids" and not lengths[column].equals(lengths["input_ids"]):
        raise ValueError(
            f"{where} must have one entry of {column!r} per token in every row; got rows where "
            "their numbers differ."
        )


def _list_lengths(dataset: Dataset, column: str) -> pa.ChunkedArray:
    """Entries of each row's list, (N,), null where the row has none."""
    rows = dataset.select_columns(column).with_format("arrow")[:]
    lengths = pc.call_function("list_value_length", [rows[column]])
    return pa.chunked_array([lengths.combine_chunks().cast(pa.int64())])


@contextmanager
def _progress_bar_only_if_long(dataset: Dataset) -> Iterator[None]:
    """Silence the bars of `dataset.map` for a `dataset` so short that they would only flicker."""
    if len(dataset) >= PROGRESS_BAR_ROWS or hf_datasets.are_progress_bars_disabled():
        yield
        return
    hf_datasets.disable_progress_bars()
    try:
        yield
    finally:
        hf_datasets.enable_progress_bars()
