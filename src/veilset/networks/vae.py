"""Autoencoders that are safe under per-record gradients: no layer mixes records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from veilset.networks.activations import activation

LOG_VARIANCE = 8.0  # codes' log-variances lie within +- this
COARSEST = 7  # convolutions halve the sides while they are at least twice this


class Frame(nn.Module):
    """The public part of an autoencoder: where images are centred, and in which directions they are described.

    Args:
        centre: [K, P] one image per class, of P = C H W pixels in [0, 1]; all 0 for none.
        basis: [d, P] orthonormal rows, or None for the pixels themselves.
        scale: [d] about how far images spread along each row; None: 1 everywhere.
        logits: the decoder's output is passed through a sigmoid, so that it starts from the logit of the centre.
    """

    def __init__(
        self, centre: torch.Tensor, basis: torch.Tensor | None = None, scale: torch.Tensor | None = None,
        logits: bool = True,
    ):  # fmt: skip
        super().__init__()
        pixels = centre.shape[1]
        self.register_buffer("centre", centre)
        self.register_buffer("basis", torch.zeros(0, pixels) if basis is None else basis)
        self.register_buffer("scale", torch.ones(pixels if basis is None else len(basis)) if scale is None else scale)
        self.centre: torch.Tensor
        self.basis: torch.Tensor
        self.scale: torch.Tensor
        self.logits, self.centred = logits, bool((centre != 0).any())

    @classmethod
    def like(cls, state: Mapping[str, torch.Tensor], prefix: str = "frame.", logits: bool = True) -> Frame:
        """The frame that a network's state dict holds."""
        centre, basis, scale = (state[prefix + name] for name in ("centre", "basis", "scale"))
        return cls(centre, basis if len(basis) else None, scale, logits)

    def of(self, k: int) -> Frame:
        """The frame of class k alone, whose label is 0."""
        return Frame(self.centre[k : k + 1], self.basis if len(self.basis) else None, self.scale, self.logits)

    def describe(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] of labels [n] to centred, scaled coordinates [n, d]."""
        r = x.flatten(1) - self.centre[y]
        return (r @ self.basis.T if len(self.basis) else r) / self.scale

    def _origin(self, y: torch.Tensor) -> torch.Tensor:
        m = self.centre[y]
        if not self.logits:
            return m
        return m.clamp(0.02, 0.98).logit() if self.centred else torch.zeros_like(m)

    def _pixels(self, c: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        r = c * self.scale
        return self._origin(y) + (r @ self.basis if len(self.basis) else r)

    def image(self, c: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Scaled coordinates [n, d] and labels [n] to pixels [n, P], through the sigmoid if there is one."""
        return self._pixels(c, y).sigmoid() if self.logits else self._pixels(c, y)

    def compare(
        self, c: torch.Tensor, x: torch.Tensor, r: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the decoder says and what it should say, in the units of pixels.

        Args:
            c: the decoder's coordinates [k, d]. x, r: one image [1, C, H, W] and its coordinates [1, d]. y: labels [k].

        Returns:
            Logits [k, P] and pixels [1, P]; without a sigmoid, coordinates [k, d] and [1, d], whose squared distance is
            that of the images, up to what the basis leaves out.
        """
        if self.logits:
            return self._pixels(c, y), x.flatten(1)
        return c * self.scale, r * self.scale


def dense(sizes: Sequence[int], act: str, last: float = 1.0) -> nn.Sequential:
    """Linear layers of these widths with activations between; the last one's weights start at `last` times usual."""
    linear = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    nn.init.zeros_(linear[-1].bias)
    with torch.no_grad():
        linear[-1].weight.mul_(last)
    return nn.Sequential(*[part for layer in linear[:-1] for part in (layer, activation(act))], linear[-1])


class ConvEncoder(nn.Module):
    """4x4 convolutions with stride 2 down to sides of 7 to 13, then a linear layer that also sees the class."""

    def __init__(self, shape: tuple[int, int, int], extra: int, width: int, out: int, act: str):
        super().__init__()
        c, h, w = shape
        layers: list[nn.Module] = []
        for more in widths(shape, width):
            layers += [nn.Conv2d(c, more, 4, stride=2, padding=1), activation(act)]
            c, h, w = more, h // 2, w // 2
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(c * h * w + extra, out)

    def forward(self, x: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] and class codes [n, extra] to [n, out]."""
        return self.last(torch.cat([self.layers(x).flatten(1), extra], 1))


class ConvDecoder(nn.Module):
    """A linear layer to a coarse map, then 4x4 transposed convolutions with stride 2; cut to size."""

    def __init__(self, shape: tuple[int, int, int], inside: int, width: int, act: str):
        super().__init__()
        self.shape, all = shape, widths(shape, width)
        self.coarse = (all[-1], -(-shape[1] // 2 ** len(all)), -(-shape[2] // 2 ** len(all)))
        self.first = nn.Linear(inside, math.prod(self.coarse))
        layers: list[nn.Module] = []
        for more, less in zip(all[::-1], (*all[-2::-1], shape[0]), strict=True):
            layers += [activation(act), nn.ConvTranspose2d(more, less, 4, stride=2, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Codes [n, inside] to pixels [n, C H W]."""
        x = self.layers(self.first(z).unflatten(1, self.coarse))
        return x[..., : self.shape[1], : self.shape[2]].flatten(1)


def widths(shape: tuple[int, int, int], last: int) -> tuple[int, ...]:
    """Channels after each halving of the sides, doubling up to `last`: two halvings at 28 and 32, three at 64."""
    n = max(1, int(math.log2(max(1.0, min(shape[1:]) / COARSEST))))
    return tuple(max(1, last >> i) for i in reversed(range(n)))


class VAE(nn.Module):
    """A class-conditional autoencoder around a public frame; its code is a Gaussian, or a point in (-1, 1)^latent.

    Args:
        shape: (C, H, W) of the images.
        classes: number of classes K that the networks are told; 1 for none.
        latent: length of the code.
        frame: centring, basis and output.
        hidden: width of the dense networks' hidden layer, or channels of the last convolution.
        act: activation by name.
        conv: convolutions instead of dense layers; the frame's coordinates must then be the pixels.
        linear: 0, or the deviation of a pixel given its code (dense only). Then the networks are added to the linear
            autoencoder of the frame's first `latent` coordinates, and start at a tenth of their usual size.
        variational: the code is a Gaussian.
    """

    def __init__(
        self, shape: tuple[int, int, int], classes: int, latent: int, frame: Frame, *, hidden: int = 128,
        act: str = "tanh", conv: bool = False, linear: float = 0.0, variational: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.told, self.latent, self.frame = shape, classes if classes > 1 else 0, latent, frame
        self.conv, self.linear, self.variational = conv, linear > 0 and not conv, variational
        size, codes = len(frame.scale), latent * (2 if variational else 1)
        if conv:
            self.encoder: nn.Module = ConvEncoder(shape, self.told, hidden, codes, act)
            self.decoder: nn.Module = ConvDecoder(shape, latent + self.told, hidden, act)
            return
        last = 0.1 if linear else 1.0
        self.encoder = dense((size + self.told, hidden, codes), act, last)
        self.decoder = dense((latent + self.told, hidden, size), act, last)
        if linear:
            power = F.pad(frame.scale[:latent], (0, max(0, latent - size))).square()
            self.register_buffer("gain", power / (power + linear**2))
            self.gain: torch.Tensor

    def _class(self, y: torch.Tensor) -> torch.Tensor:
        """One-hot classes [n, told]."""
        return (y[:, None] == torch.arange(self.told, device=y.device)).float()

    def _code(self, r: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Coordinates [n, d] to means and log-variances of codes."""
        if self.conv:
            out = self.encoder(r.unflatten(1, self.shape), self._class(y)).float()
        else:
            out = self.encoder(torch.cat([r, self._class(y)], 1)).float()
        first = F.pad(r, (0, max(0, self.latent - r.shape[1])))[:, : self.latent]
        if not self.variational:
            mean = torch.tanh(out + 0.5 * first if self.linear else out)
            return mean, torch.full_like(mean, -torch.inf)
        mean, log_variance = out.chunk(2, 1)
        if self.linear:
            mean, log_variance = mean + self.gain * first, log_variance + (1 - self.gain).clamp_min(1e-4).log()
        return mean, LOG_VARIANCE * torch.tanh(log_variance / LOG_VARIANCE)

    def encode(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [n, C, H, W] in [0, 1], labels [n] to means and log-variances of codes [n, latent] (-inf: a point)."""
        return self._code(self.frame.describe(x, y), y)

    def weights(self) -> torch.Tensor:
        """How far each coordinate of the code moves an image [latent], up to a factor, as far as that is public."""
        size = len(self.frame.scale)
        if not self.linear:
            return torch.ones(self.latent, device=self.frame.scale.device)
        known = self.frame.scale[: self.latent]
        return F.pad(known, (0, max(0, self.latent - size)), value=float(known.min()))

    def _coordinates(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        c = self.decoder(torch.cat([z, self._class(y)], 1)).float()
        if not self.linear:
            return c
        z = z if self.variational else 2 * z
        return c + F.pad(z, (0, max(0, c.shape[1] - self.latent)))[:, : c.shape[1]]

    def decode(self, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Codes [n, latent] and labels [n] to images [n, C, H, W], not clamped."""
        return self.frame.image(self._coordinates(z, y), y).unflatten(1, self.shape)

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, e: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """One record x [1, C, H, W], y [1] and k draws of N(0, I), e [k, latent].

        The code is drawn k times as mean + deviation * e (Kingma and Welling 2014, arXiv 1312.6114).

        Returns:
            What the decoder says [k, n] and what it should say [1, n] (see `Frame.compare`), then mean and log-variance
            of the code [1, latent].
        """
        r = self.frame.describe(x, y)
        mean, log_variance = self._code(r, y)
        y = y.expand(len(e))
        got = self._coordinates(mean + (0.5 * log_variance).exp() * e, y)
        return *self.frame.compare(got, x, r, y), mean, log_variance
