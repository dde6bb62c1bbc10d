"""One run on several processes: who reads which units, and how sums, answers and errors travel between them.

The processes are those that `torchrun` starts. Each reads its own shard of the units and adds up their bounded
contributions. Only the first process gets the whole sum, draws the noise and writes files; all others get the noisy
answer from it, and repeat what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from veilset.core.errors import RunError
from veilset.privacy.run.checkpoint import decode, encode
from veilset.privacy.run.transport import add_up, place, spread

if TYPE_CHECKING:
    import numpy as np
    import torch

T = TypeVar("T")


class Team:
    """The processes of this run, or this one alone. Each must call the same methods in the same order.

    Attributes:
        rank, size: this process's number, from 0, and how many there are.
        first: this one writes files and draws noise.
    """

    def __init__(self) -> None:
        self.rank, self.size = place()
        self.first = self.rank == 0

    def shard(self, units: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Those of the units that this process reads. Each unit belongs to one process, whatever was sampled."""
        return units if self.size == 1 else units[units % self.size == self.rank]

    def sum(self, part: torch.Tensor) -> torch.Tensor:
        """The sum of all processes' tensors on the first process; elsewhere the content is undefined.

        Integers below 2^53 in float64 add up exactly.
        """
        if self.size > 1:
            add_up(part)
        return part

    def share(self, make: Callable[[], T]) -> T:
        """What `make` returns on the first process, the only one that calls it; if it fails, all processes stop.

        Args:
            make: returns nested dicts and lists of tensors, numbers and texts (no pickle travels).

        Raises:
            RunError: on the others, with the words of the first one's error.
        """
        if self.size == 1:
            return make()
        value, error = None, None
        if self.first:
            try:
                value = make()
            except Exception as e:
                error = e
        sent = {"value": value, "error": error and (str(error) or type(error).__name__).splitlines()[0]}
        try:
            raw = spread(encode(sent) if self.first else b"")
        except RunError:
            if error is None:
                raise
        if error is not None:
            raise error
        if self.first:
            return value  # type: ignore[return-value]
        got = decode(raw)
        if got["error"]:
            raise RunError(got["error"])
        return got["value"]

    def agree(self, what: str, fact: bytes) -> None:
        """Stop all processes unless they hold the same fact. Shards of different sets could hold one unit twice.

        Raises:
            RunError: they differ.
        """
        if self.size > 1:
            import torch

            theirs = self.share(fact.hex)
            different = self.sum(torch.tensor([float(fact.hex() != theirs)]))
            self.share(lambda: _refuse(what) if different.item() else None)


def _refuse(what: str) -> None:
    raise RunError(f"{what}: not the same in all processes of this run; give all of them the same files and arguments")
