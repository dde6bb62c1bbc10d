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
    ten images a class, so in the published loss that pair is a tenth of the term, and rewards collapsed classes.
  * Labels are equal in every batch, there is a second, shorter length scale, the rate decays by a cosine and weights
    are averaged. The published form is loss=published, balanced=false, scales=1, frequencies=5000, decay=step,
    average=0, steps=3000, code=5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from veilset.core.config import option
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.networks.classifiers import fast_dtype
from veilset.networks.generators import ConvGenerator
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config:
    frequencies: int = option(2000, "random frequencies a length scale; each gives a cosine and a sine", ge=1)
    scales: int = option(2, "length scales: sqrt(pixels / 7), and halves of it", ge=1, le=6)
    loss: str = option(
        "unbiased", "squared distance without, or (published) with, self-pairs", choices=("unbiased", "published")
    )
    balanced: bool = option(True, "equal labels in every batch, instead of labels drawn at random")
    decay: str = option(
        "cosine", "learning rate: to 0 by a cosine, or 0.9 times in each fifth", choices=("cosine", "step")
    )
    average: float = option(0.99, "exponential average of the weights; 0: none", ge=0, lt=1)
    steps: int = option(1500, "generator updates; they cost no privacy", ge=1)
    batch: int = option(100, "generated images an update; at least two a class are used", ge=2)
    rate: float = option(0.01, "learning rate of Adam", gt=0)
    code: int = option(10, "length of the latent code", ge=1)


class DPMERF(Synthesizer):
    """Random-feature mean embedding, one release, conditional generator."""

    name = "dp-merf"
    Config = Config

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        c = self.config
        rows = c.frequencies * c.scales
        work = rows * info.pixels * (info.units + 3.0 * c.steps * max(c.batch, 2 * len(info.classes)))
        return Plan((Release(name="embedding", bound=1.0),), seconds=5 + work / 5e10, memory_mb=450 + rows / 20)

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        c, classes = self.config, len(info.classes)
        lengths = torch.tensor([math.sqrt(info.pixels / 7) / 2**j for j in range(c.scales)]).repeat_interleave(
            c.frequencies
        )
        w = (torch.randn(len(lengths), info.pixels) / lengths[:, None]).to(fast_dtype()).to(self.device)
        noisy = gate.sum("embedding", lambda x, y: features(x[None], w)[0], by_class=True)
        target = (noisy * (classes / info.units)).float().to(self.device)  # class means, for equal declared shares

        net = ConvGenerator(info.shape, classes, c.code).to(self.device)
        mean = [p.detach().clone() for p in net.parameters()]
        adam = torch.optim.Adam(net.parameters(), c.rate)
        for t in progress(range(c.steps), "generator"):
            adam.param_groups[0]["lr"] = c.rate * self._rate(t / c.steps)
            y = self._labels(classes)
            total = torch.zeros_like(target).index_add_(
                0, y, features(net(torch.randn(len(y), c.code).to(y.device), y), w)
            )
            loss = distance(total, y.bincount(minlength=classes), target, unbiased=c.loss == "unbiased")
            adam.zero_grad()
            loss.backward()
            adam.step()
            keep = min(c.average, (t + 1) / (t + 10)) if c.average else 0.0
            for a, p in zip(mean, net.parameters(), strict=True):
                a.lerp_(p.detach(), 1 - keep)
        return self._averaged(net, mean, classes)

    def _rate(self, done: float) -> float:
        warm = min(1.0, (done * self.config.steps + 1) / 50)
        if self.config.decay == "step":
            return float(0.9 ** int(5 * done))
        return warm * 0.5 * (1 + math.cos(math.pi * done))

    def _labels(self, classes: int) -> torch.Tensor:
        batch = self.config.batch
        if self.config.balanced:
            return torch.arange(classes, device=self.device).repeat_interleave(max(2, batch // classes))
        return torch.randint(classes, (batch,), device=self.device)

    @torch.no_grad()
    def _averaged(self, net: ConvGenerator, mean: list[torch.Tensor], classes: int) -> State:
        """Put the averaged weights in, and collect the batch statistics that belong to them, from generated images."""
        for p, a in zip(net.parameters(), mean, strict=True):
            p.copy_(a)
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm1d):
                layer.reset_running_stats()
                layer.momentum = None
        for _ in range(50):
            y = self._labels(classes)
            net(torch.randn(len(y), self.config.code).to(y.device), y)
        return dict(net.state_dict())

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        net = ConvGenerator(info.shape, len(info.classes), self.config.code)
        net.load_state_dict(state)
        return net.eval()(torch.randn(len(labels), self.config.code), labels)


def features(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Random Fourier features [n, 2 F] of norm 1, of images [n, C, H, W] and frequencies w [F, C H W]."""
    angle = (x.flatten(1).to(w.dtype) @ w.T).float()
    return torch.cat([angle.cos(), angle.sin()], 1) / math.sqrt(len(w))


def distance(total: torch.Tensor, count: torch.Tensor, target: torch.Tensor, *, unbiased: bool) -> torch.Tensor:
    """Squared distance between generated and released class means, summed over classes, up to a constant.

    Args:
        total: [K, D] sums of generated features of norm 1.
        count: [K] how many were summed; for the unbiased form at least two are assumed.
        target: [K, D] released class means.
        unbiased: leave out the pairs of an image with itself. Those have the constant value 1, so only divisors change.
    """
    if not unbiased:
        return (total * (len(total) / count.sum()) - target).square().sum()
    n = count.clamp_min(2)[:, None].to(total)
    return (total.square() / (n * (n - 1)) - 2 * total * target / n).sum()
