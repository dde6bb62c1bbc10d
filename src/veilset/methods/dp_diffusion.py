"""DP-Diffusion: a small diffusion model trained by DP-SGD, with several noise draws a record before clipping (DPDM).

Paper: Dockhorn, Cao, Vahdat, Kreis 2023, "Differentially Private Diffusion Models", arXiv 2210.09929, Algorithm 1.
Idea: a denoiser is an ordinary regression, so DP-SGD fits it without a game of two networks. A record's gradient is
averaged over many noise levels and noises BEFORE it is clipped; that costs time, not privacy, and makes it less random.

Private access: one `grad` loop, "train", Poisson batches, bound C on one unit's gradient over all parameters. The label
is an input of the loss, so it is protected with its image. Labels of generated images come from a declared prior.

Differs from the paper and its code:
  * The network is for a CPU: 2x2 pixels are one position, one residual block a level, sums instead of stacked
    shortcuts, normalisation over the whole image without parameters. It has 78 thousand parameters, the published one
    1.75 million. The noise of a step is as long as sqrt(parameters), so a smaller network meets less of it.
  * A quarter of the batch, a ninth of the steps, an eighth of the copies, for minutes instead of days; rates are higher
    and decay by a cosine.
  * Few sampling steps, for which the ancestral sampler is exact enough; the published ones are there as well.
  * Loss weights, noise levels, the shared label drop, warm-up of the average, and samplers are those of the code.
The recipe "paper" has the published widths, GroupNorm, attention and schedule on this network (0.93 million
parameters, since shortcuts are summed).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.methods.training import average, descend, dp_sgd, fast
from veilset.networks.diffusion import EDM, HIGHEST, SAMPLERS, Kind, Velocity, draw, guided, record_loss, time_grid
from veilset.networks.unet import UNet
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy

NETWORK = {"width": 32, "levels": 3, "blocks": 2, "attention": True, "patch": 1, "embedding": 128, "norm": "group"}
SCHEDULE = {"batch": 4096, "steps": 4500, "copies": 32, "bound": 1.0, "rate": 3e-4, "decay": "none", "average": 0.999}
SAMPLER = {"sampler": "churn", "sampling_steps": 1000, "churn": 10.0, "churn_from": 0.1, "churn_to": 50.0}
PUBLISHED = NETWORK | SCHEDULE | SAMPLER


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = option(16, "channels of the network's finest level; coarser levels have twice as many", ge=4)
    levels: int = option(2, "levels of the network, each of half the side", ge=1, le=5)
    blocks: int = option(1, "residual blocks a level, on each side", ge=1, le=8)
    attention: bool = option(False, "self-attention on the coarsest level")
    patch: int | None = option(
        None, "side of the square of pixels that is one position; default 2, or 4 for sides above 40", ge=1, le=16
    )
    embedding: int = option(64, "width of the embedding of noise level and class", ge=4)
    norm: str = option("whole", "normalisation: one group without parameters, or GroupNorm", choices=("whole", "group"))
    parameterisation: str = option("edm", "what the network predicts, and at which noise levels", choices=("edm", "v"))
    level_mean: float | None = option(
        None, "mean of the log noise level in training, for edm; default -1.2", ge=-10, le=10
    )
    level_std: float | None = option(
        None, "deviation of the log noise level in training, for edm; default 1.2", gt=0, le=10
    )
    batch: int | None = option(None, "expected records a step; default 1024, or N / 8 if that is less", ge=1)
    steps: int = option(500, "noisy gradients", ge=1)
    copies: int = option(4, "noise multiplicity K: draws a record, averaged before clipping", ge=1)
    bound: float = option(0.1, "largest L2 norm C of one unit's gradient; nearly all are longer", gt=0)
    rate: float = option(2e-3, "top learning rate of Adam", gt=0)
    decay: str = option("cosine", "learning rate: to 0 by a cosine, or constant", choices=("cosine", "none"))
    average: float = option(0.99, "exponential average of the weights", ge=0, lt=1)
    drop: float = option(0.1, "probability that a record is trained without its class", ge=0, le=1)
    shift: int = option(0, "augmentation: each copy is moved by up to this many pixels", ge=0, le=64)
    flip: bool = option(False, "augmentation: each copy is mirrored with probability 1/2")
    sampler: str = option("ancestral", "how images are drawn", choices=SAMPLERS)
    sampling_steps: int = option(20, "noise levels an image is drawn through", ge=1)
    churn: float = option(10.0, "S_churn of the churn sampler", ge=0)
    churn_from: float = option(0.05, "S_min, the lowest noise level that is churned", ge=0)
    churn_to: float = option(50.0, "S_max, the highest noise level that is churned", ge=0)
    guidance: float = option(0.0, "weight of classifier-free guidance", ge=0)


class DPDiffusion(Synthesizer):
    """Small diffusion model by DP-SGD, several noise draws a record."""

    name = "dp-diffusion"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {"paper": PUBLISHED}

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        c, batch = self.config, self._batch(info)
        train = dp_sgd("train", info, batch=batch, steps=c.steps, bound=c.bound)
        seconds = self._cost(info) * c.steps * batch * c.copies
        return Plan((train,), seconds=10 + seconds, memory_mb=600)

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        return self._train(gate, info, self._network(info))

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return self._drawn(state, info, labels, torch.zeros(len(labels), *info.shape), HIGHEST)

    # ------------------------------------------------------------------ shared with methods that start warm

    def _train(self, gate: Gate, info: PublicInfo, net: UNet) -> State:
        """The loop "train" of the plan; returns the averaged weights."""
        c, kind, none = self.config, self._kind, len(info.classes)

        def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return record_loss(net, kind, x, y, c.copies, none, c.drop, c.shift, c.flip)

        adam, mean = torch.optim.Adam(net.parameters(), c.rate), average(net, c.average)
        for t in gate.loop("train", {"net": net, "adam": adam, "mean": mean}):
            adam.param_groups[0]["lr"] = c.rate * (1.0 if c.decay == "none" else cosine(t, c.steps))
            with fast():
                grads = gate.grad("train", loss, net)
            descend(adam, net, grads)
            mean.update_parameters(net)
        return dict(mean.module.state_dict())

    def _drawn(
        self, weights: State, info: PublicInfo, labels: torch.Tensor, x: torch.Tensor, high: float
    ) -> torch.Tensor:
        """Images in [0, 1] by the sampler, which starts at x [n, C, H, W] in [-1, 1] with noise of deviation `high`."""
        c, net = self.config, self._network(info)
        net.load_state_dict(weights)
        net.eval()
        times = time_grid(c.sampling_steps, high)
        denoiser = guided(net, self._kind, labels.to(self.device), len(info.classes), c.guidance)
        with fast():
            start = (x + high * torch.randn_like(x)).to(self.device)
            x = draw(denoiser, start, times, c.sampler, c.churn, c.churn_from, c.churn_to)
        return (x.float() + 1) / 2

    def _network(self, info: PublicInfo) -> UNet:
        c = self.config
        multipliers = [1] + [2] * (c.levels - 1)
        looks = [c.levels - 1] if c.attention else []
        patch = c.patch or (2 if max(info.shape[1:]) <= 40 else 4)
        net = UNet(
            info.shape, len(info.classes), c.width, multipliers, c.blocks, looks, patch, c.embedding, c.norm
        )  # fmt: skip
        return net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def _kind(self) -> Kind:
        c, (mean, std) = self.config, self._levels
        if c.parameterisation == "v":
            return Velocity()
        return EDM(mean if c.level_mean is None else c.level_mean, std if c.level_std is None else c.level_std)

    @property
    def _levels(self) -> tuple[float, float]:
        """Mean and deviation of the log noise level in training, unless the user says otherwise."""
        return -1.2, 1.2

    def _batch(self, info: PublicInfo) -> int:
        return int(self.config.batch or max(1, min(1024, info.units // 8)))

    def _cost(self, info: PublicInfo) -> float:
        """Seconds to train on one copy of one record, about."""
        c = self.config
        patch = c.patch or (2 if max(info.shape[1:]) <= 40 else 4)
        positions = math.prod(info.shape[1:]) / patch**2
        return positions / 196 * (c.width / 16) ** 1.5 * c.blocks * 3e-4


def cosine(t: int, steps: int, warm: int = 20) -> float:
    """Factor of the learning rate at step t: up to 1 over the first steps, then down to 0 by half a cosine."""
    return min(1.0, (t + 1) / warm) * 0.5 * (1 + math.cos(math.pi * t / steps))
