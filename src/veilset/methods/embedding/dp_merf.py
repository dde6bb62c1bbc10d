"""DP-MERF: one noisy random-feature mean embedding of images and labels, and a generator that matches it.

Paper: Harder, Adamczewski, Park 2021, arXiv 2002.11603, Algorithm 1 (homogeneous labels).
Idea: random Fourier features of a Gaussian kernel have norm 1, so their sum over images moves by at most 1 when an
image is added or removed. The noisy sum, kept apart by class, is released once; a generator is fitted to it for free.

Private access: one `sum`, "embedding", bound 1 per unit, every unit, no sampling. The label is in the same release.

Differs from the paper and its code:
  * The sum has sensitivity 1 under add/remove with declared denominators; the paper's 2/m is for replace-one.
    The noise is exact: 3.7306 at (1, 1e-5), where the code presets 5.0.
  * Length scales are functions of the image size. The code's 105 and 127 were tuned on the private data.
  * `loss` "unbiased" drops the pairs of an image with itself from the generated-generated term. A batch holds about
    ten images per class, so in the published loss that pair is a tenth of the term, and rewards collapsed classes.
  * The generator is a few clamped Gaussians per class in a low-frequency basis, which classifiers learn more from than
    from the images of the paper's convolutional network.
  * Labels are equal in every batch, there is a second, shorter length scale, the rate decays by a cosine and weights
    are averaged. The published form is the recipe "paper".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from veilset.core.config import option
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.learning.densities import log_density
from veilset.methods.base import State
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.networks.generators import CellGenerator, ConvGenerator
from veilset.networks.precision import fast_dtype
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config:
    generator: str = option(
        "cells", "clamped Gaussian cells, or (published) a convolutional network", choices=("cells", "conv")
    )
    frequencies: int = option(2000, "random frequencies a length scale; each gives a cosine and a sine", ge=1)
    scales: int = option(2, "length scales: sqrt(pixels / 7), and halves of it", ge=1, le=6)
    loss: str = option(
        "unbiased", "squared distance without, or (published) with, self-pairs", choices=("unbiased", "published")
    )
    balanced: bool = option(True, "equal labels in every batch, instead of labels drawn at random")
    lr_schedule: str = option(
        "cosine", "learning rate: to 0 by a cosine, or 0.9 times in each fifth", choices=("cosine", "step")
    )
    ema_decay: float = option(0.99, "decay of the exponential average of the weights; 0: none", ge=0, lt=1)
    steps: int = option(800, "generator updates; they cost no privacy", ge=1)
    batch_size: int = option(400, "generated images per update; at least two per class are used", ge=2)
    lr: float | None = option(None, "top learning rate of Adam; default 0.01 for conv, 0.1 for cells", gt=0)
    latent_dim: int = option(20, "dimension of the latent code", ge=1)


class DPMERF(Single):
    """Random-feature mean embedding, one release, conditional generator."""

    name = "dp-merf"
    Config = Config
    recipes: ClassVar = {
        "paper": {
            "generator": "conv",
            "loss": "published",
            "balanced": False,
            "scales": 1,
            "frequencies": 5000,
            "lr_schedule": "step",
            "ema_decay": 0.0,
            "steps": 3000,
            "batch_size": 100,
            "latent_dim": 5,
        }
    }

    def _stage(self) -> Stage:
        return Embedding(self.config)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """likelihood: log density of the generator's Gaussian cells, if it has them."""
        state, _ = self.fitted()
        if self.config.generator != "cells":
            return {}
        part = torch.full(state["mean"].shape[:2], 1 / state["mean"].shape[1])
        return {"likelihood": log_density(state["mean"], state["factor"], part, x.flatten(1) @ state["basis"].T, y)}


