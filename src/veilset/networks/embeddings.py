"""Random convolutional networks as fixed, public embeddings of images; nothing in them is ever trained."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from veilset.core.errors import ConfigError
from veilset.learning.augmentation import drawn_move, moved

STEM, STRIDE, KERNEL = 5, 2, 3  # the first convolution's side and stride; the second one's side
SMALLEST = 7  # pixels of the longer side: two places are left of it before the second normalisation
SIDE = 4  # places a side that the last average keeps, at most
MOVE = 1 / 7, 0.2, 45  # an image is shifted by up to 4 of 28 pixels, scaled, or turned by degrees


class Embeddings:
    """Several small random networks, each behind a small movement of the image that belongs to it.

    A network is convolution, instance normalisation, ReLU and average, twice. Weights are drawn as He et al. 2015
    (arXiv 1502.01852) begin; torch's generator draws. An embedding has norm 1 (0 for a flat image).

    Args:
        shape: (C, H, W) of the images.
        networks: how many.
        width: channels after the first convolution; twice as many after the second.
        move: give each network a shift, a change of scale or a turn, the same for every image that it sees.
        dtype: of the arithmetic.

    Raises:
        ConfigError: both sides below 7 pixels, so that one place would be left, which has no variance.
    """

    def __init__(self, shape: tuple[int, int, int], networks: int, width: int, move: bool, dtype: torch.dtype):
        if max(shape[1:]) < SMALLEST:
            raise ConfigError(
                f"shape = {list(shape)}: the networks need a side of at least {SMALLEST} pixels; prepare the set at "
                "such a size"
            )
        first, second = shape[0] * STEM**2, width * KERNEL**2
        self.stem = (torch.randn(networks, width, shape[0], STEM, STEM) * math.sqrt(2 / first)).to(dtype)
        self.rest = (torch.randn(networks, 2 * width, width, KERNEL, KERNEL) * math.sqrt(2 / second)).to(dtype)
        self.moves = torch.stack([drawn_move(*MOVE) for _ in range(networks)]) if move else None
        self.size = self(0, torch.zeros(1, *shape)).shape[1]

    def __len__(self) -> int:
        return len(self.stem)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.stem.device

    def to(self, device: str) -> Embeddings:
        """The same networks on a device, changed in place."""
        self.stem, self.rest = self.stem.to(device), self.rest.to(device)
        self.moves = self.moves.to(device) if self.moves is not None else None
        return self

    def __call__(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """What network i makes of images [n, C, H, W] in [0, 1]: float32 [n, size]. Safe under `torch.func.vmap`."""
        x = moved(x, None if self.moves is None else self.moves[i], "border")
        x = F.conv2d(x.to(self.stem.dtype), self.stem[i], stride=STRIDE, padding=STEM // 2)
        x = _halved(F.relu(_normal(x)))
        x = F.relu(_normal(F.conv2d(x, self.rest[i], padding=KERNEL // 2)))
        if max(x.shape[2:]) > SIDE:
            x = _halved(x)
        if max(x.shape[2:]) > SIDE:
            x = F.adaptive_avg_pool2d(x, SIDE)
        return F.normalize(x.flatten(1).float(), dim=1)


def _halved(x: torch.Tensor) -> torch.Tensor:
    """Averages over 2 x 2 places; an odd last row or column is left out, unless it is the only one."""
    return F.avg_pool2d(x, [2 if s > 1 else 1 for s in x.shape[2:]])


def _normal(x: torch.Tensor) -> torch.Tensor:
    """Each channel of each image with mean 0 and variance 1 over its places."""
    return F.group_norm(x, x.shape[1])
