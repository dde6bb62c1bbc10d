"""DP-GAN: a conditional GAN whose critic is trained by DP-SGD; the generator learns from the critic only.

Papers: Xie, Lin, Wang, Wang, Zhou 2018, arXiv 1802.06739, Algorithm 1 (the mechanism; recipe "paper"); Bie, Kamath,
Zhang 2023, "Private GANs, revisited", arXiv 2302.02936 (many critic steps per generator step; recipes "revisited...").
Idea: only the critic sees private images. Its noisy gradients are paid for; steps of the generator are free.

Private access: a loop of DP-SGD `grad`s, "critic", over Poisson batches. Every critic step is one of the planned steps,
whatever the number of generator steps; when to take those is decided from generated images alone.

Differs from the papers and their code:
  * All critic steps are composed. The first paper's noise formula covers one outer iteration, its code clips nothing.
  * `sensitivity` "weight-clip" is the first paper's idea, with a bound that holds (`weight_clip_bound`); the gate clips
    at it all the same, which changes nothing. The printed bound is not one (`unverified_paper_bound`).
  * `fakes` "paired" puts a generated image of the same class beside each record and clips the pair's gradient as one:
    what they have in common cancels before it is clipped. "public" draws labels from a uniform prior and clips each
    generated image apart, as the second paper does (it then halves the sum; Adam does not mind).
  * The critic has a head per class, which also learns to tell classes by cross-entropy (`critic_class_weight`; 0:
    published). So does the generator learn from it a little (`generator_class_weight`), and a term keeps images of a
    class apart (`diversity_weight`, in the manner of Yang et al. 2019, arXiv 1901.09024, and Mao et al. 2019, arXiv
    1903.05628): without it each class collapsed to one image. Both are free.
  * By default the networks work in the lowest frequencies of images (`basis`), which are public: fewer weights get
    noise, and images have no speckle. Images come from several moments of the training (`snapshots`), which is free.
  * One conditional GAN stands in for the first paper's GAN per digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import dp_sgd
from veilset.methods.gan.common import POOL, Adversarial, CriticSchedule, Game, default_steps, low
from veilset.networks.activations import NAMES
from veilset.networks.critics import LOSSES, ConvCritic, MLPCritic, weight_clip_bound
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy


@dataclass(frozen=True, kw_only=True)
class Config:
    critic: str = option("mlp", "network: fully connected (fast) or convolutions", choices=("mlp", "conv"))
    width: int | None = option(
        None, "critic: units of both hidden layers (default 128), or channels of the first convolution (16)", ge=1
    )
    basis: int | None = option(
        None, "fully connected networks: low frequencies they work in; default a quarter of the pixels; 0: pixels", ge=0
    )
    snapshots: int = option(5, "generators kept from the second half of the training; images come from all", ge=1)
    activation: str = option("leaky-relu", "of the critic", choices=NAMES)
    labels: str = option("heads", "how a fully connected critic gets the label", choices=("heads", "input"))
    critic_class_weight: float = option(0.5, "weight of the cross-entropy of the critic's class heads on records", ge=0)
    generator_class_weight: float = option(
        0.1, "weight of the class heads' cross-entropy on generated images, for the generator", ge=0
    )
    diversity_weight: float = option(
        0.5, "weight of a term against collapse: -log distance of two images of a class", ge=0
    )
    loss: str = option("logistic", "adversarial loss", choices=LOSSES)
    fakes: str = option(
        "paired", "generated images: clipped with a record of their class, or apart", choices=("paired", "public")
    )
    sensitivity: str = option(
        "clip", "bound by clipping gradients, or by a limit on weights", choices=("clip", "weight-clip")
    )
    clip_norm: float = option(1.0, "largest L2 norm of one unit's gradient; not used with weight-clip", gt=0)
    weight_limit: float = option(0.01, "with weight-clip: largest size of a critic's weight", gt=0)
    batch_size: int = option(1024, "expected records per critic step, at most N", ge=1)
    steps: int | None = option(
        None, "critic steps, each paid for; default 2000 (epsilon N / 600,000)^(1/4), from 200 to 2000", ge=1
    )
    critic_steps: int = option(1, "critic steps per generator step; where it begins, if adaptive", ge=1)
    adaptive: bool = option(False, "raise critic_steps when the critic no longer recognises generated images")
    threshold: float | None = option(
        None, "adaptive: accuracy on generated images to keep; default 0.6, at epsilon below 5 0.7", gt=0, le=1
    )
    grace: int = option(200, "adaptive: generator steps before critic_steps may rise again", ge=1)
    optimizer: str = option("adam", "of both networks", choices=("adam", "rmsprop"))
    lr: float = option(1e-3, "learning rate of the critic", gt=0)
    generator: str = option("mlp", "network: convolutions or fully connected", choices=("deconv", "mlp"))
    generator_width: int | None = option(
        None, "units of three hidden layers (default 256), or channels before the last convolution (16)", ge=1
    )
    generator_lr: float = option(2e-3, "learning rate of the generator", gt=0)
    generator_batch_size: int = option(500, "generated images per generator step", ge=2)
    ema_decay: float = option(0.98, "decay of the exponential average of the generator's weights; 0: none", ge=0, lt=1)
    latent_dim: int = option(32, "dimension of the latent code", ge=1)


def _batches(n: int) -> dict[str, int]:
    return {"batch_size": n, "generator_batch_size": n}


class DPGAN(Adversarial):
    """Conditional GAN, critic by DP-SGD."""

    name = "dp-gan"
    Config = Config
    _revisited: ClassVar = {
        "critic": "conv",
        "width": 64,
        "snapshots": 1,
        "critic_class_weight": 0.0,
        "generator_class_weight": 0.0,
        "diversity_weight": 0.0,
        "generator": "deconv",
        "fakes": "public",
        "lr": 2e-4,
        "generator_lr": 2e-4,
        "generator_width": 128,
        "ema_decay": 0.0,
        "latent_dim": 128,
    }
    recipes: ClassVar = {
        "paper": {
            "labels": "input",
            "basis": 0,
            "snapshots": 1,
            "critic_class_weight": 0.0,
            "generator_class_weight": 0.0,
            "diversity_weight": 0.0,
            "loss": "wasserstein",
            "fakes": "public",
            "sensitivity": "weight-clip",
            "activation": "tanh",
            "width": 128,
            "batch_size": 64,
            "steps": 50000,
            "critic_steps": 5,
            "optimizer": "rmsprop",
            "lr": 5e-5,
            "generator": "mlp",
            "generator_width": 512,
            "generator_lr": 5e-5,
            "generator_batch_size": 64,
            "ema_decay": 0.0,
            "latent_dim": 100,
        },
        "revisited": _revisited | _batches(128) | {"steps": 450000, "critic_steps": 50},
        "revisited-1": _revisited | _batches(128) | {"steps": 325000, "critic_steps": 200},
        "revisited-adaptive": _revisited | _batches(512) | {"steps": 174000, "critic_steps": 1, "adaptive": True},
    }

    def _stage(self) -> Limited:
        return Limited(self.config)


class Limited(Game):
    """The game of `dp-gan`: weights of the critic may be limited, and the number of its steps may adapt."""

    config: Config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The critic's loop."""
        c, bound = self.config, self.config.clip_norm
        steps = c.steps or default_steps(info, budget)
        if c.critic == "mlp" and c.labels == "input" and c.critic_class_weight:
            raise ConfigError(
                f"critic_class_weight = {c.critic_class_weight:g}: must be 0 with labels = 'input', which leaves the "
                "critic no class heads; set it to 0, or use labels = 'heads'"
            )
        if c.sensitivity == "weight-clip":
            wanted = {"critic": "mlp", "labels": "input", "fakes": "public", "critic_class_weight": 0.0, "basis": 0}
            for field, value in wanted.items():
                if getattr(c, field) not in (value, None):
                    raise ConfigError(
                        f"{field} = {getattr(c, field)!r}: must be {value!r} with sensitivity = 'weight-clip', whose "
                        "bound is proved for that only; change it, or use sensitivity = 'clip'"
                    )
            bound = weight_clip_bound(self.critic(info).widths(), c.weight_limit, c.activation)
        release = dp_sgd("critic", info, batch=c.batch_size, steps=steps, bound=bound)
        # A row costs about three passes; a processor core does about 3e10 multiplications per second.
        critic = sum(p.numel() for p in self.critic(info).parameters()) * (12 if c.critic == "conv" else 1)
        maker = sum(p.numel() for p in self.generator(info).parameters()) * (8 if c.generator == "deconv" else 1)
        work = 6.0 * c.batch_size * critic + (3.0 * c.generator_batch_size + POOL) * maker / c.critic_steps
        memory = 500 + 2e-6 * 8 * critic * 64
        return Plan((release,), seconds=10 + steps * (0.015 + work / 2e10), memory_mb=memory)

    def critic(self, info: PublicInfo) -> Any:
        """A new critic."""
        c, classes = self.config, len(info.classes)
        if c.critic == "conv":
            return ConvCritic(info.shape, classes, c.width or 16, c.activation)
        layers = 1 if c.labels == "input" else 2
        return MLPCritic(info.shape, classes, (c.width or 128,) * layers, c.activation, c.labels, self._basis(info))

    def generator(self, info: PublicInfo) -> Any:
        """A new generator."""
        c, classes = self.config, len(info.classes)
        if c.generator == "deconv":
            return DeconvGenerator(info.shape, classes, c.latent_dim, c.generator_width or 16)
        return MLPGenerator(info.shape, classes, c.latent_dim, (c.generator_width or 256,) * 3, basis=self._basis(info))

    def _basis(self, info: PublicInfo) -> int:
        """Low frequencies of both networks; pixels where the bound on weights needs inputs in [0, 1]."""
        return 0 if self.config.sensitivity == "weight-clip" else low(info, self.config.basis)

    def optimisers(self, critic: Any, generator: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Of one kind."""
        c = self.config
        if c.optimizer == "rmsprop":
            kind: Callable[..., torch.optim.Optimizer] = torch.optim.RMSprop
        else:
            kind = partial(torch.optim.Adam, betas=(0.5, 0.999))
        return kind(critic.parameters(), c.lr), kind(generator.parameters(), c.generator_lr)

    def rates(self, t: int, steps: int) -> tuple[float, float]:
        """The generator's falls to nearly nothing in the second half."""
        return self.config.lr, self.config.generator_lr * min(1.0, 2.04 - 2 * t / steps)

    def made(self, info: PublicInfo) -> int:
        """As asked."""
        return self.config.generator_batch_size

    def schedule(self, budget: Privacy) -> CriticSchedule:
        """One that adapts, if asked."""
        c = self.config
        least = c.threshold or (0.6 if budget.epsilon >= 5 else 0.7)
        return CriticSchedule(c.critic_steps, least if c.adaptive else None, c.grace)

    @property
    def limit(self) -> float | None:
        """Of the critic's weights."""
        return self.config.weight_limit if self.config.sensitivity == "weight-clip" else None

    @property
    def weights(self) -> tuple[float, float]:
        """Of the class heads' cross-entropy."""
        return self.config.critic_class_weight, self.config.generator_class_weight
