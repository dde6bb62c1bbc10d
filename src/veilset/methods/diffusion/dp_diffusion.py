"""DP-Diffusion: a small diffusion model trained by DP-SGD, with several noise draws per record before clipping (DPDM).

Paper: Dockhorn, Cao, Vahdat, Kreis 2023, "Differentially Private Diffusion Models", arXiv 2210.09929, Algorithm 1.
Idea: a denoiser is an ordinary regression, so DP-SGD fits it without a game of two networks. A record's gradient is
averaged over many noise levels and noises BEFORE it is clipped; that costs time, not privacy, and makes it less random.

Private access: one `grad` loop, "train", Poisson batches, bound C on one unit's gradient over all parameters. The label
is an input of the loss, so it is protected with its image. Labels of generated images come from a declared prior.

Differs from the paper and its code:
  * The network is for a CPU: fully connected, in a public low-frequency basis (`networks/perceptron.py`), with linear
    units that the class and the noise level multiply. It learns what a class looks like in seconds, and trains on
    twenty times as many draws per second as the small U-Net, so a record can have more of them. Convolutions know no
    position and need long to make a shape of a label: at equal time, without noise, they were far behind.
  * `network="unet"` is a small U-Net: 2x2 pixels are one position, one residual block per level, sums instead of
    stacked shortcuts, normalisation over the whole image without parameters, pictures of each class beside the image,
    and a layer over all positions of the coarsest level. The noise of a step is as long as sqrt(parameters); the
    published network has 1.75 million.
  * Half the batch, a tenth of the steps, a quarter of the copies, for minutes instead of days; rates are higher and
    decay by a cosine; training noise levels are higher by 0.8 to 1.2 in the logarithm, where classes are decided.
  * The levels of a record's copies are drawn one in each equal part of their distribution, which is the same for every
    copy and makes their mean less random.
  * Forty sampling steps, for which the ancestral sampler is exact enough; the published ones are there as well.
  * Loss weights, label drop (here 0 unless guidance is asked for), warm-up of the average, and samplers are the code's.
The recipe "paper" has the published widths, GroupNorm, attention, noise levels and schedule on the U-Net (0.93 million
parameters, since shortcuts are summed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average, cosine, descend, dp_sgd
from veilset.methods.base import State
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.networks.diffusion import (
    EDM,
    HIGHEST,
    SAMPLERS,
    Kind,
    Velocity,
    draw,
    errors,
    guided,
    record_draws,
    record_loss,
    spread,
    time_grid,
)
from veilset.networks.perceptron import Perceptron
from veilset.networks.precision import fast
from veilset.networks.unet import UNet
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy

NETWORK = {
    "network": "unet",
    "width": 32,
    "levels": 3,
    "blocks": 2,
    "attention": True,
    "patch_size": 1,
    "embedding_dim": 128,
}
NETWORK |= {"norm": "group", "class_maps": 0, "across": 0, "p_mean": -1.2}
SCHEDULE = {
    "batch_size": 4096,
    "steps": 4500,
    "noise_multiplicity": 32,
    "clip_norm": 1.0,
    "lr": 3e-4,
    "lr_schedule": "none",
    "ema_decay": 0.999,
}
SCHEDULE |= {"label_dropout": 0.1}
SAMPLER = {"sampler": "churn", "sampling_steps": 1000, "s_churn": 10.0, "s_min": 0.1, "s_max": 50.0}
Network = Perceptron | UNet
PUBLISHED = NETWORK | SCHEDULE | SAMPLER


@dataclass(frozen=True, kw_only=True)
class Config:
    network: str = option("perceptron", "layers over low frequencies, or a U-Net", choices=("perceptron", "unet"))
    frequencies: int = option(100, "perceptron: how many low frequencies an image is made of", ge=1)
    width: int | None = option(
        None,
        "of the perceptron's layers, default 128, or 256 where epsilon N reaches 200,000; channels of the U-Net's "
        "finest level, default 16",
        ge=4,
    )
    blocks: int | None = option(
        None,
        "residual blocks, default 0, or 1 where epsilon N reaches 200,000; of the U-Net: per level, on each side, "
        "default 1",
        ge=0,
        le=8,
    )
    embedding_dim: int | None = option(
        None, "width of the embedding of the noise level, default 32; U-Net: and of the class, default 64", ge=4
    )
    levels: int = option(2, "U-Net: levels, each of half the side and, from the second, twice the channels", ge=1, le=5)
    attention: bool = option(False, "U-Net: self-attention on the coarsest level")
    patch_size: int | None = option(
        None,
        "U-Net: side of the square of pixels that is one position; default 2, or 4 for sides above 40",
        ge=1,
        le=16,
    )
    class_maps: int = option(
        8, "U-Net: learned pictures of each class that enter the network beside the image", ge=0, le=64
    )
    across: int = option(
        64, "U-Net: hidden width of the layer that joins all positions of the coarsest level; 0: none", ge=0
    )
    norm: str = option(
        "whole", "U-Net: normalisation, one group without parameters, or GroupNorm", choices=("whole", "group")
    )
    parameterisation: str = option("edm", "what the network predicts, and at which noise levels", choices=("edm", "v"))
    p_mean: float | None = option(None, "mean of the log noise level in training, for edm; default 0", ge=-10, le=10)
    p_std: float | None = option(
        None, "standard deviation of the log noise level in training, for edm; default 1.2", gt=0, le=10
    )
    batch_size: int | None = option(None, "expected records per step; default 2048, or N / 8 if that is less", ge=1)
    steps: int = option(400, "noisy gradients", ge=1)
    noise_multiplicity: int = option(16, "noise multiplicity K: draws per record, averaged before clipping", ge=1)
    clip_norm: float = option(0.1, "largest L2 norm C of one unit's gradient; nearly all are longer", gt=0)
    lr: float = option(1e-2, "top learning rate of Adam", gt=0)
    lr_schedule: str = option("cosine", "learning rate: to 0 by a cosine, or constant", choices=("cosine", "none"))
    ema_decay: float = option(0.97, "decay of the exponential average of the weights", ge=0, lt=1)
    label_dropout: float | None = option(
        None, "probability that a record is trained without its class; default 0.1 with guidance, else 0", ge=0, le=1
    )
    shift: int = option(
        0, "augmentation: each noise draw is of an image shifted by up to this many pixels", ge=0, le=64
    )
    flip: bool = option(False, "augmentation: mirrored with probability 1/2")
    sampler: str = option("ancestral", "how images are drawn", choices=SAMPLERS)
    sampling_steps: int = option(50, "noise levels an image is drawn through", ge=1)
    s_churn: float = option(10.0, "S_churn of the churn sampler", ge=0)
    s_min: float = option(0.05, "S_min, the lowest noise level that is churned", ge=0)
    s_max: float = option(50.0, "S_max, the highest noise level that is churned", ge=0)
    guidance_scale: float = option(0.0, "weight of classifier-free guidance", ge=0)


LOOKS, DRAWS = 10, 2  # noise levels and draws at each, by which candidates are measured


class Denoiser(Stage):
    """A diffusion model, by the loop "train".

    Args:
        config: parameters.
        sized: the budget that the size of the perceptron follows, if not its own.
    """

    def __init__(self, config: Config, sized: Privacy | None = None):
        self.config, self._sized = config, sized

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One loop of weight 1."""
        c, batch = self.config, self._batch(info)
        train = dp_sgd("train", info, batch=batch, steps=c.steps, bound=c.clip_norm)
        return Plan(
            (train,), seconds=10 + self.seconds(info, budget) * c.steps * batch * c.noise_multiplicity, memory_mb=600
        )

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The averaged weights."""
        return self.train(gate, info, self.network(info, *self.size(info, budget)))

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images from pure noise."""
        return self.drawn(state, info, labels, torch.zeros(len(labels), *info.shape), HIGHEST)

    def train(self, gate: Asked, info: PublicInfo, net: Network) -> State:
        """The loop "train" of the plan; returns the averaged weights."""
        c, kind, none, start = self.config, self.kind, len(info.classes), net

        def loss(net: Any, x: torch.Tensor, y: torch.Tensor, own: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return record_loss(
                net, kind, x, y, own, c.noise_multiplicity, none, self._drop, c.shift, c.flip, start.encode
            )

        seen = start.encode(torch.zeros(1, *info.shape, device=self.device)).shape[1:]
        draws = record_draws(seen, c.noise_multiplicity, self._drop, c.shift, c.flip)
        adam, mean = torch.optim.Adam(net.parameters(), c.lr), average(net, c.ema_decay)
        for t in gate.loop("train", {"net": net, "adam": adam, "mean": mean}):
            adam.param_groups[0]["lr"] = c.lr * (1.0 if c.lr_schedule == "none" else cosine(t, c.steps))
            with fast():
                grads = gate.grad("train", loss, net, draws=draws)
            descend(adam, net, grads)
            mean.update_parameters(net)
        return dict(mean.module.state_dict())

    def drawn(
        self, weights: State, info: PublicInfo, labels: torch.Tensor, x: torch.Tensor, high: float
    ) -> torch.Tensor:
        """Images in [0, 1] by the sampler, which starts at x [n, C, H, W] in [-1, 1] with noise of deviation `high`."""
        c, net = self.config, self.network(info, *size_of(weights))
        net.load_state_dict(weights)
        net.eval()
        times = time_grid(c.sampling_steps, high)
        denoiser = guided(net, self.kind, labels.to(self.device), len(info.classes), c.guidance_scale)
        with fast():
            z = net.encode(x.to(self.device))
            z = draw(denoiser, z + high * torch.randn_like(z), times, c.sampler, c.s_churn, c.s_min, c.s_max)
        return (net.decode(z).float() + 1) / 2

    def denoising(self, state: State, info: PublicInfo, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Minus the loss that was trained on, [n], at LOOKS times DRAWS of the noise levels that were trained at."""
        net = self.network(info, *size_of(state))
        net.load_state_dict({k: v for k, v in state.items() if k in net.state_dict()})
        loss, image = torch.zeros(len(x)), net.encode(2 * x - 1)
        levels = torch.cat([self.kind.levels(spread(torch.rand(LOOKS))) for _ in range(DRAWS)]).to(x)
        with fast():
            for level in levels:
                many, noise = level.expand(len(x)), torch.randn_like(image)
                loss += errors(net.eval(), self.kind, image, y, many, noise).float() / len(levels)
        return -loss

    def network(self, info: PublicInfo, width: int, blocks: int) -> Network:
        """The network; the arguments matter to the perceptron alone."""
        c, classes = self.config, len(info.classes)
        if c.network == "perceptron":
            return Perceptron(info.shape, classes, c.frequencies, width, blocks, c.embedding_dim or 32).to(self.device)
        multipliers = [1] + [2] * (c.levels - 1)
        looks = [c.levels - 1] if c.attention else []
        net = UNet(
            info.shape, classes, c.width or 16, multipliers, c.blocks or 1, looks, self._patch(info),
            c.embedding_dim or 64, c.norm, c.class_maps, c.across,
        )  # fmt: skip
        return net.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def size(self, info: PublicInfo, budget: Privacy) -> tuple[int, int]:
        """Width and blocks of the perceptron: the more the noise permits, the more parameters."""
        c, rich = self.config, (self._sized or budget).epsilon * info.units >= 2e5
        return c.width or (256 if rich else 128), int(rich) if c.blocks is None else c.blocks

    def _patch(self, info: PublicInfo) -> int:
        return int(self.config.patch_size or (2 if max(info.shape[1:]) <= 40 else 4))

    @property
    def kind(self) -> Kind:
        """What the network predicts, and at which noise levels."""
        c, (mean, std) = self.config, self._levels
        if c.parameterisation == "v":
            return Velocity()
        return EDM(mean if c.p_mean is None else c.p_mean, std if c.p_std is None else c.p_std)

    @property
    def _drop(self) -> float:
        c = self.config
        return float((0.1 if c.guidance_scale else 0.0) if c.label_dropout is None else c.label_dropout)

    @property
    def _levels(self) -> tuple[float, float]:
        """Mean and standard deviation of the log noise level in training, unless the user says otherwise."""
        return 0.0, 1.2

    def _batch(self, info: PublicInfo) -> int:
        return int(self.config.batch_size or max(1, min(2048, info.units // 8)))

    def seconds(self, info: PublicInfo, budget: Privacy) -> float:
        """Seconds to train on one copy of one record, about."""
        c = self.config
        if c.network == "perceptron":
            width, blocks = self.size(info, budget)
            return (3 * c.frequencies * width + 2 * blocks * width**2) * 4e-10
        positions = math.prod(info.shape[1:]) / self._patch(info) ** 2
        return positions / 196 * ((c.width or 16) / 16) ** 1.5 * (c.blocks or 1) * 3e-4


class DPDiffusion(Single):
    """Small diffusion model by DP-SGD, several noise draws per record."""

    name = "dp-diffusion"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {"paper": PUBLISHED}

    def _stage(self) -> Denoiser:
        return Denoiser(self.config)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> State:
        """denoising: minus the loss of training, mean of ten levels and two draws."""
        state, info = self.fitted()
        return {"denoising": self._stage().denoising(state, info, x, y)}


def size_of(weights: State) -> tuple[int, int]:
    """Width and blocks of the perceptron that has these weights; nothing for a U-Net."""
    width = len(weights["enter.bias"]) if "enter.bias" in weights else 0
    return width, sum(k.startswith("blocks.") and k.endswith("first.weight") for k in weights)
