"""Generators for adversarial training. They see synthetic images only, so batch normalisation is safe in them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.critics import halvings, one_hot
from veilset.networks.dct import low_frequencies


class MLPGenerator(nn.Module):
    """[code, one-hot label] through fully connected layers to an image.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K.
        code: length of the latent code.
        widths: of the hidden layers.
        norm: batch normalisation after each hidden layer.
        basis: how many of the lowest frequencies an image (before its last sigmoid) is made of; 0: free pixels.
    """

    basis: torch.Tensor | None

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        code: int,
        widths: tuple[int, ...],
        norm: bool = True,
        basis: int = 0,
    ):
        super().__init__()
        self.shape, self.classes, self.code = shape, classes, code
        sizes = (code + classes, *widths)
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [nn.Linear(a, b), *([nn.BatchNorm1d(b)] if norm else []), nn.ReLU()]
        waves = low_frequencies(shape, basis) if basis else None
        size = math.prod(shape) if waves is None else len(waves)
        if waves is not None:
            waves = waves * math.sqrt(math.prod(shape) / size)  # a pixel varies as a coefficient does
        self.register_buffer("basis", waves, persistent=False)
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], size))

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, code] and labels [n] to images [n, C, H, W] in [0, 1]."""
        u = torch.cat([z, one_hot(y, self.classes).to(z)], 1)
        u = self.layers(u)
        if self.basis is not None:
            u = u @ self.basis
        return u.float().sigmoid().unflatten(1, self.shape)


class DeconvGenerator(nn.Module):
    """Code and label through a linear layer to a coarse map, then rounds of transposed 4x4 convolution of stride 2.

    Args:
        shape: (C, H, W) of the images; the coarse map is their side halved twice (28, 32) or three times (64), rounded
            up, and the result is cut to size.
        classes: number of classes K.
        code: length of the latent code.
        width: channels before the last convolution; doubled at each one before it.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, code: int, width: int):
        super().__init__()
        self.shape, self.classes, self.code = shape, classes, code
        rounds = halvings(shape[1:])
        self.coarse = (width << (rounds - 1), *(-(-s // 2**rounds) for s in shape[1:]))
        self.dense = nn.Linear(code + classes, math.prod(self.coarse))
        layers: list[nn.Module] = [nn.BatchNorm2d(self.coarse[0]), nn.ReLU()]
        for i in reversed(range(1, rounds)):
            layers += [nn.ConvTranspose2d(width << i, width << (i - 1), 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(width << (i - 1)), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, shape[0], 4, stride=2, padding=1))

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, code] and labels [n] to images [n, C, H, W] in [0, 1]."""
        u = self.dense(torch.cat([z, F.one_hot(y, self.classes).to(z)], 1)).unflatten(1, self.coarse)
        u = self.layers(u.contiguous(memory_format=torch.channels_last))
        return u[..., : self.shape[1], : self.shape[2]].float().sigmoid()


class ShiftedGaussians(nn.Module):
    """Draws from Gaussian cells of each class, and a shift of each class along a few waves; only that is learned.

    At first nothing is shifted. So few weights are learned (K w) that noise on their gradients averages out.

    Args:
        shape: (C, H, W) of the images.
        mean, root, part: of the cells, as `learning.cells.draw` has them: [K, M, d], [K, M, d, d], [K, M].
        basis: [d, C H W], in which the cells lie.
        waves: orthonormal [w, C H W]; None: pixels.
        truncation: of codes; below 1, draws lie nearer to the means of their cells.
    """

    mean: torch.Tensor
    root: torch.Tensor
    part: torch.Tensor
    basis: torch.Tensor
    waves: torch.Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: torch.Tensor,
        root: torch.Tensor,
        part: torch.Tensor,
        basis: torch.Tensor,
        waves: torch.Tensor | None,
        truncation: float = 1.0,
    ):
        super().__init__()
        self.shape, self.classes, self.code, self.truncation = shape, len(mean), len(basis), truncation
        waves = torch.eye(basis.shape[1]) if waves is None else waves
        fixed = {"mean": mean.flatten(0, 1), "root": root.flatten(0, 1), "part": part, "basis": basis, "waves": waves}
        for name, v in fixed.items():
            self.register_buffer(name, v, persistent=False)
        self.shift = nn.Parameter(torch.zeros(self.classes, len(waves)))

    def forward(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, d] and labels [n] to images [n, C, H, W] in [0, 1]; the cell of an image is drawn here."""
        row = y * self.part.shape[1] + torch.multinomial(self.part[y], 1)[:, 0]
        u = self.mean[row] + torch.einsum("nij,nj->ni", self.root[row], self.truncation * z)
        return (u @ self.basis + self.shift[y] @ self.waves).float().clamp(0, 1).unflatten(1, self.shape)


Codes = Callable[..., torch.Tensor]


def uniform(n: int, code: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Latent codes [n, code], uniform in (-1, 1); `torch.randn` gives Gaussian ones."""
    return 2 * torch.rand(n, code, device=device) - 1


@torch.no_grad()
def settle(net: nn.Module, code: int, classes: int, batch: int, codes: Codes = torch.randn, rounds: int = 30) -> None:
    """Collect anew the batch statistics that belong to a generator's (averaged) weights, from its own images."""
    layers = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not layers:
        return
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
    net.train()
    device = next(net.parameters()).device
    for _ in range(rounds):
        net(codes(batch, code, device=device), torch.arange(batch, device=device) % classes)
