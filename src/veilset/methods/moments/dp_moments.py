"""DP-Moments: noisy means and covariances of a few cells of each class, in a public low-frequency basis.

Idea: ours, a baseline. Images are projected on the lowest frequencies of a 2-D DCT. Each class is cut into a few cells
(private k-means in that basis), and each cell is a Gaussian whose draws, clamped to [0, 1], have the measured moments.
With one component per class it is the textbook Gaussian of class mean and class covariance.

Private access, each a sum over images in the row of the image's class (and cell), noise shared out by `plan`:
  mean     z clipped to C0, and a constant that counts: class means and sizes
  spread   r r' / |r|^2 scaled to C^2, r = z - class mean: class covariances about the NOISY means, to start the cells
  cells    r clipped to C, and a constant, r = z - nearest centre, a few rounds: private k-means (Su et al. 2016,
           arXiv 1504.05998, has the same two parts) inside each class
  within   r r' / |r|^2 scaled to C^2, r = z - nearest centre: covariances of the cells about their NOISY centres
Everything after is free: eigenvalues are shrunk by the known noise (by half the edge of its semicircle for a class; the
difference of a cell from its class by sign(l) sqrt(l^2 - edge^2)), and moments are corrected for clamping.

Products are normalised by |r|^2, so that every image has the same weight whatever its norm: the released matrix is a
shape, not the covariance itself. That bounds an image's influence by construction and costs less noise than clipping.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from veilset.core.config import option
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.learning.cells import draw, private_kmeans
from veilset.learning.densities import log_density
from veilset.learning.shrinkage import root as root_of
from veilset.learning.shrinkage import shrunk, shrunk_towards
from veilset.methods.base import State
from veilset.methods.moments.pooled import Pooled
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.networks.dct import half, low_frequencies, whole
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

COUNT = 0.3  # the constant that counts, relative to the clipping bound beside it
SHARES = {"spread": 0.2, "cells": 0.25, "within": 0.5}  # of 1 / noise_multiplier^2, relative to each other
RADIUS, RESIDUAL = 0.6, 0.22  # C0 and C, in units of sqrt(C H W)
CELLS = 0.11


@dataclass(frozen=True, kw_only=True)
class Config:
    basis_size: int = option(136, "basis size: how many low frequencies (136: those with u + v < 16)", ge=1)
    n_components: int | None = option(
        None, "Gaussians per class; default 0.11 / sqrt(noise_multiplier K / N), from 1 to 16", ge=1, le=64
    )
    rounds: int = option(2, "rounds of private k-means, if there is more than one Gaussian per class", ge=1, le=10)
    mc_samples: int = option(1000, "Monte Carlo samples that correct moments for clamping; 0: no correction", ge=0)
    pooled: bool = option(
        False, "instead: one Gaussian per class on an 8 x 8 grid, its covariance common to all classes"
    )


class Moments(Stage):
    """Class means and covariances, as sums; draws from the Gaussians that they describe.

    Args:
        config: parameters; default those of `dp-moments`.
        sized: the budget by which cells and shares are chosen, if not its own.
    """

    def __init__(self, config: Config | None = None, sized: Privacy | None = None):
        self.config, self._sized = config or Config(), sized

    def _cells(self, info: PublicInfo, budget: Privacy) -> int:
        """How many Gaussians a class has."""
        return int(self.config.n_components) if self.config.n_components is not None else cells_for(info, budget, CELLS)

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Sums whose 1 / weight^2 add up to 1."""
        budget = self._sized or budget
        side = math.sqrt(info.pixels)
        c0, c, count = RADIUS * side, RESIDUAL * side, math.hypot(1, COUNT)
        cells, d = self._cells(info, budget), min(self.config.basis_size, info.pixels)
        steps = {"spread": 1, "cells": self.config.rounds, "within": 1} if cells > 1 else {"within": 1}
        bound = {"mean": c0 * count, "spread": c * c, "cells": c * count, "within": c * c}
        # Small sets need most of the budget to see their means; in large ones means are cheap.
        share = {"mean": min(0.7, max(0.05, 80 * _noise_ratio(info, budget)))}
        rest = (1 - share["mean"]) / sum(SHARES[name] for name in steps)
        share |= {name: rest * SHARES[name] for name in steps}
        releases = [
            Release(name=name, bound=bound[name], steps=n, weight=math.sqrt(n / share[name]))
            for name, n in ({"mean": 1} | steps).items()
        ]
        seconds = 3 + 6e-9 * info.units * d * d * (2 if cells > 1 else 1) + 2e-6 * len(info.classes) * cells * d * d
        return Plan(tuple(releases), seconds=seconds, memory_mb=450 + 3e-5 * len(info.classes) * cells * d * d)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Means, then cells about them."""
        basis = low_frequencies(info.shape, self.config.basis_size).to(self.device)
        classes, d, expected = len(info.classes), len(basis), info.units / len(info.classes)
        c0, c = RADIUS * math.sqrt(info.pixels), RESIDUAL * math.sqrt(info.pixels)
        cells = self._cells(info, self._sized or budget)

        answer = gate.sum("mean", _offset(basis, torch.zeros(classes, 1, d), c0), by_class=True, cells=1).float()[:, 0]
        count = (answer[:, -1] / (COUNT * c0)).clamp(expected / 4, expected * 4)
        mean = answer[:, :-1] / count[:, None]
        centre, part = mean[:, None], torch.ones(classes, 1)
        if cells > 1:
            answer = gate.sum("spread", _products(basis, centre, c), by_class=True, cells=1).float()[:, 0]
            spread = whole(answer, d) / count[:, None, None]
            noise = gate.deviation("spread")
            class_cov = torch.stack([shrunk(m, noise / float(n)) for m, n in zip(spread, count, strict=True)])
            centre, part = private_kmeans(
                lambda centre: gate.sum("cells", _offset(basis, centre, c), by_class=True, cells=cells),
                mean, class_cov, mean[:, None] + torch.randn(classes, cells, d) @ root_of(class_cov),
                rounds=self.config.rounds, constant=COUNT * c, deviation=gate.deviation("cells"),
                least=expected / cells / 10,
            )  # fmt: skip
        answer = gate.sum("within", _products(basis, centre, c), by_class=True, cells=cells).float()
        within, n = whole(answer, d), part * count[:, None]

        shift, root = centre.clone(), torch.zeros(classes, cells, d, d)
        basis = basis.cpu()
        noise = gate.deviation("within")
        for k in progress(range(classes), "moments"):
            total = float(n[k].sum())
            pooled = shrunk(within[k].sum(0) / total, noise * math.sqrt(cells) / total)
            for j in range(cells):
                own = float(n[k, j])
                cov = shrunk_towards(pooled, within[k, j] / own, noise / own) if cells > 1 else pooled
                shift[k, j], root[k, j] = _unclamp(basis, centre[k, j], cov, self.config.mc_samples)
        return {"mean": shift, "root": root, "part": part, "basis": basis}

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Clamped draws from the Gaussians of the labels."""
        coordinates = draw(state["mean"], state["root"], state["part"], labels)
        return (coordinates @ state["basis"]).clamp(0, 1).unflatten(1, info.shape)


