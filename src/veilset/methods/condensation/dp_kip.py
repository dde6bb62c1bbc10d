"""DP-KIP: a few images per class, such that kernel regression on them classifies the private images.

Paper: Vinaroz and Park, TMLR 2024, arXiv 2301.13389 (DP-KIP-ScatterNet); inducing points after Nguyen, Chen, Lee 2021,
arXiv 2011.00050.
Idea: kernel ridge regression from a set of support images predicts a private image's label; the squared error of that
prediction is a loss of the private image alone, so its gradient can be clipped. The kernel is the product of scattering
features. The support images start as noise, are changed along the noisy gradients, and are all that is released.
They are made for that regression and look like nothing: networks trained on them learn little (`bench leaderboard`).

Private access, one loop:
  targets   clipped gradients of the squared errors of Poisson batches

Differs from the paper and its code:
  * The gradient is bounded in the space of features, not of support images. Regression on support features F is a
    linear classifier W(F) = F' (F F' + r I)^-1 Y, and the images move the loss through W only. So each private image's
    gradient in W is clipped and noised, which costs one product per image, and is then carried to the support images,
    which is public arithmetic. The published order (carry each image's own gradient, then clip) costs a pass through
    the wavelets per image: days on two cores. It is another estimator, of the same guarantee.
  * Support images start from noise only. The published default starts from private images, which is not private.
  * Batches are Poisson samples, which is what the accountant assumes, and features are normalised in each image alone.
  * Targets are one-hot less 1 / K.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import dp_sgd
from veilset.methods.base import State
from veilset.methods.condensation.common import picked
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.methods.teachers import dp_scatter
from veilset.networks import scattering
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy

START = 0.2  # deviation of the first images about grey


@dataclass(frozen=True, kw_only=True)
class Config:
    per_class: int = option(10, "images per class that are released; a longer sample repeats them", ge=1, le=1000)
    batch_size: int | None = option(None, "expected units per step; default a seventh of all, at most 8192", ge=1)
    steps: int = option(150, "gradient steps", ge=1)
    clip_norm: float = option(0.5, "max_grad_norm of one unit, in the space of features", gt=0)
    lr: float = option(0.02, "learning rate of Adam on the images, whose pixels are in [0, 1]", gt=0)
    ridge: float = option(0.001, "ridge, relative to the mean square of the support features", gt=0)


class DPKIP(Single):
    """Kernel inducing points on scattering features."""

    name = "dp-kip"
    Config = Config

    def _stage(self) -> Stage:
        return Support(self.config)


class Support(Stage):
    """Support images, changed along noisy gradients of the classifier that they make."""

    def __init__(self, config: Config):
        self.config = config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One loop."""
        c = self.config
        batch = c.batch_size or dp_scatter.batch_of(info)
        release = dp_sgd("targets", info, batch=batch, steps=c.steps, bound=c.clip_norm)
        estimate = dp_scatter.cost(info, release)
        support = len(info.classes) * c.per_class * scattering.size(info.shape)
        return Plan(
            (release,),
            seconds=estimate.seconds + 1e-6 * c.steps * support,
            memory_mb=estimate.memory_mb + 1e-3 * support,
        )

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "x", the images [K, S, C, H, W]."""
        c, classes = self.config, len(info.classes)
        y = torch.eye(classes).repeat_interleave(c.per_class, 0).to(self.device) - 1 / classes
        support = nn.ParameterDict({"x": 0.5 + START * torch.randn(len(y), *info.shape)}).to(self.device)
        linear = nn.Linear(scattering.size(info.shape), classes, bias=False).to(self.device)
        adam = torch.optim.Adam(support.parameters(), c.lr)
        for _ in gate.loop("targets", {"support": support, "adam": adam}):
            weight = regression(support["x"].clamp(0, 1), y, c.ridge)
            with torch.no_grad():
                linear.weight.copy_(weight)
            grads = gate.grad("targets", _error, linear, features=dp_scatter.seen)
            adam.zero_grad()
            (weight * grads["weight"]).sum().backward()  # from the classifier's weights to the images: public
            adam.step()
            with torch.no_grad():
                support["x"].clamp_(0, 1)
        return {"x": support["x"].detach().unflatten(0, (classes, c.per_class))}

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """The images, repeated."""
        return picked(state["x"], labels)


def regression(x: torch.Tensor, y: torch.Tensor, ridge: float) -> torch.Tensor:
    """The linear classifier [K, features] of kernel ridge regression from images x [S, C, H, W] to targets y [S, K]."""
    f = scattering.features(x)
    kernel = f @ f.T
    kernel = kernel + ridge * kernel.diagonal().mean() * torch.eye(len(f), device=f.device)
    return torch.linalg.solve(kernel, y).T @ f


def _error(net: nn.Linear, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = net(z[None])[0]
    wanted = (torch.arange(len(out), device=out.device) == y).float() - 1 / len(out)
    return 0.5 * (out - wanted).square().mean()
