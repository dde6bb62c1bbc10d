"""Conditional generators. They see synthetic images only, so batch normalisation is safe in them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.classifiers import fast_dtype
from veilset.networks.dct import low_frequencies


class ConvGenerator(nn.Module):
    """Latent code and class to image: two linear layers, then two rounds of bilinear doubling and 5x5 convolution.

    The generator of DP-MERF (arXiv 2002.11603, appendix) for any image shape: the coarse map has a quarter of the side,
    rounded up, and the result is cut to size.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        code: length of the latent code.
        hidden: width of the first layer.
        channels: of the coarse map, and after the first convolution.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        code: int,
        hidden: int = 200,
        channels: tuple[int, int] = (16, 8),
    ):
        super().__init__()
        self.shape, self.classes, self.code, self.cells = shape, classes, code, 1
        first, second = channels
        self.coarse = (first, -(-shape[1] // 4), -(-shape[2] // 4))
        size = math.prod(self.coarse)
        self.dense = nn.Sequential(
            nn.Linear(code + classes, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, size),
            nn.BatchNorm1d(size),
        )
        self.middle = nn.Conv2d(first, second, 5, padding=2)
        self.out = nn.Conv2d(second, shape[0], 5, padding=2)

    def forward(self, z: torch.Tensor, y: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """Codes [n, code] and labels [n] to images [n, C, H, W] in [0, 1]; it has one cell a class."""
        u = self.dense(torch.cat([z, F.one_hot(y, self.classes).to(z)], 1)).unflatten(1, self.coarse)
        with torch.autocast(z.device.type, fast_dtype(), enabled=fast_dtype() != torch.float32):
            u = u.to(fast_dtype()).contiguous(memory_format=torch.channels_last)
            u = F.relu(self.middle(F.interpolate(u, scale_factor=2, mode="bilinear")))
            u = self.out(F.interpolate(u, scale_factor=2, mode="bilinear"))
        return u[..., : self.shape[1], : self.shape[2]].float().sigmoid()


class CellGenerator(nn.Module):
    """A few clamped Gaussians a class, in a public low-frequency basis: image = clamp(basis' (mean + factor z), 0, 1).

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        code: length of the latent code, the rank of each Gaussian.
        cells: Gaussians a class, of equal weight.
        size: how many low frequencies (see `veilset.networks.dct`).
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, code: int, cells: int = 4, size: int = 136):
        super().__init__()
        self.shape, self.code, self.cells = shape, code, cells
        basis = low_frequencies(shape, size)
        self.register_buffer("basis", basis)
        self.basis: torch.Tensor
        grey = basis @ torch.full((basis.shape[1],), 0.25)
        self.mean = nn.Parameter(grey + 0.3 * torch.randn(classes, cells, len(basis)))
        self.factor = nn.Parameter(0.1 * torch.randn(classes, cells, len(basis), code))

    def forward(self, z: torch.Tensor, y: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        """Codes [n, code], labels [n] and cell numbers [n] to images [n, C, H, W] in [0, 1]."""
        x = self.mean[y, cell] + torch.einsum("ndr,nr->nd", self.factor[y, cell], z)
        return (x @ self.basis).clamp(0, 1).unflatten(1, self.shape)
