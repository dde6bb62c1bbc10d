"""Random numbers inside a loss: shared by all records of a step, or each record's own.

A loss that calls torch's generator (`torch.rand`, dropout) gets the same numbers for every record: the step's clipped
map is then one function of a record, whatever is known of the numbers. Numbers of a record's own are declared, and the
gate makes them from its own secret stream. docs/proof.md has the argument for both.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from veilset.core.errors import ConfigError
from veilset.privacy.noise import Stream


@dataclass(frozen=True)
class Uniform:
    """Numbers in [0, 1) of this shape, for a record; a bare shape stands for standard normal ones.

    Examples:
        >>> draws = {"level": vs.Uniform((4,)), "noise": (4, 8)}  # for each record: of a loss at `gate.grad`
        >>> draws["level"]
        Uniform(shape=(4,))
    """

    shape: Sequence[int] = ()


Draws = Mapping[str, Sequence[int] | Uniform]


def check_draws(draws: Draws) -> None:
    """Refuse what is no declaration.

    Raises:
        ConfigError: a value is neither a shape nor a `Uniform`.
    """
    for name, how in draws.items():
        shape = shape_of(how)
        if not isinstance(shape, list | tuple) or not all(type(k) is int and k >= 0 for k in shape):
            raise ConfigError(
                f"draws {name!r} = {how!r}: must be a shape such as (16, 100), for normal numbers, or Uniform(shape)"
            )


def shape_of(how: Sequence[int] | Uniform) -> Sequence[int]:
    """Of one record's numbers."""
    return how.shape if isinstance(how, Uniform) else how


def drawn(how: Sequence[int] | Uniform, records: int, stream: Stream) -> torch.Tensor:
    """Numbers for so many records, float32 [records, *shape]; no bit is in those of two records."""
    shape = shape_of(how)
    size = math.prod(shape)
    if isinstance(how, Uniform):
        return stream.uniform(records * size).view(records, *shape)
    even = size + size % 2  # normals are made in pairs, whose last bits tell each other
    return stream.normal(records * even).view(records, even)[:, :size].reshape(records, *shape)


@contextmanager
def shared(seed: int, device: torch.device) -> Iterator[None]:
    """Within it a loss that draws at all draws the same numbers, on every device and whichever generator it calls.

    The generators of torch, NumPy and Python are put back as they were.
    """
    kept, plain = np.random.get_state(), random.getstate()
    own = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=own, device_type=device.type if own else "cuda"):
        try:
            torch.default_generator.manual_seed(seed)
            if own:
                torch.get_device_module(device).manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            yield
        finally:
            np.random.set_state(kept)
            random.setstate(plain)
