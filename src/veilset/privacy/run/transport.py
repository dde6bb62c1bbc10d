"""Bytes and sums between the processes of one run, by gloo. They are those that `torchrun` starts."""

from __future__ import annotations

import atexit
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from veilset.core.errors import RunError

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(minutes=10)  # for a process that is silent; one that died is noticed at once


def place() -> tuple[int, int]:
    """(this process's number, how many there are), as torchrun's environment variables RANK and WORLD_SIZE say."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    return int(os.environ.get("RANK", 0)) if size > 1 else 0, size


def add_up(part: torch.Tensor) -> None:
    """Put the sum of all processes' tensors into the first one's; in the others the content is undefined afterwards.

    Raises:
        RunError: another process ended.
    """
    import torch.distributed as dist

    with _patience():
        dist.reduce(part, 0, group=_connect())


def spread(data: bytes) -> bytes:
    """The first process's bytes, on all; what the others give is ignored.

    Raises:
        RunError: another process ended.
    """
    import torch
    import torch.distributed as dist

    first = place()[0] == 0
    with _patience():
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0, group=_connect())
        body = torch.frombuffer(bytearray(data if first else int(size)), dtype=torch.uint8)
        dist.broadcast(body, 0, group=_connect())
    return data if first else body.numpy().tobytes()


@functools.cache
def _connect() -> Any:
    """The group of processes, with connections of its own."""
    import torch.distributed as dist

    try:
        if not dist.is_initialized():
            dist.init_process_group("gloo", timeout=PATIENCE)
            atexit.register(_leave)
        return dist.new_group(backend="gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as e:
        words = " ".join(str(e).split())[:200]
        raise RunError(
            f"WORLD_SIZE = {place()[1]}, but the processes do not meet ({words}); start them with torchrun, "
            "or unset RANK and WORLD_SIZE"
        ) from e


def _leave() -> None:
    """Close the groups that we opened, while the interpreter is whole: gloo's threads hold tensors, and one that
    lets go of them later than that ends a finished run by SIGABRT, now and then."""
    import torch.distributed as dist

    _connect.cache_clear()
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _patience() -> Iterator[None]:
    try:
        yield
    except RuntimeError as e:
        raise RunError(
            f"another process of this run ended, or was silent for {PATIENCE.seconds // 60} minutes; "
            "see what it said, then go on with --resume"
        ) from e
