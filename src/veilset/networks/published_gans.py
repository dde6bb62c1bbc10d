"""The networks of GS-WGAN as published (Chen, Orekondy and Fritz 2020, arXiv 2006.08265, and its code)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from veilset.networks.critics import one_hot

TURNS = 3  # of power iteration; a function of weights alone has no last vector to go on from


class SpectralCritic(nn.Module):
    """Three 5x5 convolutions of stride 2, then a linear score and the projection on the label's embedding.

    All weights are divided by their largest singular value, found anew at each call: a function of the weights, so
    that many critics run in one vectorised pass.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        width: channels of the first convolution; doubled at each further one.
        heads: outputs: 1, a critic's; or K, a classifier's, which has no projection.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, heads: int = 1):
        super().__init__()
        self.classes = classes
        channels, side = (shape[0], width, 2 * width, 4 * width), list(shape[1:])
        for _ in range(3):
            side = [-(-s // 2) for s in side]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.dense = nn.Linear(channels[-1] * math.prod(side), heads)
        self.labels = nn.Linear(classes, self.dense.in_features, bias=False) if heads == 1 else None

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [0, 1] and labels [n] to scores [n, 1], or logits [n, K]."""
        for layer in self.layers:
            x = F.relu(F.conv2d(x, _spectral(layer.weight), layer.bias, stride=2, padding=2))  # type: ignore[arg-type]
        x = x.flatten(1)
        out = F.linear(x, _spectral(self.dense.weight), self.dense.bias)
        if self.labels is not None:
            out = out + (x * F.linear(one_hot(y, self.classes).to(x), _spectral(self.labels.weight))).sum(1, True)
        return out


def _spectral(weight: torch.Tensor) -> torch.Tensor:
    """A weight over its largest singular value."""
    w = weight.flatten(1)
    fixed = w.detach()
    u = torch.ones_like(fixed[:, 0])
    for _ in range(TURNS):
        v = F.normalize(fixed.mT @ u, dim=0)
        u = F.normalize(fixed @ v, dim=0)
    return weight / (u @ w @ v)


class ResNetGenerator(nn.Module):
    """Code and label through a linear layer to 4 x 4, then residual blocks that double the side, cut to size.

    Args:
        shape: (C, H, W), 28 x 28, or a power of 2 from 8 on.
        classes: number of classes K.
        code: length of the latent code.
        width: channels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, code: int, width: int):
        super().__init__()
        self.shape, self.classes, self.code, self.width = shape, classes, code, width
        rounds = max(1, math.ceil(math.log2(max(shape[1:]) / 4)))
        self.dense = spectral_norm(nn.Linear(code + classes, width * 16))
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(rounds)))
        self.last = spectral_norm(nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, code] and labels [n] to images [n, C, H, W] in [0, 1]."""
        u = self.dense(torch.cat([z, one_hot(y, self.classes).to(z)], 1)).relu().unflatten(1, (self.width, 4, 4))
        x = self.last(self.blocks(_pixel_norm(u))).float().sigmoid()
        top, left = ((a - b) // 2 for a, b in zip(x.shape[2:], self.shape[1:], strict=True))
        return x[..., top : top + self.shape[1], left : left + self.shape[2]]


class _Block(nn.Module):
    """Twice the side, beside a plain path."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = (spectral_norm(nn.Conv2d(width, width, 3, padding=1)) for _ in range(2))
        self.plain = spectral_norm(nn.Conv2d(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = self.first(F.interpolate(_pixel_norm(x), scale_factor=2))
        return self.second(_pixel_norm(u).relu()) + self.plain(F.interpolate(x, scale_factor=2))


def _pixel_norm(x: torch.Tensor) -> torch.Tensor:
    """Each pixel's channels over their root mean square."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
