"""Real processes: copies of this one, alone or joined as torchrun would join them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from veilset.privacy.run.checkpoint import pack, unpack

PATIENCE = 60.0


def copy_of_this(job: Callable[[], Any], out: Path) -> int:
    """Start job in a copy of this process; what it returns, or its error, is kept in `out`. Returns the id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        try:
            out.write_bytes(pack({"value": job()}))
            status = 0
        except BaseException as e:
            out.write_bytes(pack({"error": f"{type(e).__name__}: {e}"}))
    finally:
        os._exit(status)


def end_of(pid: int) -> int:
    """Wait for a process: its exit status, or minus the signal that ended it."""
    late = time.monotonic() + PATIENCE
    while time.monotonic() < late:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError("a process hangs")


def told(out: Path) -> Any:
    """What a process returned, or its error as text."""
    kept = unpack(out.read_bytes())
    return kept["error"] if "error" in kept else kept["value"]


def alone(job: Callable[[], Any], tmp: Path) -> tuple[int, Any]:
    """Run job in one other process: (status, what it returned, its error, or None if it was killed)."""
    out = tmp / "alone.result"
    out.unlink(missing_ok=True)
    status = end_of(copy_of_this(job, out))
    return status, told(out) if out.exists() else None


def together(job: Callable[[int], Any], tmp: Path, size: int = 2) -> list[tuple[int, Any]]:
    """Run job(rank) in `size` processes that know of each other; for each rank what `alone` returns."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    outs, pids = [tmp / f"rank{r}.result" for r in range(size)], []
    for rank in range(size):
        outs[rank].unlink(missing_ok=True)

        def joined(rank: int = rank) -> Any:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            return job(rank)

        pids.append(copy_of_this(joined, outs[rank]))
    ends = [end_of(pid) for pid in pids]
    return [(end, told(out) if out.exists() else None) for end, out in zip(ends, outs, strict=True)]
