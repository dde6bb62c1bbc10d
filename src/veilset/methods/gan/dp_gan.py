"""DP-GAN: a conditional GAN whose critic is trained by DP-SGD; the generator learns from the critic only.

Papers: Xie, Lin, Wang, Wang, Zhou 2018, arXiv 1802.06739, Algorithm 1 (the mechanism; recipe "paper"); Bie, Kamath,
Zhang 2023, "Private GANs, revisited", arXiv 2302.02936 (many critic steps a generator step; recipes "revisited...").
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
  * The critic has a head a class, which also learns to tell classes by cross-entropy (`classify`; 0: published).
    So does the generator learn from it a little (`guide`), and a term keeps images of a class apart (`diversity`, in
    the manner of Yang et al. 2019, arXiv 1901.09024, and Mao et al. 2019, arXiv 1903.05628): without it each class
    collapsed to one image. Both are free.
  * By default the networks work in the lowest frequencies of images (`basis`), which are public: fewer weights get
    noise, and images have no speckle. Images come from several moments of the training (`copies`), which is free.
  * One conditional GAN stands in for the first paper's GAN a digit.
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
from veilset.methods.gan.common import POOL, Adversarial, Game, Pace, default_steps, low
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
    copies: int = option(5, "generators kept from the second half of the training; images come from all of them", ge=1)
    activation: str = option("leaky-relu", "of the critic", choices=NAMES)
    labels: str = option("heads", "how a fully connected critic gets the label", choices=("heads", "input"))
    classify: float = option(0.5, "weight of the cross-entropy of the critic's class heads on records", ge=0)
    guide: float = option(0.1, "weight of the class heads' cross-entropy on generated images, for the generator", ge=0)
    diversity: float = option(0.5, "weight of a term against collapse: -log distance of two images of a class", ge=0)
    loss: str = option("logistic", "adversarial loss", choices=LOSSES)
    fakes: str = option(
        "paired", "generated images: clipped with a record of their class, or apart", choices=("paired", "public")
    )
    sensitivity: str = option(
        "clip", "bound by clipping gradients, or by a limit on weights", choices=("clip", "weight-clip")
    )
    bound: float = option(1.0, "max_grad_norm; not used with weight-clip", gt=0)
    limit: float = option(0.01, "with weight-clip: largest size of a critic's weight", gt=0)
    batch: int = option(1024, "expected records a critic step, at most N", ge=1)
    steps: int | None = option(
        None, "critic steps, each paid for; default 2000 (epsilon N / 600,000)^(1/4), from 200 to 2000", ge=1
    )
    ratio: int = option(1, "critic steps a generator step; where it begins, if adaptive", ge=1)
    adaptive: bool = option(False, "raise the ratio when the critic no longer recognises generated images")
    threshold: float | None = option(
        None, "adaptive: accuracy on generated images to keep; default 0.6, at epsilon below 5 0.7", gt=0, le=1
    )
    grace: int = option(200, "adaptive: generator steps before the ratio may rise again", ge=1)
    optimiser: str = option("adam", "of both networks", choices=("adam", "rmsprop"))
    rate: float = option(1e-3, "learning rate of the critic", gt=0)
    generator: str = option("mlp", "network: convolutions or fully connected", choices=("deconv", "mlp"))
    generator_width: int | None = option(
        None, "units of three hidden layers (default 256), or channels before the last convolution (16)", ge=1
    )
    generator_rate: float = option(2e-3, "learning rate of the generator", gt=0)
    generator_batch: int = option(500, "generated images a generator step", ge=2)
    average: float = option(0.98, "exponential average of the generator's weights; 0: none", ge=0, lt=1)
    code: int = option(32, "length of the latent code", ge=1)


class DPGAN(Adversarial):
    """Conditional GAN, critic by DP-SGD."""

    name = "dp-gan"
    Config = Config
    _revisited: ClassVar = {
        "critic": "conv",
        "width": 64,
        "copies": 1,
        "classify": 0.0,
        "guide": 0.0,
        "diversity": 0.0,
        "generator": "deconv",
        "fakes": "public",
        "rate": 2e-4,
        "generator_rate": 2e-4,
        "generator_width": 128,
        "average": 0.0,
        "code": 128,
    }
    recipes: ClassVar = {
        "paper": {
            "labels": "input",
            "basis": 0,
            "copies": 1,
            "classify": 0.0,
            "guide": 0.0,
            "diversity": 0.0,
            "loss": "wasserstein",
            "fakes": "public",
            "sensitivity": "weight-clip",
            "activation": "tanh",
            "width": 128,
            "batch": 64,
            "steps": 50000,
            "ratio": 5,
            "optimiser": "rmsprop",
            "rate": 5e-5,
            "generator": "mlp",
            "generator_width": 512,
            "generator_rate": 5e-5,
            "generator_batch": 64,
            "average": 0.0,
            "code": 100,
        },
        "revisited": {**_revisited, "batch": 128, "generator_batch": 128, "steps": 450000, "ratio": 50},
        "revisited-1": {**_revisited, "batch": 128, "generator_batch": 128, "steps": 325000, "ratio": 200},
        "revisited-adaptive": {
            **_revisited, "batch": 512, "generator_batch": 512, "steps": 174000, "ratio": 1, "adaptive": True
        },
    }  # fmt: skip

    def _stage(self) -> Limited:
        return Limited(self.config)


class Limited(Game):
    """The game of `dp-gan`: weights of the critic may be limited, and the number of its steps may adapt."""

    config: Config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The critic's loop."""
        c, bound = self.config, self.config.bound
        steps = c.steps or default_steps(info, budget)
        if c.critic == "mlp" and c.labels == "input" and c.classify:
            raise ConfigError(
                f"classify = {c.classify:g}: must be 0 with labels = 'input', which leaves the critic no class heads; "
                "set it to 0, or use labels = 'heads'"
            )
        if c.sensitivity == "weight-clip":
            wanted = {"critic": "mlp", "labels": "input", "fakes": "public", "classify": 0.0, "basis": 0}
            for field, value in wanted.items():
                if getattr(c, field) not in (value, None):
                    raise ConfigError(
                        f"{field} = {getattr(c, field)!r}: must be {value!r} with sensitivity = 'weight-clip', whose "
                        "bound is proved for that only; change it, or use sensitivity = 'clip'"
                    )
            bound = weight_clip_bound(self.critic(info).widths(), c.limit, c.activation)
        release = dp_sgd("critic", info, batch=c.batch, steps=steps, bound=bound)
        # A row costs about three passes; a processor core does about 3e10 multiplications a second.
        critic = sum(p.numel() for p in self.critic(info).parameters()) * (12 if c.critic == "conv" else 1)
        maker = sum(p.numel() for p in self.generator(info).parameters()) * (8 if c.generator == "deconv" else 1)
        work = 6.0 * c.batch * critic + (3.0 * c.generator_batch + POOL) * maker / c.ratio
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
            return DeconvGenerator(info.shape, classes, c.code, c.generator_width or 16)
        return MLPGenerator(info.shape, classes, c.code, (c.generator_width or 256,) * 3, basis=self._basis(info))

    def _basis(self, info: PublicInfo) -> int:
        """Low frequencies of both networks; pixels where the bound on weights needs inputs in [0, 1]."""
        return 0 if self.config.sensitivity == "weight-clip" else low(info, self.config.basis)

    def optimisers(self, critic: Any, generator: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Of one kind."""
        c = self.config
        if c.optimiser == "rmsprop":
            kind: Callable[..., torch.optim.Optimizer] = torch.optim.RMSprop
        else:
            kind = partial(torch.optim.Adam, betas=(0.5, 0.999))
        return kind(critic.parameters(), c.rate), kind(generator.parameters(), c.generator_rate)

    def rates(self, t: int, steps: int) -> tuple[float, float]:
        """The generator's falls to nearly nothing in the second half."""
        return self.config.rate, self.config.generator_rate * min(1.0, 2.04 - 2 * t / steps)

    def made(self, info: PublicInfo) -> int:
        """As asked."""
        return self.config.generator_batch

    def pace(self, budget: Privacy) -> Pace:
        """One that adapts, if asked."""
        c = self.config
        least = c.threshold or (0.6 if budget.epsilon >= 5 else 0.7)
        return Pace(c.ratio, least if c.adaptive else None, c.grace)

    @property
    def limit(self) -> float | None:
        """Of the critic's weights."""
        return self.config.limit if self.config.sensitivity == "weight-clip" else None

    @property
    def weights(self) -> tuple[float, float]:
        """Of the class heads' cross-entropy."""
        return self.config.classify, self.config.guide
