"""A public basis for images: the lowest frequencies of the 2-D discrete cosine transform."""

from __future__ import annotations

import math

import torch


def dct(n: int) -> torch.Tensor:
    """The orthonormal DCT-II matrix [n frequencies, n positions]."""
    k, i = torch.arange(n)[:, None], torch.arange(n)[None]
    m = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    m[0] /= math.sqrt(2)
    return m


def low_frequencies(shape: tuple[int, int, int], size: int) -> torch.Tensor:
    """Orthonormal rows [at most size, C*H*W], lowest u + v first; of RGB, brightness first: colour counts double.

    Args:
        shape: (channels 1 or 3, height, width).
        size: how many; all of them if the image has no more.
    """
    c, h, w = shape
    colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]]) if c == 3 else torch.eye(c)
    colour = colour / colour.norm(dim=1, keepdim=True)
    q, u, v = _lowest(shape, size)
    return torch.einsum("dc,dh,dw->dchw", colour[q], dct(h)[u], dct(w)[v]).flatten(1)


def steepness(shape: tuple[int, int, int], size: int) -> torch.Tensor:
    """1 + |(u, v)| of each row of `low_frequencies`, twice that for colour: a guess of how images fall."""
    q, u, v = _lowest(shape, size)
    return (1 + (u.square() + v.square()).sqrt()) * torch.where(q > 0, 2, 1)


def _lowest(shape: tuple[int, int, int], size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colour q, row frequency u and column frequency v of the lowest waves, in their order."""
    c, h, w = shape
    q, u, v = (a.flatten() for a in torch.meshgrid(torch.arange(c), torch.arange(h), torch.arange(w), indexing="ij"))
    key = (u + v) * torch.where(q > 0, 2, 1) + q + 1e-3 * (u - v).abs()
    first = key.argsort(stable=True)[:size]
    return q[first], u[first], v[first]


def half(r: torch.Tensor) -> torch.Tensor:
    """The products r_i r_j of r [d]: d squares, then sqrt 2 times the pairs i < j in rows. Their norm is |r|^2."""
    s = r * math.sqrt(2)
    return torch.cat([r * r] + [s[i] * r[i + 1 :] for i in range(len(r) - 1)])  # slices are faster than gathers


def whole(v: torch.Tensor, d: int) -> torch.Tensor:
    """The symmetric matrices [..., d, d] of `half` vectors [..., d (d + 1) / 2].

    Noise of deviation s in the vector has deviation s on the diagonal and s / sqrt 2 beside it.
    """
    i, j = torch.triu_indices(d, d, offset=1)
    m = torch.diag_embed(v[..., :d])
    m[..., i, j] = m[..., j, i] = v[..., d:] / math.sqrt(2)
    return m
