"""DP-CGAN: a conditional GAN whose critic clips its loss on real and on generated images apart.

Paper: Torkzadehmahani, Kairouz, Paten 2019, arXiv 2001.09700, Algorithm 1.
Idea: the gradient on real images is clipped record by record and noised; the one on generated images is clipped image
by image too, which keeps both parts of equal weight, but needs no noise. The generator follows the critic for free.

Private access: a loop of DP-SGD `grad`s, "critic", over Poisson batches; one bound for all parameters together.

Differs from the paper and its code:
  * Flat clipping. The code clips every variable to C and adds noise for C, half of what four variables need.
  * Generated images get labels from a uniform prior. The code takes the labels of the private batch, without noise.
  * Noise is set by the budget for a planned number of steps; the code stops when its accountant says so, and hands that
    accountant noise multiplier x C. Batches are Poisson samples; no batch normalisation in the critic ("advanced").
  * `fakes` "paired" clips a record and a generated image of its class as one ("minimize_base" of the code).
  * By default the critic is optimised by Adam, batches are larger and the generator's weights are averaged.
  * The critic's class heads also learn by cross-entropy, and a free term keeps images of a class apart
    (`diversity_weight`, in the manner of Yang et al. 2019, arXiv 1901.09024, and Mao et al. 2019, arXiv 1903.05628).
  * By default the networks work in the lowest frequencies of images (`basis`), which are public: fewer weights get
    noise, and images have no speckle. Images come from several moments of the training (`snapshots`), which is free.
  * The recipe "wasserstein" is the conditional GAN of Gandhi and Viradiya's comparison, with clipping in place of the
    gradient penalty (which asks for gradients at points between private images) and a smaller network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import dp_sgd
from veilset.methods.gan.common import POOL, Adversarial, Game, default_steps, low
from veilset.networks.activations import NAMES
from veilset.networks.critics import LOSSES, ConvCritic, MLPCritic
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator, uniform
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config:
    architecture: str = option("vanilla", "fully connected, or convolutions", choices=("vanilla", "advanced"))
    width: int | None = option(None, "critic: hidden units (vanilla, default 128) or first channels (16)", ge=1)
    generator_width: int | None = option(None, "the same of the generator; default as the critic's", ge=1)
    basis: int | None = option(
        None, "vanilla networks: low frequencies they work in; default a quarter of the pixels; 0: pixels", ge=0
    )
    snapshots: int = option(
        5, "generators kept from the second half of the training; images come from all of them", ge=1
    )
    activation: str = option("leaky-relu", "of the critic", choices=NAMES)
    norm: str = option("none", "advanced critic: group normalisation of one image alone", choices=("none", "group"))
    labels: str = option("heads", "how a vanilla critic gets the label", choices=("heads", "input"))
    critic_class_weight: float = option(
        0.5, "weight of the cross-entropy of the critic's class heads, if any, on records", ge=0
    )
    diversity_weight: float = option(
        0.5, "weight of a term against collapse: -log distance of two images of a class", ge=0
    )
    loss: str = option("logistic", "adversarial loss", choices=LOSSES)
    fakes: str = option("public", "generated images: clipped apart, or with a record", choices=("public", "paired"))
    clip_norm: float = option(1.1, "largest L2 norm of one unit's gradient, of all parameters together", gt=0)
    batch_size: int = option(1024, "expected records per critic step, at most N", ge=1)
    steps: int | None = option(
        None, "critic steps, each paid for; default 2000 (epsilon N / 600,000)^(1/4), from 200 to 2000", ge=1
    )
    critic_steps: int = option(1, "critic steps per generator step", ge=1)
    optimizer: str = option("adam", "of the critic", choices=("adam", "sgd"))
    lr: float = option(1e-3, "first learning rate of the critic", gt=0)
    final_lr: float = option(1e-3, "learning rate of the critic at the end; linear between", gt=0)
    momentum: float = option(0.0, "momentum of sgd", ge=0, lt=1)
    generator_lr: float = option(2e-3, "learning rate of the generator (Adam)", gt=0)
    generator_norm: bool = option(True, "vanilla generator: batch normalisation")
    ema_decay: float = option(0.98, "decay of the exponential average of the generator's weights; 0: none", ge=0, lt=1)
    latent_dim: int = option(100, "dimension of the latent code, uniform in (-1, 1)", ge=1)


class DPCGAN(Adversarial):
    """Conditional GAN, real and generated parts clipped apart."""

    name = "dp-cgan"
    Config = Config
    recipes: ClassVar = {
        "paper": {
            "activation": "relu",
            "labels": "input",
            "generator_lr": 1e-3,
            "batch_size": 600,
            "steps": 30000,
            "optimizer": "sgd",
            "lr": 0.1,
            "final_lr": 0.052,
            "generator_norm": False,
            "ema_decay": 0.0,
            "basis": 0,
            "snapshots": 1,
            "diversity_weight": 0.0,
        },
        "paper-advanced": {
            "architecture": "advanced",
            "width": 64,
            "norm": "group",
            "critic_class_weight": 0.0,
            "batch_size": 256,
            "steps": 30000,
            "clip_norm": 0.5,
            "generator_lr": 1e-3,
            "optimizer": "sgd",
            "lr": 0.05,
            "final_lr": 0.05,
            "ema_decay": 0.0,
            "basis": 0,
            "snapshots": 1,
            "diversity_weight": 0.0,
        },
        "wasserstein": {
            "architecture": "advanced",
            "width": 16,
            "norm": "group",
            "critic_class_weight": 0.0,
            "loss": "wasserstein",
            "batch_size": 128,
            "steps": 23450,
            "critic_steps": 5,
            "clip_norm": 1.0,
            "optimizer": "sgd",
            "lr": 1e-4,
            "final_lr": 1e-4,
            "momentum": 0.9,
            "generator_lr": 5e-5,
            "ema_decay": 0.0,
            "basis": 0,
            "snapshots": 1,
            "diversity_weight": 0.0,
            "latent_dim": 32,
        },
    }

    def _stage(self) -> Apart:
        return Apart(self.config)


class Apart(Game):
    """The game of `dp-cgan`: uniform codes, and a rate of the critic that falls."""

    config: Config
    codes = staticmethod(uniform)

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The critic's loop."""
        c = self.config
        steps = c.steps or default_steps(info, budget)
        release = dp_sgd("critic", info, batch=c.batch_size, steps=steps, bound=c.clip_norm)
        uses = 12 if c.architecture == "advanced" else 1  # a convolution uses its weights at many places
        nets = self.critic(info), self.generator(info)
        critic, maker = (uses * sum(p.numel() for p in net.parameters()) for net in nets)
        work = 6.0 * c.batch_size * critic + (3.0 * c.batch_size / 2 + POOL) * maker / c.critic_steps
        return Plan((release,), seconds=10 + steps * (0.015 + work / 2e10), memory_mb=500 + 1e-3 * critic)

    def critic(self, info: PublicInfo) -> Any:
        """A new critic."""
        c, classes = self.config, len(info.classes)
        if c.architecture == "advanced":
            return ConvCritic(info.shape, classes, c.width or 16, c.activation, c.norm)
        return MLPCritic(info.shape, classes, (c.width or 128,), c.activation, c.labels, low(info, c.basis))

    def generator(self, info: PublicInfo) -> Any:
        """A new generator."""
        c, classes = self.config, len(info.classes)
        width = c.generator_width or c.width
        if c.architecture == "advanced":
            return DeconvGenerator(info.shape, classes, c.latent_dim, width or 16)
        return MLPGenerator(info.shape, classes, c.latent_dim, (width or 128,), c.generator_norm, low(info, c.basis))

    def optimisers(self, critic: Any, generator: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Adam for the generator."""
        c = self.config
        ours: torch.optim.Optimizer = torch.optim.Adam(critic.parameters(), c.lr, betas=(0.5, 0.999))
        if c.optimizer == "sgd":
            ours = torch.optim.SGD(critic.parameters(), c.lr, momentum=c.momentum)
        return ours, torch.optim.Adam(generator.parameters(), c.generator_lr, betas=(0.5, 0.999))

    def rates(self, t: int, steps: int) -> tuple[float, float]:
        """The critic's changes along a line."""
        c = self.config
        return c.lr + (c.final_lr - c.lr) * min(1.0, t / min(steps, 10000)), c.generator_lr

    def made(self, info: PublicInfo) -> int:
        """Half as many as records, within bounds."""
        return max(2 * len(info.classes), min(self.config.batch_size // 2, 500))

    @property
    def weights(self) -> tuple[float, float]:
        """None without class heads: the critic is then told the label."""
        c = self.config
        return 0.0 if c.architecture == "vanilla" and c.labels == "input" else c.critic_class_weight, 0.0
