"""How alike two image sets look: a Frechet distance on a fixed public bank of Gabor filters.

It is called fd-gabor because it is not FID: no trained network, no download, other numbers. Values compare only with
other fd-gabor values of the same kind of image (grey or RGB) and of similar numbers of images, since the distance is
biased upwards when images are few. Labels are not looked at.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from veilset.core.errors import DataError
from veilset.evaluation.distances import frechet
from veilset.evaluation.registry import Answer, Entry, Trial, register

if TYPE_CHECKING:
    import torch

SIDE, GRID, OCTAVES, ORIENTATIONS = 32, 4, 3, 4
KERNEL, WAVELENGTH, WIDTH = 7, 4.0, 1.6  # pixels of the octave


@cache
def gabor_bank() -> torch.Tensor:
    """Quadrature pairs float32 [2 * ORIENTATIONS, 1, 7, 7]: cosine filters, then sine filters.

    Each has zero sum (blind to brightness) and unit absolute sum.
    """
    import torch

    axis = torch.arange(KERNEL, dtype=torch.float64) - KERNEL // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * WIDTH**2))
    filters = []
    for wave in (torch.cos, torch.sin):
        for k in range(ORIENTATIONS):
            angle = math.pi * k / ORIENTATIONS
            kernel = wave(2 * math.pi / WAVELENGTH * (x * math.cos(angle) + y * math.sin(angle))) * envelope
            kernel = kernel - envelope * (kernel.sum() / envelope.sum())
            filters.append(kernel / kernel.abs().sum())
    return torch.stack(filters)[:, None].float()


def features(x: torch.Tensor) -> torch.Tensor:
    """Describe images by 192 Gabor energies and 16 local brightnesses a channel: 208 numbers (grey) or 240 (RGB).

    Images are resized to 32x32 (bilinear, antialiased). The energy is the modulus of a quadrature pair on the mean
    channel, at three octaves and four orientations, averaged on a 4x4 grid.

    Args:
        x: uint8 [N, C, H, W].

    Returns:
        float64 [N, 192 + 16 C], in grey levels (0 to 255).
    """
    import torch
    from torch.nn import functional as F

    v = x.float()
    if tuple(v.shape[2:]) != (SIDE, SIDE):
        v = F.interpolate(v, (SIDE, SIDE), mode="bilinear", antialias=True)
    parts = [F.adaptive_avg_pool2d(v, GRID)]
    grey = v.mean(1, keepdim=True)
    for octave in range(OCTAVES):
        if octave:
            grey = F.avg_pool2d(grey, 2)
        padded = F.pad(grey, [KERNEL // 2] * 4, mode="reflect")
        even, odd = F.conv2d(padded, gabor_bank()).chunk(2, 1)
        parts.append(F.adaptive_avg_pool2d(torch.hypot(even, odd), GRID))
    return torch.cat([p.flatten(1) for p in parts], 1).double()


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [D] and unbiased covariance [D, D] of `features`, float64, in pieces so that memory does not grow with N."""
    import torch

    if len(x) < 2:
        raise DataError(
            f"fd-gabor got {len(x)} images: it needs at least 2 on each side, and some thousands to be steady"
        )
    n, total, outer = len(x), torch.zeros(()), torch.zeros(())
    with torch.no_grad():
        for part in x.split(500):
            f = features(part)
            total, outer = total + f.sum(0), outer + f.T @ f
    mean = total / n
    return mean, (outer - n * torch.outer(mean, mean)) / (n - 1)


def fd_gabor(trial: Trial) -> Answer:
    """Frechet distance to the real set on fixed Gabor features (not FID; labels are not looked at)."""
    mean, cov = moments(trial.images.x)
    facts = {"images": len(trial.images), "against_images": len(trial.against), "features": len(mean)}
    return Answer(
        frechet(mean, cov, *trial.keep(("moments", "fd-gabor"), lambda: moments(trial.against.x))), facts=facts
    )


register(
    Entry(
        name="fd-gabor",
        unit="grey levels²",
        better="lower",
        doc="Frechet distance to the real set on fixed Gabor features (not FID; labels are not looked at).",
        run=fd_gabor,
        seeded=False,
        group="gabor",
        default=True,
    )
)