def likelihood(state: State, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
    """Log density of images under the cells of their class, for `attack_features`."""
    return {"likelihood": log_density(state["mean"], state["root"], state["part"], x.flatten(1) @ state["basis"].T, y)}


class DPMoments(Single):
    """Class means and covariances in a low-frequency basis."""

    name = "dp-moments"
    Config = Config
    recipes: ClassVar = {"pooled": {"pooled": True}}

    def _stage(self) -> Stage:
        return Pooled() if self.config.pooled else Moments(self.config)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """likelihood: log density of the Gaussian cells."""
        return {} if self.config.pooled else likelihood(self.fitted()[0], x, y)


def cells_for(info: PublicInfo, privacy: Privacy, scale: float) -> int:
    """How many cells the noise can carry: a function of declared facts, one rule for all sets."""
    return max(1, min(16, round(scale / math.sqrt(max(_noise_ratio(info, privacy), 1e-12)))))


def _noise_ratio(info: PublicInfo, privacy: Privacy) -> float:
    """Noise multiplier of a single release, over the declared units of a class: how coarse one class mean would be."""
    sigma = gaussian_noise_multiplier(privacy.epsilon, privacy.delta) if privacy.private else 0.0
    return sigma * len(info.classes) / info.units


# ---------------------------------------------------------------------- per-image maps, given to the gate


def _nearest(
    basis: torch.Tensor, centre: torch.Tensor, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(number of the nearest centre [cells, d] of class y, offset from it [d])."""
    r = basis @ x.flatten() - centre[y]
    cell = r.square().sum(-1).argmin()
    return cell, r[cell]


def _offset(basis: torch.Tensor, centre: torch.Tensor, bound: float):  # type: ignore[no-untyped-def]
    """f: the offset clipped to bound, and COUNT x bound; norm at most bound x sqrt(1 + COUNT^2)."""
    centre = centre.to(basis)

    def f(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cell, r = _nearest(basis, centre, x, y)
        r = r * (bound / r.norm().clamp_min(bound))
        return cell, torch.cat([r, r.new_full((1,), COUNT * bound)])

    return f


def _products(basis: torch.Tensor, centre: torch.Tensor, bound: float):  # type: ignore[no-untyped-def]
    """f: the products of the offset scaled to norm `bound`; their norm is bound^2."""
    centre = centre.to(basis)

    def f(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cell, r = _nearest(basis, centre, x, y)
        return cell, half(r * (bound / r.norm().clamp_min(1e-6)))

    return f


# ---------------------------------------------------------------------- free post-processing


def _unclamp(
    basis: torch.Tensor, mean: torch.Tensor, cov: torch.Tensor, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and root of a Gaussian whose draws, clamped to [0, 1] as images, have the given mean and covariance.

    A fixed-point search with common random numbers; it looks at noisy moments only.
    """
    values, axes = torch.linalg.eigh(cov)
    if draws < 2 or not bool((values > 1e-4).any()):
        return mean, root_of(cov)
    axes, wanted = axes[:, values > 1e-4], torch.diag(values[values > 1e-4])
    e = torch.randn(draws, len(wanted))
    e -= e.mean(0)
    place, power, a, out = mean, wanted, root_of(wanted), basis.T @ axes
    for _ in range(6):
        z = (place @ basis + e @ a @ out.T).clamp(0, 1) @ basis.T
        got = z.mean(0)
        w = (z - got) @ axes
        power, place = power + wanted - w.T @ w / draws, place + mean - got
        a = root_of(power, floor=1e-4)
    root = torch.zeros_like(cov)
    root[:, : len(wanted)] = axes @ a
    return place, root
