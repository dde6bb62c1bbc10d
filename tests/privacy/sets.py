"""Small private sets and one-line gates for the tests of the reviewed package."""

from __future__ import annotations

import functools

import numpy as np
import torch

from veilset.core.types import PublicInfo
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.spec import Privacy


def facts(**changes) -> PublicInfo:
    """Declared facts of a set of 50 grey 4x4 images in three classes."""
    given = {"name": "blobs", "classes": ("a", "b", "c"), "shape": (1, 4, 4), "units": 50} | changes
    return PublicInfo(**given)


def pictures(n: int, info: PublicInfo | None = None, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n random images in 0..255 and their labels."""
    info = info or facts()
    g = np.random.default_rng(seed)
    x = g.integers(0, 256, (n, *info.shape), dtype=np.uint8)
    return x, g.integers(0, len(info.classes), n).astype(np.int64)


def private(n: int = 50, info: PublicInfo | None = None, seed: int = 0) -> PrivateImages:
    """n random private images."""
    info = info or facts()
    return from_arrays(info, *pictures(n, info, seed))


@functools.cache
def priced(releases: tuple[Release, ...], epsilon: float, info: PublicInfo) -> Plan:
    """The plan at (epsilon, 1e-5), remembered: a sampled one takes a second to price."""
    return Plan(releases).price(Privacy(epsilon), info)


def gate_for(data: PrivateImages, *releases: Release, epsilon: float = 1.0, **options) -> Gate:
    """A gate for these releases at (epsilon, 1e-5); research mode with seed 0 unless said otherwise."""
    return Gate(data, priced(releases, epsilon, data.info), **{"seed": 0, **options})


def pixels(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The image itself as the contribution: exact under any order of evaluation."""
    return x.flatten()


def linear_loss(p: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Softmax regression."""
    return torch.nn.functional.cross_entropy((p["w"] @ x.flatten() + p["b"])[None], y[None])


def linear_params(info: PublicInfo) -> dict[str, torch.Tensor]:
    """Zero weights for `linear_loss`."""
    return {"w": torch.zeros(len(info.classes), info.pixels), "b": torch.zeros(len(info.classes))}
