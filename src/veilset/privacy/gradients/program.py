"""What a loss does, as the sequence of torch's operations that it runs: two that do the same are looked at once."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from veilset.core.io import sha256

PLAIN = (type(None), bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)


class Program(TorchDispatchMode):
    """Takes down every operation while it is on: its name, its numbers, and of tensors how they lie in memory.

    Values of tensors are left out. Under `vmap` no value decides what is run.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._seen.append(repr((function.name(), _fact(args), _fact(list((kwargs or {}).items())))))
        return function(*args, **(kwargs or {}))

    def digest(self) -> str | None:
        """Of what was run while it was on; None if nothing was."""
        return sha256("\n".join(self._seen).encode()) if self._seen else None


def _fact(v: Any) -> Any:
    if isinstance(v, torch.Tensor):
        return v.dtype, v.device, tuple(v.shape), v.stride()
    if isinstance(v, tuple | list):
        return [_fact(w) for w in v]
    return v if isinstance(v, PLAIN) else type(v).__name__
