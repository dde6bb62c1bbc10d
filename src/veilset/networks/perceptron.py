"""A denoiser of fully connected layers in a public low-frequency basis: cheap, and it knows where a position is."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.dct import low_frequencies, steepness


class Perceptron(nn.Module):
    """Noisy codes, noise levels and classes to codes: the network F of a diffusion model, without convolutions.

    An image is its lowest frequencies, each divided by a public guess of its deviation, so that all are met at about
    the same noise level; what is above them is not modelled.

    A hidden layer of two parts: nonlinear units that the class and the noise level shift, and linear units that they
    multiply. The best denoiser of a Gaussian is linear in the image, with a matrix that depends on class and level;
    gates express such matrices at once, and the nonlinear units add what is not Gaussian.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K; label K stands for "no class".
        frequencies: how many are kept; all, if the image has no more.
        width: of the layers.
        blocks: residual blocks of two layers each, behind the nonlinear units.
        embedding: sines and cosines of the noise level.
    """

    basis: torch.Tensor
    unit: torch.Tensor
    pitch: torch.Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        frequencies: int = 100,
        width: int = 128,
        blocks: int = 0,
        embedding: int = 32,
    ):
        super().__init__()
        self.shape = shape
        basis = low_frequencies(shape, frequencies)
        # As deviations of a natural image fall: by the root of the frequency. Together they are those of the pixels.
        unit = steepness(shape, frequencies).rsqrt()
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("unit", unit * math.sqrt(math.prod(shape) / unit.square().sum()), persistent=False)
        self.register_buffer("pitch", 30 ** torch.linspace(0, 1, embedding // 2), persistent=False)
        size, level = len(basis), 2 * (embedding // 2)
        self.enter, self.label, self.level = _three(size, classes + 1, level, width)
        self.linear, self.gate, self.swell = _three(size, classes + 1, level, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.out, self.mean = nn.Linear(width, size), nn.Embedding(classes + 1, size)
        for p in (self.out.weight, self.out.bias, self.mean.weight):
            nn.init.zeros_(p)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [-1, 1] to codes [n, d, 1, 1], of about the same deviation as the pixels."""
        return (x.flatten(1) @ self.basis.T / self.unit)[:, :, None, None]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes [n, d, 1, 1] to images [n, C, H, W] without higher frequencies."""
        return (z.flatten(1).float() * self.unit @ self.basis).unflatten(1, self.shape)

    def forward(self, z: torch.Tensor, time: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, d, 1, 1], scaled noise levels [n], labels [n] to [n, d, 1, 1]."""
        z, angle = z.flatten(1), time[:, None] * self.pitch
        e = torch.cat([angle.sin(), angle.cos()], 1)
        h = self.enter(z) + self.label(y) + self.level(e)
        for block in self.blocks:
            h = block(h)
        h = F.silu(normal(h)) + self.linear(z) * (self.gate(y) + self.swell(e))
        return (self.out(h) + self.mean(y))[:, :, None, None]


def _three(size: int, labels: int, level: int, width: int) -> tuple[nn.Linear, nn.Embedding, nn.Linear]:
    """Layers that make rows of `width` of a code, of a label and of a noise level."""
    return nn.Linear(size, width), nn.Embedding(labels, width), nn.Linear(level, width)


class _Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """[n, width] to [n, width]."""
        return h + self.second(F.silu(self.first(normal(h))))


def normal(h: torch.Tensor) -> torch.Tensor:
    """Rows divided by their root mean square."""
    return h * torch.rsqrt(h.square().mean(1, keepdim=True) + 1e-4)