class Embedding(Stage):
    """The mean embedding of each class, and a generator whose images have it."""

    def __init__(self, config: Config):
        self.config = config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One sum."""
        c = self.config
        rows = c.frequencies * c.scales
        work = rows * info.pixels * (info.units + 3.0 * c.steps * max(c.batch_size, 2 * len(info.classes)))
        return Plan((Release(name="embedding", bound=1.0),), seconds=5 + work / 8e10, memory_mb=450 + rows / 20)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The generator's averaged weights."""
        c, classes = self.config, len(info.classes)
        lengths = torch.tensor([math.sqrt(info.pixels / 7) / 2**j for j in range(c.scales)]).repeat_interleave(
            c.frequencies
        )
        w = (torch.randn(len(lengths), info.pixels) / lengths[:, None]).to(fast_dtype()).to(self.device)
        noisy = gate.sum("embedding", lambda x, y: features(x[None], w)[0], by_class=True)
        target = (noisy * (classes / info.units)).float().to(self.device)  # class means, for equal declared shares

        net = self._generator(info).to(self.device)
        mean = [p.detach().clone() for p in net.parameters()]
        adam = torch.optim.Adam(net.parameters(), self._top_rate)
        for t in progress(range(c.steps), "generator"):
            adam.param_groups[0]["lr"] = self._top_rate * self._decay(t / c.steps)
            y, cell = self._labels(classes, net.cells)
            x = net(torch.randn(len(y), c.latent_dim).to(self.device), y, cell)
            stratum = y * net.cells + cell
            total = target.new_zeros(classes * net.cells, target.shape[1]).index_add_(0, stratum, features(x, w))
            count = stratum.bincount(minlength=len(total))
            strata = (classes, net.cells)
            loss = distance(total.unflatten(0, strata), count.view(strata), target, c.loss == "unbiased")
            adam.zero_grad()
            loss.backward()
            adam.step()
            keep = min(c.ema_decay, (t + 1) / (t + 10)) if c.ema_decay else 0.0
            for a, p in zip(mean, net.parameters(), strict=True):
                a.lerp_(p.detach(), 1 - keep)
        return self._averaged(net, mean, classes)

    def _generator(self, info: PublicInfo) -> ConvGenerator | CellGenerator:
        kind = ConvGenerator if self.config.generator == "conv" else CellGenerator
        return kind(info.shape, len(info.classes), self.config.latent_dim)

    @property
    def _top_rate(self) -> float:
        """Adam steps in units of the parameters: an image's frequencies are some ten times a network's weights."""
        return float(self.config.lr or (0.01 if self.config.generator == "conv" else 0.1))

    def _decay(self, done: float) -> float:
        warm = min(1.0, (done * self.config.steps + 1) / 50)
        if self.config.lr_schedule == "step":
            return float(0.9 ** int(5 * done))
        return warm * 0.5 * (1 + math.cos(math.pi * done))

    def _labels(self, classes: int, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and cells of a batch: at least two images per class and cell, or all drawn at random."""
        batch = self.config.batch_size
        if self.config.balanced:
            each = max(2, batch // (classes * cells))
            y = torch.arange(classes, device=self.device).repeat_interleave(cells * each)
            return y, torch.arange(cells, device=self.device).repeat(classes * each)
        return tuple(torch.randint(n, (batch,), device=self.device) for n in (classes, cells))  # type: ignore[return-value]

    @torch.no_grad()
    def _averaged(self, net: ConvGenerator | CellGenerator, mean: list[torch.Tensor], classes: int) -> State:
        """Put the averaged weights in, and collect the batch statistics that belong to them, from generated images."""
        for p, a in zip(net.parameters(), mean, strict=True):
            p.copy_(a)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.reset_running_stats()
                layer.momentum = None
        for _ in range(50):
            y, cell = self._labels(classes, net.cells)
            net(torch.randn(len(y), self.config.latent_dim).to(self.device), y, cell)
        return dict(net.state_dict())

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images of the generator, from random codes and cells."""
        net = self._generator(info)
        net.load_state_dict(state)
        cell = torch.randint(net.cells, (len(labels),))
        return net.eval()(torch.randn(len(labels), self.config.latent_dim), labels, cell)


def features(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Random Fourier features [n, 2 F] of norm 1, of images [n, C, H, W] and frequencies w [F, C H W]."""
    angle = (x.flatten(1).to(w.dtype) @ w.T).float()
    return torch.cat([angle.cos(), angle.sin()], 1) / math.sqrt(len(w))


def distance(total: torch.Tensor, count: torch.Tensor, target: torch.Tensor, unbiased: bool) -> torch.Tensor:
    """Squared distance between generated and released class means, summed over classes, up to a constant.

    Args:
        total: [K, M, D] sums of generated features of norm 1, for each class and each of its M equal cells.
        count: [K, M] how many were summed; for the unbiased form at least two are assumed.
        target: [K, D] released class means.
        unbiased: replace the squared norm of each cell's mean by its unbiased estimate, which leaves out the pairs of
            an image with itself. Those have the constant value 1, so (n |m|^2 - 1) / (n - 1) stands for |m|^2.
    """
    if not unbiased:
        return (total.sum(1) * (len(total) / count.sum()) - target).square().sum()
    n = count.clamp_min(2).to(total)
    mean = total / n[..., None]
    own = mean.square().sum(2)
    centre = mean.mean(1)
    return (centre.square() - 2 * centre * target).sum() + ((own - 1) / (n - 1)).sum() / total.shape[1] ** 2
