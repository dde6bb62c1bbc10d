"""The 2-D scattering transform: fixed wavelets, moduli and averages that turn an image into features of its strokes.

Papers: Bruna and Mallat 2013, arXiv 1203.1513 (scattering, equations 2.8 to 2.11); Oyallon and Mallat 2015, arXiv
1412.8659 (the filters, section 2). Two scales (J = 2) and eight angles give 1 + 16 + 64 = 81 paths a colour, each seen
on a grid with a quarter of the image's side: 81 x 7 x 7 for 28 x 28. Nothing is learned, so the map is public, and a
record's features depend on that record alone. Filters, padding and order of paths are those of the kymatio package.

Wavelets act by Fourier transforms. The averages at the end are separable, so they are two small matrix products.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from veilset.core.errors import ConfigError

ANGLES = 8
PATHS = 1 + 2 * ANGLES + ANGLES**2
STRIDE = 4  # 2^J
GROUP = 3  # paths that are normalised together: 27 groups a colour (Tramer and Boneh 2021, arXiv 2011.11660)
WIDTH, FREQUENCY, SLANT = 0.8, 0.75 * math.pi, 0.5  # of the finest wavelet; a scale doubles and halves the first two
WRAPS = 2  # periods on each side that are added up
SMALLEST = 5


def features(x: torch.Tensor) -> torch.Tensor:
    """Normalised scattering of one image [C, H, W] or of several [n, C, H, W]: float [..., C * 81 * h * w].

    Each group of three paths has mean 0 and variance 1 over its values (group normalisation without weights), so an
    image's features have norm at most sqrt(C * 81 * h * w), whatever the image: 63 for 28 x 28 grey.
    """
    s = scattering(x)
    groups = s.unflatten(-3, (PATHS // GROUP, GROUP)).flatten(-3)
    groups = groups - groups.mean(-1, keepdim=True)
    return (groups / (groups.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(-3)


def size(shape: tuple[int, int, int]) -> int:
    """How many features an image of shape (C, H, W) has.

    Raises:
        ConfigError: a side below 5 pixels.
    """
    colours, *sides = shape
    if min(sides) < SMALLEST:
        raise ConfigError(f"shape = {list(shape)}: scattering needs images of at least {SMALLEST} pixels per side")
    return colours * PATHS * math.prod(len(_average(side, 0)) for side in sides)


def scattering(x: torch.Tensor) -> torch.Tensor:
    """Scattering coefficients of images [..., C, H, W]: [..., C, 81, h, w].

    Paths: the average; scale 1 and scale 2 with eight angles each; each angle of scale 1 with each of scale 2.
    Differentiable, and safe under `torch.func.vmap`.
    """
    h, w = x.shape[-2:]
    fine, coarse = (f.to(x) for f in _wavelets(_padded(h), _padded(w)))
    x = x[..., _mirror(h).to(x.device), :][..., _mirror(w).to(x.device)]
    spectrum = torch.fft.fft2(x)[..., None, :, :]
    u1 = torch.fft.ifft2(spectrum * fine).abs()
    u2 = torch.fft.ifft2(_fold(spectrum * coarse)).abs()
    u12 = torch.fft.ifft2(_fold(torch.fft.fft2(u1)[..., None, :, :] * coarse)).abs()
    whole = torch.cat([x[..., None, :, :], u1], -3)
    halved = torch.cat([u2, u12.flatten(-4, -3)], -3)
    return torch.cat([_averaged(whole, h, w, 0), _averaged(halved, h, w, 1)], -3)


# ---------------------------------------------------------------------- filters, made once per size


def _padded(side: int) -> int:
    """The least multiple of 4 that leaves the averages room at both ends."""
    return (side // STRIDE + 2) * STRIDE


@cache
def _mirror(side: int) -> torch.Tensor:
    """Where each pixel of the padded side comes from: reflection about the outermost pixels."""
    before = (_padded(side) - side) // 2
    place = (torch.arange(_padded(side)) - before).abs()
    return torch.where(place < side, place, 2 * (side - 1) - place)


@cache
def _wavelets(h: int, w: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fourier transforms (real) of the wavelets of both scales, eight angles each: [8, h, w], [8, h, w]."""
    fine, coarse = (
        torch.stack([_morlet(h, w, scale, (ANGLES // 2 - 1 - k) * math.pi / ANGLES) for k in range(ANGLES)])
        for scale in (1, 2)
    )
    return fine.float(), coarse.float()


def _morlet(h: int, w: int, scale: int, angle: float) -> torch.Tensor:
    """A wave under a Gaussian, twice as long across the wave, less as much of the Gaussian as makes its sum 0."""
    sigma, cos, sin = WIDTH * scale, math.cos(angle), math.sin(angle)
    rows, columns = (torch.arange(-WRAPS * n, (WRAPS + 1) * n, dtype=torch.float64) for n in (h, w))
    along = rows[:, None] * cos + columns * sin
    across = columns * cos - rows[:, None] * sin
    bell = torch.exp(-(along.square() + (SLANT * across).square()) / (2 * sigma**2)) * SLANT / (2 * math.pi * sigma**2)
    wave = torch.polar(bell, along * FREQUENCY / scale)
    bell, wave = (f.unflatten(1, (-1, w)).unflatten(0, (-1, h)).sum((0, 2)) for f in (bell, wave))
    return torch.fft.fft2(wave - wave.sum() / bell.sum() * bell).real


@cache
def _average(side: int, halved: int) -> torch.Tensor:
    """Matrix that averages one padded side (halved 0 or 1 times) by a Gaussian, and keeps every 4th place of `side`."""
    n = _padded(side)
    sigma = 2 * WIDTH
    place = torch.arange(-WRAPS * n, (WRAPS + 1) * n, dtype=torch.float64)
    bell = torch.exp(-place.square() / (2 * sigma**2)) / math.sqrt(2 * math.pi * sigma**2)
    spectrum = torch.fft.fft(bell.unflatten(0, (-1, n)).sum(0)).real
    if halved:  # its lowest frequencies, which are all that a halved side has
        spectrum = torch.cat([spectrum[: n // 4], spectrum[-(n // 4) :]])
    m = len(spectrum)
    smooth = torch.fft.ifft(torch.fft.fft(torch.eye(m, dtype=torch.float64), dim=0) * spectrum[:, None], dim=0).real
    return smooth[:: STRIDE >> halved][1:-1].float()


def _fold(spectrum: torch.Tensor) -> torch.Tensor:
    """Spectrum [..., h, w] of every second row and column: frequencies that become equal are averaged."""
    for side in (-1, -2):
        low, high = spectrum.chunk(2, side)
        spectrum = (low + high) / 2  # several times as fast as a mean over a split axis
    return spectrum


def _averaged(u: torch.Tensor, h: int, w: int, halved: int) -> torch.Tensor:
    """Smooth maps [..., rows, columns] along both sides and keep the grid of the features.

    Both products have the maps on the right: then a map's result does not depend, to the bit, on its place in a batch.
    """
    rows, columns = _average(h, halved).to(u), _average(w, halved).to(u)
    return (columns @ (rows @ u).mT).mT
