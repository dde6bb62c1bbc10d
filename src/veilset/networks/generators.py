"""Conditional generators. They see synthetic images only, so batch normalisation is safe in them."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.dct import low_frequencies
from veilset.networks.precision import fast_dtype


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
        """Codes [n, code] and labels [n] to images [n, C, H, W] in [0, 1]; it has one cell per class."""
        u = self.dense(torch.cat([z, F.one_hot(y, self.classes).to(z)], 1)).unflatten(1, self.coarse)
        with torch.autocast(z.device.type, fast_dtype(), enabled=fast_dtype() != torch.float32):
            u = u.to(fast_dtype()).contiguous(memory_format=torch.channels_last)
            u = F.relu(self.middle(F.interpolate(u, scale_factor=2, mode="bilinear")))
            u = self.out(F.interpolate(u, scale_factor=2, mode="bilinear"))
        return u[..., : self.shape[1], : self.shape[2]].float().sigmoid()


class CellGenerator(nn.Module):
    """A few clamped Gaussians per class, in a public low-frequency basis: clamp(basis' (mean + factor z), 0, 1).

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        code: length of the latent code, the rank of each Gaussian.
        cells: Gaussians per class, of equal weight.
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


class CodeImages(nn.Module):
    """A small generator with one fixed random code for each image of a labelled set.

    The prior of Chen, Kerkouche and Fritz 2022 (arXiv 2211.04446): a linear layer to 4x4 maps and three transposed
    convolutions up to 28x28, without strides but in the last, each map divided by its root mean square over channels.
    Ends in a sigmoid; other shapes are enlarged from 28x28 (bilinear).

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        y: labels [n] of the set.
        code: length of a code.
    """

    codes: torch.Tensor

    def __init__(self, shape: tuple[int, int, int], classes: int, y: torch.Tensor, code: int = 10):
        super().__init__()
        self.sides = shape[1:]
        labels = F.one_hot(y, classes).float()
        self.register_buffer("codes", torch.cat([torch.randn(len(y), code, device=y.device), labels], 1))
        self.dense = nn.Linear(code + classes, 256 * 4 * 4)
        self.first = nn.ConvTranspose2d(256, 128, 5)
        self.second = nn.ConvTranspose2d(128, 64, 5)
        self.last = nn.ConvTranspose2d(64, shape[0], 8, stride=2)

    def forward(self) -> torch.Tensor:
        """The images [n, C, H, W] in [0, 1]."""
        u = _even(self.dense(self.codes).unflatten(1, (256, 4, 4)))
        u = _even(self.first(u)[..., :7, :7])
        u = self.last(_even(self.second(u)))
        if u.shape[2:] != self.sides:
            u = F.interpolate(u, self.sides, mode="bilinear", antialias=True)
        return u.sigmoid()


def _even(u: torch.Tensor) -> torch.Tensor:
    """ReLU, then each position divided by its root mean square over channels."""
    u = F.relu(u)
    return u * (u.square().mean(1, keepdim=True) + 1e-8).rsqrt()
