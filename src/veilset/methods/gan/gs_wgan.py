"""GS-WGAN: hidden critics, one per shard of the records; only their gradients on generated images leave, noised.

Paper: Chen, Orekondy, Fritz 2020, "GS-WGAN: A Gradient-Sanitized Approach for Learning Differentially Private
Generators", arXiv 2006.08265, Algorithm 1.
Idea: a generator needs of a critic no more than the gradient of its score on generated images. A Wasserstein critic has
gradients of about norm 1, so clipping them hardly biases, and the critic itself may learn without any noise.

Private access:
  mean, spread, cells, within   the sums of dp-moments, if the generator starts from them (`start_share`)
  critic   `pull`s of B rows each: gradients on generated images. Which critic answers is drawn in secret, or goes in
           turn. Critics are trained beforehand, all in one vectorised pass, each on its own shard
Differs from the paper and its code:
  * A step's B rows are charged as one answer of sensitivity 2 C sqrt(B), amplified once. The paper's accountant
    amplifies each row by itself: what it prints as 10 is 347 (`veilset claim gs-wgan`).
  * A critic that was drawn is thrown away, or nothing may be saved by drawing it in secret (docs/secret-shards.md).
  * Records are dealt to shards one by one, not by cutting a permutation.
  * From a random generator (`start_share=0`) noise drowns it: on MNIST at epsilon 10 a row's signal of norm 1 met noise
    of norm 19, and images taught a linear classifier next to nothing (16 %). So by default half the budget buys class
    moments, and the generator draws from these Gaussians, their codes scaled by `truncation`. What it learns is a shift
    of each class in the lowest frequencies (`basis`), which are public: few numbers, on which noise averages out.
    Nearly all of the images' quality is the start's (benchmarks/results/dual-purpose-classifier.md has it alone).
  * A row is the mean over a group (`group_size`) of generated images of a class: what is peculiar to an image cancels
    before the row is clipped, and one row costs what it did. Each critic starts from weights of its own; common ones
    move all answers alike.
  * By default networks are fully connected; `snapshots` and `ema_decay` as in dp-gan. Recipe "paper" has the published
    networks and sizes; its last convolution is padded, and images are cut from 32 x 32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average
from veilset.methods.base import State, Synthesizer
from veilset.methods.gan.common import Fakes, Snapshots, low, mixture
from veilset.methods.gan.hidden_critics import Critics
from veilset.methods.moments.dp_moments import Moments, likelihood
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged, learned_by
from veilset.networks.critics import ConvCritic, MLPCritic
from veilset.networks.dct import low_frequencies
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator, ShiftedGaussians
from veilset.networks.published_gans import ResNetGenerator, SpectralCritic
from veilset.privacy.enclave import Answer
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

START, GAME = "start", "game"  # stages
TOGETHER = {"mlp": 128, "conv": 32, "published": 32}  # critics in one vectorised pass; small ones gain by more


@dataclass(frozen=True, kw_only=True)
class Config:
    start_share: float = option(
        0.5, "part of the budget for class moments, whose images the generator starts from; 0: none", ge=0, lt=1
    )
    truncation: float = option(
        0.7, "deviation of the codes of such images; below 1 they vary less, and show their class more clearly", gt=0
    )
    mechanism: str = option(
        "secret-shards",
        "which critic answers: one drawn in secret, made anew; or the next, which keeps what it learned",
        choices=("secret-shards", "round-robin"),
    )
    shards: int | None = option(
        None, "hidden critics; default one per 60 units, at most 250; 1000 without a start", ge=1, le=2**20
    )
    rows: int = option(10, "gradients per step, which share its noise", ge=1, le=2**20)
    group_size: int = option(8, "generated images of a class, the mean of whose gradients is a row", ge=1, le=2**20)
    steps: int | None = option(
        None,
        "generator steps, each paid for; default 1000, without a start 8000; in turn, whole passes over all critics",
        ge=1,
    )
    clip_norm: float = option(0.3, "of a row, the mean gradient on a group of images", gt=0)
    critic: str = option(
        "mlp", "network: fully connected (fast), convolutions, or as published", choices=("mlp", "conv", "published")
    )
    width: int | None = option(
        None, "critic: units of both hidden layers (default 64), or channels of the first convolution (8; 64)", ge=1
    )
    basis: int | None = option(
        None,
        "low frequencies in which rows lie; default a quarter of the pixels, at most 64 with a start; 0: pixels",
        ge=0,
    )
    warm_steps: int = option(30, "steps of each critic before the first answer", ge=0)
    critic_steps: int = option(1, "steps of a critic that was chosen, before it answers", ge=0)
    batch_size: int = option(32, "records per critic step, drawn from its shard", ge=1)
    lr: float = option(1e-2, "learning rate of all that is hidden", gt=0)
    penalty: float = option(10.0, "weight of the gradient penalty", ge=0)
    generator: str = option(
        "mlp", "network without a start: convolutions, fully connected, or as published",
        choices=("deconv", "mlp", "published"),
    )  # fmt: skip
    generator_width: int | None = option(
        None, "units of two hidden layers (default 128), or channels before the last convolution (16; all: 256)", ge=1
    )
    generator_lr: float = option(0.004, "learning rate of the generator; 0: it stays as it starts", ge=0)
    ema_decay: float = option(0.995, "exponential average of the generator's weights; 0: none", ge=0, lt=1)
    snapshots: int = option(
        1, "generators kept from the second half of the training; images come from all of them", ge=1
    )
    latent_dim: int = option(10, "length of the latent code", ge=1)


PUBLISHED: dict[str, Any] = {
    "start_share": 0.0,
    "shards": 1000,
    "rows": 32,
    "clip_norm": 1.0,
    "group_size": 1,
    "steps": 20_000,
    "critic": "published",
    "basis": 0,
    "warm_steps": 2000,
    "critic_steps": 5,
    "lr": 1e-4,
    "generator": "published",
    "generator_lr": 1e-4,
    "ema_decay": 0.999,
    "snapshots": 1,
}


class GSWGAN(Staged, Synthesizer):
    """Hidden critics whose gradients on generated images are noised."""

    name = "gs-wgan"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {"paper": PUBLISHED}

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        share, game = self.config.start_share, Part(self._game())
        start = {START: Part(Moments(), share)} if share else {}
        return Compose(start | {GAME: game}, prefixed=False)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> State:
        """likelihood of the moments that it started from, if there are any."""
        return likelihood(learned_by(START, self.fitted()[0]), x, y) if self.config.start_share else {}

    def _game(self) -> Sanitised:
        return Sanitised(self.config)

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return self._game().on(self.device).draw(state, info, labels)


Asking = Callable[[torch.Tensor, torch.Tensor, float], Answer]


class Sanitised(Stage):
    """A generator that learns from sanitised gradients of hidden critics."""

    def __init__(self, config: Any):
        self.config = config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One release, pulled at each step."""
        c = self.config
        shards = c.shards or max(1, min(250 if c.start_share else 1000, info.units // 60))
        steps = c.steps or (1000 if c.start_share else 8000)
        if c.mechanism == "round-robin":
            steps = max(1, (c.steps or shards) // shards) * shards
        facts = {"shards": shards, "rows": c.rows, "columns": self._basis(info) or info.pixels}
        release = Release(
            name="critic", verb="pull", mechanism=c.mechanism, bound=c.clip_norm, sample_rate=1 / shards, steps=steps,
            facts=tuple(facts.items()),
        )  # fmt: skip
        weights = sum(p.numel() for p in self.network(info).parameters()) * (1 if c.critic == "mlp" else 12)
        work = 60.0 * c.batch_size * weights * (c.warm_steps * shards + c.critic_steps * steps)
        return Plan((release,), seconds=10 + 0.015 * steps + work / 2e10, memory_mb=500 + 2e-5 * weights * shards)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The generators that were kept."""
        c, release, classes = self.config, gate.release("critic"), len(info.classes)
        generator = self._generator(info, earlier.get(START)).to(self.device)
        fakes = Fakes(classes, max(1, c.batch_size // 2), info.shape, self.device)
        fakes.renew(generator)
        waves, pupil = self._waves(info), self._pupil(info)
        critics = Critics(self.network(info).to(self.device), c.lr, c.penalty, c.batch_size, self.read(info))
        first = critics.seen(fakes.x) if START in earlier else None
        gate.train_hidden(
            "critic", lambda h: critics.warmed(h, pupil, c.warm_steps, first), together=TOGETHER[c.critic]
        )
        asked = self._asked(info, critics, fakes)
        adam = torch.optim.Adam(generator.parameters(), c.generator_lr, betas=(0.9, 0.999))
        mean, snapshots = average(generator, c.ema_decay), Snapshots(c.snapshots, release.steps)
        state = {"generator": generator, "adam": adam, "mean": mean, "snapshots": snapshots}
        for t in gate.loop("critic", state):
            fakes.renew(generator)
            y = ((torch.arange(c.rows, device=self.device) + t * c.rows) % classes).repeat_interleave(c.group_size)
            x = generator(torch.randn(len(y), generator.code, device=self.device), y)
            slopes = asked(x.detach(), y, t / release.steps)
            rows = gate.pull("critic", lambda h, slopes=slopes: slopes(h).unflatten(0, (-1, c.group_size)).mean(1))
            adam.zero_grad()
            adam.param_groups[0]["lr"] = c.generator_lr * min(1.0, 2.04 - 2 * t / release.steps)
            noisy = rows.to(x) if waves is None else rows.to(x) @ waves
            x.backward(noisy.repeat_interleave(c.group_size, 0).view_as(x) / -len(y))
            adam.step()
            mean.update_parameters(generator)
            snapshots.take(t, mean.module if c.ema_decay else generator)
        return snapshots.settled(mean.module, 200)

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images of all generators that were kept."""
        start = learned_by(START, state) if self.config.start_share else {}
        return mixture(self._generator(info, start), learned_by(GAME, state), labels)

    def _asked(self, info: PublicInfo, critics: Critics, fakes: Fakes) -> Asking:
        """What a shard is asked about images x with labels y, when so much of the training is over, from 0 to 1."""
        steps, basis = self.config.critic_steps, self._rest(info)

        def asked(x: torch.Tensor, y: torch.Tensor, _: float) -> Answer:
            seen = critics.seen(fakes.x), critics.seen(x)
            return lambda h: critics.answered(h, *seen, y, steps, basis)

        return asked

    def read(self, info: PublicInfo) -> torch.Tensor | None:
        """The waves that networks read in place of pixels."""
        return self._waves(info) if self.config.critic == "mlp" else None

    def _rest(self, info: PublicInfo) -> torch.Tensor | None:
        """The waves to which rows are reduced, where networks read pixels."""
        return None if self.config.critic == "mlp" else self._waves(info)

    def _basis(self, info: PublicInfo) -> int:
        size = low(info, self.config.basis)
        return min(size, 64) if self.config.basis is None and self.config.start_share else size

    def _waves(self, info: PublicInfo) -> torch.Tensor | None:
        size = self._basis(info)
        return low_frequencies(info.shape, size).to(self.device) if size else None

    def network(self, info: PublicInfo) -> Any:
        c, classes = self.config, len(info.classes)
        if c.critic == "conv":
            return ConvCritic(info.shape, classes, c.width or 8)
        if c.critic == "published":
            return SpectralCritic(info.shape, classes, c.width or 64)
        size = self._basis(info)
        return MLPCritic((1, 1, size) if size else info.shape, classes, (c.width or 64,) * 2)

    def _pupil(self, info: PublicInfo) -> Any:
        """The generators against which critics learn before there is one."""
        size, classes = self._basis(info), len(info.classes)
        net = MLPGenerator(info.shape, classes, self.config.latent_dim, (64,), norm=False, basis=size)
        return net.to(self.device)

    def _generator(self, info: PublicInfo, start: State | None = None) -> Any:
        c, classes = self.config, len(info.classes)
        if start:
            return ShiftedGaussians(info.shape, **start, waves=self._waves(info), truncation=c.truncation)
        if c.generator == "deconv":
            return DeconvGenerator(info.shape, classes, c.latent_dim, c.generator_width or 16)
        if c.generator == "published":
            return ResNetGenerator(info.shape, classes, c.latent_dim, c.generator_width or 256)
        return MLPGenerator(info.shape, classes, c.latent_dim, (c.generator_width or 128,) * 2, basis=self._basis(info))
