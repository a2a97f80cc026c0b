"""Rank, world size, reductions, and "the same on every rank".

Tensors and picklable objects go in; what comes out is equal on all ranks. The functions speak to
the process group that the launcher or the Trainer opened, through `torch.distributed` alone:
reading it changes no state (a second `Accelerator` would wipe the Trainer's), and gloo and NCCL
both serve. Without a process group there is one rank, and everything here is the identity.

Law: a failure is everybody's. No function leaves other ranks waiting in a collective because one
rank raised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place in 0..world_size - 1; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def barrier() -> None:
    """Returns on no rank before every rank has called it."""
    if world_size() > 1:
        dist.barrier()


def all_reduce_sum_(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor, in place, by its sum over ranks.

    Args:
        tensors: the same shapes and dtypes, contiguous and in the same order on every rank; on the
            accelerator where the backend is NCCL.
    """
    if world_size() > 1:
        pending = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
        for work in pending:
            assert work is not None  # only a rank outside the group gets None
            work.wait()


def solve_on_rank_0(
    function: Callable[[], Result], errors: tuple[type[Exception], ...] = ()
) -> Result:
    """Runs `function` on rank 0 alone and gives every rank its result.

    Args:
        function: takes nothing, returns something picklable; not called on other ranks.
        errors: the exception types that every rank re-raises as they are. Any other exception
            reaches the caller on rank 0 and becomes a RuntimeError elsewhere.

    Raises:
        RuntimeError: on ranks other than 0, where rank 0 failed with a type not in `errors`.
    """
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None, RuntimeError("rank 0 failed; its own log has the reason")]
    try:
        if rank() == 0:
            outcome = [function(), None]
    except errors as error:
        outcome = [None, error]
    finally:
        dist.broadcast_object_list(outcome, src=0)
    result, failure = outcome
    if failure is not None:
        raise failure
    return result


def check_identical(what: str, payload: bytes) -> None:
    """Checks that every rank holds the same bytes, by hash.

    Args:
        what: the name of the thing, for the message.
        payload: this rank's bytes.

    Raises:
        RuntimeError: on every rank, naming `what` and the ranks that differ from rank 0.
    """
    hashes = gather(hashlib.blake2b(payload, digest_size=16).hexdigest())
    differing = [other for other, theirs in enumerate(hashes) if theirs != hashes[0]]
    if differing:
        raise RuntimeError(
            f"{what} must be the same on every rank; ranks {differing} of {len(hashes)} differ "
            f"from rank 0. Check that every rank runs with the same data, seed and settings."
        )


class OtherRankFailed(RuntimeError):
    """This rank went well and another did not; the message quotes it."""


class FailTogether:
    """Context in which a rank that raises takes the others with it at the end of the block.

    The block holds one rank's own work and no collective. The rank that failed raises its own
    exception; every other rank raises an OtherRankFailed that quotes it, instead of waiting for
    ever in the collective that follows.
    """

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Exchanges failures.

        Raises:
            OtherRankFailed: where this rank went well and another did not.
        """
        reports = gather(None if kind is None else f"{kind.__name__}: {error}")
        failed = [f"rank {other}: {report}" for other, report in enumerate(reports) if report]
        if failed and kind is None:
            raise OtherRankFailed("another rank failed; " + "; ".join(failed))


def gather(mine: Any) -> list[Any]:
    """Every rank's object, in rank order."""
    if world_size() == 1:
        return [mine]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, mine)
    return gathered
