"""Where the autoencoder methods draw codes from: a few Gaussians per class, by paid sums over a released encoder's
codes.

Fitting a density to the codes of a trained autoencoder is due to Ghosh et al. 2020 (arXiv 1903.12436), here by
noisy sums: moments of each class, then private k-means inside each class and the moments of its cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from veilset.core.types import PublicInfo
from veilset.learning.cells import private_kmeans
from veilset.learning.shrinkage import shrunk_towards
from veilset.methods.base import State
from veilset.methods.moments.dp_moments import cells_for
from veilset.methods.stages import Asked
from veilset.networks.dct import half, whole
from veilset.networks.vae import VAE
from veilset.privacy.spec import Privacy

Encode = Callable[[torch.Tensor, torch.Tensor], Any]
COUNT = 0.3  # the constant that counts units, relative to the bound beside it
REACH = 1.2  # codes count in full up to this norm, in units of what is usual
SQUASHED = 0.45  # root mean square of a code in (-1, 1), about
NEAR = 0.75  # offsets from the nearest centre count in full up to this norm, in units of that reach
CELLS = 0.1
ROUNDS = 2  # of private k-means
NAMES = ("part", "mean", "root")  # of what is kept
BOUNDS = {"codes": math.sqrt(2 + COUNT**2), "cells": NEAR * math.hypot(1, COUNT), "within": NEAR**2}


def cells_of(cells: int | None, info: PublicInfo, privacy: Privacy) -> int:
    """Gaussians a class that the noise can carry: as asked, or a function of declared facts."""
    return cells or cells_for(info, privacy, CELLS)


def fit(gate: Asked, net: VAE, cells: int, encode: Encode) -> State:
    """Ask for the sums and describe each class by Gaussians.

    Coordinates of the code are weighted by how far they move an image, as far as that is public, so that most of the
    noise falls where it does not show.

    Args:
        gate: with the releases "codes", and "cells" and "within" if there is more than one cell.
        net: tells the weights. It must have been released, and so must whatever `encode` uses.
        cells: Gaussians per class, M.
        encode: images [1, C, H, W] and labels [1] to means and log-variances of codes [1, latent].

    Returns:
        "part" [K, M] shares of the cells, "mean" [K, M, latent], "root" [K, M, latent, latent] of their covariances.
    """
    weight = net.weights()
    share = weight / float(REACH * weight.norm() * (1.0 if net.variational else SQUASHED))
    look = _Look(encode, share)
    with torch.no_grad():
        mean, cov, n = _moments(gate, look, net.latent)
        state = {"part": torch.ones(len(mean), 1), "mean": mean[:, None], "root": _root(cov)[:, None]}
        if cells > 1:
            state = _cells(gate, look, mean, cov, n, cells)
    share = share.cpu()
    return state | {"mean": state["mean"] / share, "root": state["root"] / share[:, None]}


class _Look:
    """One image to its code's mean and variances in weighted coordinates, where codes have norms of about 1."""

    def __init__(self, encode: Encode, share: torch.Tensor):
        self.encode, self.share = encode, share

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_variance = self.encode(x[None], y[None])
        return mean[0] * self.share, log_variance[0].exp() * self.share**2


def _second(r: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Products of r, with the variances added to its squares."""
    products = half(r)
    return torch.cat([products[: len(r)] + variance, products[len(r) :]])


def _within(v: torch.Tensor, bound: float) -> torch.Tensor:
    return v * (bound / v.norm().clamp_min(bound))


def _moments(gate: Asked, look: _Look, d: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means [K, d], covariances [K, d, d] and counts [K] of the codes of each class."""
    bound, expected = BOUNDS["codes"], gate.info.units / len(gate.info.classes)

    def both(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        first, variance = look(x, y)
        return _within(torch.cat([first, _second(first, variance), first.new_full((1,), COUNT)]), bound)

    answer = gate.sum("codes", both, by_class=True).float()
    n = (answer[:, -1] / COUNT).clamp(expected / 4, expected * 4)
    mean = answer[:, :d] / n[:, None]
    own = whole(answer[:, d:-1], d) / n[:, None, None] - mean[:, :, None] * mean[:, None]
    pooled = (own * n[:, None, None]).sum(0) / n.sum()
    noise = gate.deviation("codes") / n
    return mean, torch.stack([shrunk_towards(pooled, m, float(s)) for m, s in zip(own, noise, strict=True)]), n


def _cells(gate: Asked, look: _Look, mean: torch.Tensor, cov: torch.Tensor, n: torch.Tensor, cells: int) -> State:
    """Private k-means inside each class, from centres drawn from its Gaussian; then moments of its cells."""
    d, noise = mean.shape[1], gate.deviation("within")
    centre = mean[:, None] + torch.randn(len(mean), cells, d) @ _root(cov).mT

    def nearest(
        x: torch.Tensor, y: torch.Tensor, centre: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        first, variance = look(x, y)
        r = first - centre.to(first)[y]
        cell = r.square().sum(-1).argmin()
        return cell, r[cell], variance

    def ask(centre: torch.Tensor) -> torch.Tensor:
        def offset(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            cell, r, _ = nearest(x, y, centre)
            return cell, torch.cat([_within(r, NEAR), r.new_full((1,), COUNT * NEAR)])

        return gate.sum("cells", offset, by_class=True, cells=cells)

    def products(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cell, r, variance = nearest(x, y, centre)
        return cell, _within(_second(r, variance), NEAR**2)

    least = gate.info.units / len(mean) / cells / 10
    centre, part = private_kmeans(
        ask, mean, cov, centre, rounds=ROUNDS, constant=COUNT * NEAR, deviation=gate.deviation("cells"), least=least
    )

    spread, count = whole(gate.sum("within", products, by_class=True, cells=cells).float(), d), part * n[:, None]
    pooled = spread.sum(1) / n[:, None, None]
    cov = torch.stack([
        torch.stack([shrunk_towards(p, m / k, noise / float(k)) for m, k in zip(own, ks, strict=True)])
        for p, own, ks in zip(pooled, spread, count, strict=True)
    ])  # fmt: skip
    return {"part": part, "mean": centre, "root": _root(cov)}


def public(codes: torch.Tensor, labels: torch.Tensor, classes: int) -> State:
    """One Gaussian a class of public codes [n, latent]; half of each covariance is that of all classes."""
    mean = torch.stack([codes[labels == k].mean(0) for k in range(classes)])
    r = codes - mean[labels]
    own = torch.stack([r[labels == k].T @ r[labels == k] / (labels == k).sum() for k in range(classes)])
    root = _root((r.T @ r / len(r) + own) / 2)
    return {"part": torch.ones(classes, 1), "mean": mean[:, None], "root": root[:, None]}


def _root(m: torch.Tensor) -> torch.Tensor:
    """Square roots of symmetric matrices [..., d, d] whose negative eigenvalues, made by noise, are set to 0."""
    values, axes = torch.linalg.eigh(m)
    return axes * values.clamp_min(0).sqrt()[..., None, :]
