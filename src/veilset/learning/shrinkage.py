"""Eigenvalues of symmetric matrices that bear known noise: what of them is noise is taken off. Post-processing only."""

from __future__ import annotations

import math

import torch


def shrunk(m: torch.Tensor, noise: float) -> torch.Tensor:
    """Every eigenvalue less half the edge of the noise's semicircle (edge: sqrt(2 d) noise), at least 0.

    Args:
        m: symmetric [d, d].
        noise: standard deviation on the diagonal; off the diagonal it is noise / sqrt(2).
    """
    values, axes = torch.linalg.eigh(m)
    return (axes * (values - noise * math.sqrt(len(m) / 2)).clamp_min(0)) @ axes.T


def shrunk_towards(pooled: torch.Tensor, m: torch.Tensor, noise: float) -> torch.Tensor:
    """pooled + (m - pooled) with its eigenvalues l shrunk to sign(l) sqrt(l^2 - edge^2); arguments as `shrunk`."""
    values, axes = torch.linalg.eigh(m - pooled)
    kept = values.sign() * (values.square() - 2 * len(m) * noise**2).clamp_min(0).sqrt()
    return pooled + (axes * kept) @ axes.T


def root(m: torch.Tensor, floor: float = 0.0) -> torch.Tensor:
    """Symmetric square roots of symmetric matrices [..., d, d], of eigenvalues of at least `floor`."""
    values, axes = torch.linalg.eigh(m)
    return (axes * values.clamp_min(floor).sqrt()[..., None, :]) @ axes.mT
