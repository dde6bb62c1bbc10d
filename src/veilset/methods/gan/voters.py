"""Teachers that vote: small critics of single shards, trained many in one pass, and a generator that asks them.

A teacher holds its shard's records and a logistic critic of images with labels; what it does it does on its own state
alone (`Voters`). `Polled` is the stage that the PATE methods share: a step lets all teachers learn to tell their
records from generated images, asks for their votes about some, and lets the method make something of the noisy counts.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average
from veilset.methods.base import State
from veilset.methods.gan.common import Fakes, Snapshots, low, mixture
from veilset.methods.gan.hidden_critics import Adam
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged
from veilset.networks.critics import ConvCritic, MLPCritic, score
from veilset.networks.dct import low_frequencies
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator
from veilset.privacy.enclave import Hidden
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

TOGETHER = 125  # teachers in one pass
RADIUS = 0.6  # bound of an image's low frequencies, in units of sqrt(C H W), for class means
VARIES = 1.2  # deviation of each of the 30 lowest frequencies at the start


@dataclass(frozen=True, kw_only=True)
class Config:
    """What all of the family have."""

    shards: int | None = option(None, "teachers; default one per 200 units, at most 1000", ge=1, le=2**20)
    images: int = option(50, "generated images per step that are voted on", ge=1, le=2**16)
    steps: int = option(60, "times that the teachers vote, each paid for", ge=1)
    critic: str = option("mlp", "teachers: fully connected (fast) or convolutions", choices=("mlp", "conv"))
    width: int | None = option(
        None, "teacher: units of its hidden layer (default 32), or channels of the first convolution (8)", ge=1
    )
    basis: int | None = option(136, "low frequencies in which teachers see images and votes are cast; 0: pixels", ge=0)
    warm_steps: int = option(20, "steps of each teacher before the first vote", ge=0)
    teacher_steps: int = option(4, "steps of each teacher before each further vote", ge=0)
    batch_size: int = option(16, "records per step of a teacher, drawn from its shard", ge=1)
    lr: float = option(3e-3, "learning rate of the teachers (Adam)", gt=0)
    start: str = option(
        "means", "what the generator starts from: paid class means, or nothing", choices=("means", "none")
    )
    start_steps: int = option(400, "steps that teach the generator the class means", ge=0)
    budget_share: float = option(0.1, "part of the budget that class means take", gt=0, lt=1)
    generator: str = option("mlp", "network: fully connected or convolutions", choices=("mlp", "deconv"))
    generator_width: int | None = option(
        None, "units of two hidden layers (default 128), or channels before the last convolution (16)", ge=1
    )
    generator_lr: float = option(1e-3, "learning rate of the generator (Adam)", gt=0)
    ema_decay: float = option(0.9, "exponential average of the generator's weights; 0: none", ge=0, lt=1)
    snapshots: int = option(3, "generators kept from the second half of the training", ge=1)
    latent_dim: int = option(30, "length of the latent code", ge=1)


class Voters:
    """Logistic critics of one architecture, as functions of a teacher's state.

    Args:
        net: lends structure and initial weights, which are public.
        shape: (C, H, W) as the net takes images; they come flat.
        waves: low frequencies [d, C H W] in which images come; None: pixels.
        rate: learning rate of Adam.
        batch: records a step, and as many generated images.
    """

    def __init__(self, net: nn.Module, shape: tuple[int, ...], waves: torch.Tensor | None, rate: float, batch: int):
        self._net, self._shape, self._waves, self._rate, self._batch = net, shape, waves, rate, batch
        self._names = [name for name, _ in net.named_parameters()]

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] as teachers see them, [n, d]."""
        return x.flatten(1) if self._waves is None else x.flatten(1) @ self._waves.T

    def made(self, h: Hidden) -> State:
        """A teacher that has learned nothing yet."""
        fresh = {k: p.detach() + 0 * h.count for k, p in self._net.named_parameters()}
        return {"x": self.seen(h.x), "y": h.y, "count": h.count} | fresh

    def scores(self, weights: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Logits [n] that images x [n, d] are records with labels y [n]."""
        given = {k: weights[k] for k in self._names}
        return score(functional_call(self._net, given, (x.unflatten(1, self._shape), y)), y)

    def learn(self, state: State, fakes: torch.Tensor, steps: int) -> None:
        """Some steps of a teacher against generated images by class, [K, each, d]."""

        def loss(weights: State, real: torch.Tensor, fake: torch.Tensor, y: torch.Tensor, there: Any) -> torch.Tensor:
            told = F.softplus(-self.scores(weights, real, y)).mean() * there
            return told + F.softplus(self.scores(weights, fake, y)).mean()

        weights, adam = {k: state[k] for k in self._names}, Adam(self._rate)
        shard = Hidden(state["x"], state["y"], state["count"], {})
        for _ in range(steps):
            x, y, there = shard.batch(self._batch)
            which = torch.randint(fakes.shape[1], (self._batch,), device=fakes.device)
            weights = adam.step(weights, grad(loss)(weights, x, fakes[y, which], y, there))
        state.update(weights)

    def slopes(self, state: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """In which direction the score of each image rises, [n, d]."""
        out: torch.Tensor = grad(lambda x: self.scores(state, x, y).sum())(x)
        return out


class Means(Stage):
    """Noisy class means in low frequencies: one sum, with a constant that counts."""

    def __init__(self, size: int):
        self._size = size

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One release."""
        return Plan((Release(name="mean", bound=RADIUS * math.sqrt(info.pixels)),), seconds=1.0)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "mean", the mean image of each class [K, C H W], by the declared expected size of a class."""
        waves = low_frequencies(info.shape, self._size).to(self.device)
        grey = (waves @ torch.full((info.pixels,), 0.5).to(waves)).detach()

        def offset(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return waves @ x.flatten() - grey

        total = gate.sum("mean", offset, by_class=True).float().to(self.device)
        return {"mean": (total / (info.units / len(info.classes)) + grey) @ waves}


class Polled(Stage):
    """A generator that learns from votes, by the loop "votes".

    Args:
        config: of the method.
    """

    def __init__(self, config: Any):
        self.config = config

    # ------------------------------------------------------------------ what a method says

    @abstractmethod
    def ballot(self, info: PublicInfo) -> dict[str, Any]:
        """Facts of a vote: kind, rows, columns, entries."""

    @abstractmethod
    def asked(self, x: torch.Tensor, info: PublicInfo) -> tuple[torch.Tensor, Any]:
        """(the images that are voted on [images, d], public numbers of the step), for generated images x."""

    @abstractmethod
    def voted(self, voters: Voters, state: State, x: torch.Tensor, y: torch.Tensor, public: Any) -> torch.Tensor:
        """A teacher's scores [rows, columns] for what was asked."""

    @abstractmethod
    def teach(self, game: Game, counts: torch.Tensor, t: int) -> None:
        """Let the generator learn from noisy counts, as shares of the teachers [rows, columns]."""

    def extra(self, info: PublicInfo) -> dict[str, Any]:
        """What else learns in the loop, by name."""
        return {}

    # ------------------------------------------------------------------ the loop

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One release, voted on at each step."""
        c = self.config
        facts = self.ballot(info) | {"shards": self._shards(info)}
        release = Release(
            name="votes", verb="vote", mechanism="teacher-votes", steps=c.steps, facts=tuple(facts.items())
        )
        weights = sum(p.numel() for p in self._critic(info).parameters()) * (12 if c.critic == "conv" else 1)
        steps = c.warm_steps + c.teacher_steps * c.steps
        work = self._shards(info) * weights * (12.0 * c.batch_size * steps + 4.0 * c.images * c.steps)
        room = 4e-6 * info.units * 1.6 * (self._size(info) or info.pixels)
        return Plan((release,), seconds=20 + work / 2e9, memory_mb=500 + 2 * room + 1e-5 * weights * self._shards(info))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The generators that were kept."""
        c, classes, shards = self.config, len(info.classes), self._shards(info)
        generator, critic = self._generator(info).to(self.device), self._critic(info).to(self.device)
        size = self._size(info)
        waves = low_frequencies(info.shape, size).to(self.device) if size else None
        voters = Voters(critic, (1, 1, size) if size else info.shape, waves, c.lr, c.batch_size)
        gate.train_hidden("votes", voters.made, together=TOGETHER)
        adam = torch.optim.Adam(generator.parameters(), c.generator_lr, betas=(0.5, 0.9))
        game = Game(generator, adam, voters, waves, self.extra(info))
        if "start" in earlier:
            game.start(earlier["start"]["mean"], info, c.start_steps)
        mean, snapshots = average(generator, c.ema_decay), Snapshots(c.snapshots, c.steps)
        fakes = Fakes(classes, max(1, c.batch_size), info.shape, self.device)
        state = {"generator": generator, "adam": adam, "mean": mean, "snapshots": snapshots, **game.extra}
        for t in gate.loop("votes", state):
            fakes.renew(generator)
            pool = voters.seen(fakes.x.flatten(0, 1)).unflatten(0, (classes, -1))
            game.drawn(c.images, classes, t)
            x, public = self.asked(voters.seen(game.x), info)
            game.x_asked, game.public = x, public
            steps = c.teacher_steps if t else c.warm_steps

            def f(
                own: State, x: Any = x, y: Any = game.y, pool: Any = pool, public: Any = public, n: int = steps
            ) -> Any:
                voters.learn(own, pool, n)
                return self.voted(voters, own, x, y, public)

            counts = gate.vote("votes", f, together=TOGETHER)
            self.teach(game, counts.float().to(self.device) / shards, t)
            mean.update_parameters(generator)
            snapshots.take(t, mean.module if c.ema_decay else generator)
        return snapshots.settled(mean.module if c.ema_decay else generator, 200)

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images of all generators that were kept."""
        return mixture(self._generator(info), state, labels)

    def seen(self, info: PublicInfo) -> int:
        """Numbers of an image as teachers see it."""
        return self._size(info) or info.pixels

    def _size(self, info: PublicInfo) -> int:
        return min(low(info, self.config.basis), info.pixels)

    def _shards(self, info: PublicInfo) -> int:
        return self.config.shards or max(1, min(1000, info.units // 200))

    def _critic(self, info: PublicInfo) -> Any:
        c, classes, size = self.config, len(info.classes), self._size(info)
        if c.critic == "conv":
            return ConvCritic(info.shape, classes, c.width or 8)
        return MLPCritic((1, 1, size) if size else info.shape, classes, (c.width or 32,))

    def _generator(self, info: PublicInfo) -> Any:
        c, classes = self.config, len(info.classes)
        if c.generator == "deconv":
            return DeconvGenerator(info.shape, classes, c.latent_dim, c.generator_width or 16)
        return MLPGenerator(info.shape, classes, c.latent_dim, (c.generator_width or 128,) * 2, basis=self._size(info))


@dataclass(frozen=True, kw_only=True)
class MovedConfig(Config):
    """What those have whose votes move images."""

    length: float = option(3.0, "how far an image moves in the first step, mean L2 norm; falls to 0", gt=0)
    inner_steps: int = option(3, "steps of the generator towards the moved images", ge=1)


class Moved(Polled):
    """Votes say in which direction each image should change."""

    @abstractmethod
    def direction(self, game: Game, counts: torch.Tensor) -> torch.Tensor:
        """Directions [images, d] of noisy counts, as shares of the teachers [rows, columns]."""

    def teach(self, game: Game, counts: torch.Tensor, t: int) -> None:
        """Move the images; less and less."""
        c = self.config
        game.moved(self.direction(game, counts), c.length * (1 - t / c.steps), c.inner_steps)


class Game:
    """What is public in a step: generator and optimiser, the codes that were drawn, and what was asked."""

    x: torch.Tensor
    x_asked: torch.Tensor
    y: torch.Tensor
    z: torch.Tensor
    public: Any

    def __init__(
        self,
        generator: Any,
        adam: torch.optim.Optimizer,
        voters: Voters,
        waves: torch.Tensor | None,
        extra: dict[str, Any],
    ):
        self.generator, self.adam, self.voters, self.waves, self.extra = generator, adam, voters, waves, extra

    @torch.no_grad()
    def drawn(self, images: int, classes: int, t: int) -> None:
        """New codes, labels in equal shares, and their images."""
        device = next(self.generator.parameters()).device
        self.y = (torch.arange(images, device=device) + t * images) % classes
        self.z = torch.randn(images, self.generator.code, device=device)
        self.x = self.generator(self.z, self.y)

    def moved(self, direction: torch.Tensor, length: float, steps: int) -> None:
        """Teach the generator to make its images further along directions [images, d], of mean length `length`."""
        direction = direction * (length / direction.norm(dim=1).mean().clamp_min(1e-12))
        pixels = direction if self.waves is None else direction @ self.waves
        aim = (self.x.flatten(1) + pixels).clamp(0, 1)
        for _ in range(steps):
            self.descend((self.generator(self.z, self.y).flatten(1) - aim).square().sum(1).mean())

    def descend(self, loss: torch.Tensor, adam: torch.optim.Optimizer | None = None) -> None:
        """A step of the generator."""
        adam = adam or self.adam
        adam.zero_grad()
        loss.backward()
        adam.step()

    def start(self, mean: torch.Tensor, info: PublicInfo, steps: int) -> None:
        """Teach the generator class means [K, C H W], and smooth noise that follows the code.

        Too much of it, so that votes take away what no record has: a generator that varies too little is hard to widen.
        """
        waves = low_frequencies(info.shape, min(30, info.pixels)).to(mean)
        mixed = torch.randn(self.generator.code, len(waves)).to(mean) * (VARIES / math.sqrt(self.generator.code))
        adam = torch.optim.Adam(self.generator.parameters(), 2e-3, betas=(0.5, 0.9))
        for t in range(steps):
            self.drawn(200, len(info.classes), t)
            aim = (mean[self.y] + self.z @ mixed @ waves).clamp(0, 1)
            self.descend((self.generator(self.z, self.y).flatten(1) - aim).square().sum(1).mean(), adam)


class PATE(Staged):
    """Base of the family: class means, if the generator starts from them, and votes."""

    config: Any

    @abstractmethod
    def _polled(self) -> Polled: ...

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        votes = Part(self._polled())
        if self.config.start == "none":
            return Compose({"votes": votes}, prefixed=False)
        means = Part(Means(self.config.basis or 136), self.config.budget_share)
        return Compose({"start": means, "votes": votes}, prefixed=False)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return dict(learned["votes"])

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return self._polled().on(self.device).draw(state, info, labels)
