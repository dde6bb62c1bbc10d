"""DP-Scatter: a linear classifier on scattering features, trained by DP-SGD. A teacher: it predicts, and draws nothing.

Paper: Tramer and Boneh, ICLR 2021, arXiv 2011.11660, section 3 (linear classifiers on a ScatterNet).
Idea: features of strokes that were learned from nobody (fixed wavelets) are nearly linearly separable, and a linear
layer has few weights, so little noise. On MNIST and Fashion-MNIST it beats deep networks at the same budget, and every
classifier that is trained on private synthetic images: print it beside those as the ceiling.

Private access, one loop:
  linear    clipped gradients of the cross-entropy of Poisson batches, on 81 paths a colour (two scales, eight angles)
Features are normalised in groups of three paths within each image, so an image's features are bounded by construction,
and are those of that image alone. The gate computes them once and keeps them in memory.

Differs from the paper:
  * Group normalisation for every set, as the paper does for Fashion-MNIST; its MNIST recipe spends budget on noisy
    means and variances of features over all images.
  * One rule of batch, steps and rate for all sets and budgets, with fewer and larger batches. The paper's rates, 8 and
    16, were tuned for each set at epsilon 3; here the rate is the one at which the noise of all steps moves a
    logit by a fixed deviation at most (`rate_of`), so it grows with the budget and the units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import descend, dp_sgd
from veilset.methods.base import State, Teacher
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged
from veilset.networks import scattering
from veilset.privacy.features import Map
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

LARGEST_BATCH, PART = 8192, 7  # expected units per step: a seventh of all, at most 8192
STEPS, GROWTH, FEWEST, MOST = 146, 0.3, 50, 600  # steps at epsilon 1; they grow as epsilon^0.3
NOISE, FASTEST = 8.0, 64.0  # largest deviation that noise may give a logit, and the highest rate for its sake


@dataclass(frozen=True, kw_only=True)
class Config:
    batch_size: int | None = option(None, "expected units per step; default a seventh of all, at most 8192", ge=1)
    steps: int | None = option(None, "gradient steps; default 146 epsilon^0.3, from 50 to 600", ge=1)
    clip_norm: float = option(0.1, "max_grad_norm of one unit", gt=0)
    lr: float | None = option(None, "learning rate; default by the noise of the steps, at most 64", gt=0)
    momentum: float = option(0.9, "of the steps", ge=0, lt=1)


class DPScatter(Staged, Teacher):
    """Linear classifier on scattering features."""

    name = "dp-scatter"
    Config = Config

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        return Compose({"linear": Part(Linear(self.config))}, prefixed=False)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return learned["linear"]

    def _predict(self, state: State, info: PublicInfo, x: torch.Tensor) -> torch.Tensor:
        return scores(state, x)


# ---------------------------------------------------------------------- shared with methods that are taught


class Linear(Stage):
    """The classifier as a part of a method.

    Args:
        config: parameters; default those of `dp-scatter`.
        features: what of an image is classified, of the size of its scattering; default that.
        sized: the budget that its number of steps follows, if not its own.
    """

    def __init__(self, config: Config | None = None, features: Map | None = None, sized: Privacy | None = None):
        self.config, self._features, self._sized = config or Config(), features or seen, sized

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One loop."""
        return cost(info, release(self.config, info, (self._sized or budget).epsilon))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "weight" and "bias", which start from zero, so nothing is random but batches and noise."""
        c, planned = self.config, gate.release("linear")
        net = nn.Linear(scattering.size(info.shape), len(info.classes)).to(self.device)
        for p in net.parameters():
            nn.init.zeros_(p)
        sgd = torch.optim.SGD(net.parameters(), c.lr or rate_of(planned, info, c.momentum), momentum=c.momentum)
        for _ in gate.loop("linear", {"net": net, "sgd": sgd}):
            descend(sgd, net, gate.grad("linear", _loss, net, features=self._features))
        return dict(net.state_dict())


def release(config: Config, info: PublicInfo, epsilon: float) -> Release:
    """The loop's release, named "linear", from declared facts and a budget's epsilon."""
    batch = config.batch_size or batch_of(info)
    steps = config.steps or round(min(MOST, max(FEWEST, STEPS * epsilon**GROWTH)))
    return dp_sgd("linear", info, batch=batch, steps=steps, bound=config.clip_norm)


def batch_of(info: PublicInfo) -> int:
    """Expected units per step where none is given."""
    return min(LARGEST_BATCH, max(1, info.units // PART))


def rate_of(release: Release, info: PublicInfo, momentum: float) -> float:
    """The learning rate at which the noise of all steps gives a logit a deviation of at most NOISE; at most FASTEST.

    A step moves each weight by noise of rate / (1 - momentum) x noise_multiplier x bound / batch in the end, and the
    features of an image have at most the norm sqrt(their number). Those of most images have 0.65 of it, because a
    group without strokes has a deviation below 1, so the deviation is near 5 for them.
    """
    batch = release.sample_rate * info.units
    one = release.noise_multiplier * release.bound / batch * math.sqrt(release.steps * scattering.size(info.shape))
    return min(FASTEST, NOISE * (1 - momentum) / one) if one > 0 else FASTEST


def cost(info: PublicInfo, release: Release) -> Plan:
    """The plan of this release alone, with its seconds and memory."""
    size = scattering.size(info.shape)
    seconds = 10 + 2.5e-7 * info.units * size + 6e-9 * release.sample_rate * info.units * release.steps * size
    return Plan((release,), seconds=seconds, memory_mb=600 + 2e-6 * info.units * size)


def seen(x: torch.Tensor) -> torch.Tensor:
    """Features of images in half precision: those of all private images are held in memory."""
    return scattering.features(x).half()


def scores(state: State, x: torch.Tensor, features: Map = seen) -> torch.Tensor:
    """Logits [n, K] of float images [n, C, H, W] in [0, 1]."""
    parts = [features(part).float() for part in x.split(32)]  # few at a time stay in the processor's cache
    return torch.cat(parts) @ state["weight"].T + state["bias"]


def _loss(net: nn.Linear, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(net(z[None]), y[None])
