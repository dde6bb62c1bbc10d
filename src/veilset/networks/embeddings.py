"""Random convolutional networks as fixed, public embeddings of images; nothing in them is ever trained."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

STEM, STRIDE, KERNEL = 5, 2, 3  # the first convolution's side and stride; the second one's side
SIDE = 4  # places a side that the last average keeps, at most
SHIFT, SCALE, TURN = 1 / 7, 0.2, math.pi / 4  # an image is moved by up to 4 of 28 pixels, scaled, or turned


class Embeddings:
    """Several small random networks, each behind a small movement of the image that belongs to it.

    A network is convolution, instance normalisation, ReLU and average, twice. Weights are drawn as He et al. 2015
    (arXiv 1502.01852) begin; torch's generator draws. An embedding has norm 1 (0 for a flat image).

    Args:
        shape: (C, H, W) of the images.
        networks: how many.
        width: channels after the first convolution; twice as many after the second.
        moved: give each network a shift, a change of scale or a turn, the same for every image that it sees.
        dtype: of the arithmetic.
    """

    def __init__(self, shape: tuple[int, int, int], networks: int, width: int, moved: bool, dtype: torch.dtype):
        first, second = shape[0] * STEM**2, width * KERNEL**2
        self.stem = (torch.randn(networks, width, shape[0], STEM, STEM) * math.sqrt(2 / first)).to(dtype)
        self.rest = (torch.randn(networks, 2 * width, width, KERNEL, KERNEL) * math.sqrt(2 / second)).to(dtype)
        self.moves = torch.stack([_move() for _ in range(networks)]) if moved else None
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
        if self.moves is not None:
            grid = F.affine_grid(self.moves[i].expand(len(x), 2, 3), list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
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


def _move() -> torch.Tensor:
    """[2, 3] affine map of one network: a shift, a scale a side, or a turn, as Private Set Generation augments."""
    u, move = 2 * torch.rand(2) - 1, torch.eye(2, 3)
    kind = int(torch.randint(0, 3, ()))
    if kind == 0:
        move[:, 2] = 2 * SHIFT * u
    elif kind == 1:
        move[:, :2] = torch.diag(1 / (1 + SCALE * u))
    else:
        cos, sin = math.cos(TURN * u[0]), math.sin(TURN * u[0])
        move[:, :2] = torch.tensor([[cos, -sin], [sin, cos]])
    return move
