"""Distributed arithmetic: connected ranks, and sums over a batch that lies on all of them.

``total`` is what makes a batch that lies on several ranks one batch: a sum over all of them, in both
directions. It does nothing outside ``sharing``, so that a rank can compute something alone.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tesela.hardware.launch import Launch
from tesela.hardware.ranks import ALONE, PeerLostError, Ranks, alive, first_line

#: A rank waits so long for another one that is alive: for its measurements, or for its evaluation.
PATIENCE = datetime.timedelta(hours=2)

_shared: Ranks = ALONE


@contextlib.contextmanager
def joined(launch: Launch, *, cuda: bool) -> Iterator[Ranks]:
    """The ranks of a launch, connected until the block ends.

    Args:
        launch: this process's place.
        cuda: whether tensors on GPUs are exchanged as well.

    Raises:
        PeerLostError: rank 0 cannot be reached.
    """
    if launch.ranks == 1:
        yield ALONE
        return
    if cuda:
        torch.cuda.set_device(launch.local % torch.cuda.device_count())
    # torchrun listens itself, and keeps what earlier attempts wrote: each has names of its own
    listens = launch.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    try:
        stores: Any = dist
        store = stores.TCPStore(launch.address, launch.port, launch.ranks, listens, timeout=PATIENCE)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=stores.PrefixStore(f"tesela/{launch.restarts}", store),
            rank=launch.rank,
            world_size=launch.ranks,
            timeout=PATIENCE,
        )
    except (RuntimeError, ValueError) as error:
        raise PeerLostError(
            f"rank {launch.rank} cannot reach rank 0 at {launch.address}:{launch.port}: {first_line(error)}",
            hint="start all processes with one torchrun or srun",
        ) from error
    try:
        yield Ranks(launch.rank, launch.ranks, launch.restarts)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def sharing(ranks: Ranks) -> Iterator[None]:
    """Let ``total`` sum over these ranks inside the block, which all of them enter."""
    global _shared
    before, _shared = _shared, ranks
    try:
        yield
    finally:
        _shared = before


def is_shared() -> bool:
    """Whether a batch lies on several ranks now."""
    return not _shared.alone


def total(values: Tensor) -> Tensor:
    """The sum over the ranks that share a batch, with its gradient; the values themselves on a single one."""
    if _shared.alone:
        return values
    result: Tensor = _Total.apply(values)  # type: ignore[no-untyped-call]
    return result


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that is shared out; any other as it is."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def whole_tensor(tensor: Tensor) -> Tensor:
    """A tensor that is shared out, put together; every rank has to ask. Any other as it is."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def placed_like(own: Any, tensor: Any) -> Any:
    """A whole tensor, which every rank has, shared out as ``own`` is; as it is where ``own`` is whole."""
    if not hasattr(own, "placements"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    shared: Any = own
    whole = tensor.to(own.device)
    return distribute_tensor(whole, shared.device_mesh, shared.placements, src_data_rank=None)


class _Total(torch.autograd.Function):
    """An all-reduce; its gradient is one too, for each rank's sum is in every rank's result."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        del ctx
        found = values.clone()
        with alive():
            dist.all_reduce(found)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        found = gradient.clone()
        with alive():
            dist.all_reduce(found)
        return found
