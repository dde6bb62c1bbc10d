"""Private-Set: a few labelled images on which networks have the gradients that they have on the private images.

Paper: Chen, Kerkouche and Fritz, NeurIPS 2022, arXiv 2211.04446 (Private Set Generation with Discriminative
Information), Algorithm 1; gradient matching after Zhao, Mopuri and Bilen 2021, arXiv 2006.05929.
Idea: no generator and no model of the images, only what a classifier needs. The gate answers with the clipped, noisy
gradient of a random network; the images are changed until the network's gradient on them points the same way. Networks
are partly trained on the images between questions, and replaced by fresh ones.

Private access:
  match     clipped gradients of Poisson batches, `networks` x `stages` x `queries` of them, no more and no fewer
  mean, spread, cells, within   with start "moments" only: the sums of dp-moments, for `budget_share` of the budget

With `prior` the images are those of a small generator for fixed random codes, and its weights are changed in place of
pixels. Only the images of these codes are kept.

What the paper does not have, each with a switch; it is off in the recipes:
  start     images drawn from a `dp-moments` model that is paid in the same plan, in place of noise. A prior first
            learns to draw them: from random weights it needs far more steps than the answers last for
  replay    an answer stays true of its network, so it can be matched again, free. There are few, large queries
            and many steps on the images for each, against answers drawn from all that were got
  trust     the noise's size is known, so the part of a unit's gradient that is noise can be estimated; a unit of a
            layer counts by the rest
  lr_decay  the learning rate falls to zero, so that the last answers' noise is averaged
Before you choose it: at every size and budget measured so far `dp-condense` releases the better set, and on
Fashion-MNIST with 10 images per class the questions left the paid start worse than it was
(`veilset bench private-set-paper`).

Differs from the paper and its code:
  * The code asks R + 1 times in place of R, and so spends more than it says. Here the gate counts.
  * Only weights are clipped together, which alone are matched; gains, shifts and offsets would use up the clipping
    norm.
  * Pixels are kept in [0, 1] after every step; the code clamps what is shown. A generator ends in a sigmoid.
  * The network reads pixels / 0.3 for every set; the code subtracts and divides by each set's own mean and deviation.
    Noise starts about grey.
  * Cosines have no constant in the denominator, so neither the clipping bound nor the batch changes a distance.
  * An augmentation is one shift, scale or turn per query, in place of six kinds; the generator is made for 28x28, and
    enlarged for other shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.learning.augmentation import drawn_move, moved
from veilset.learning.dp_sgd import cosine, dp_sgd
from veilset.methods.base import State, Synthesizer
from veilset.methods.condensation.common import each, picked
from veilset.methods.condensation.gradient_matching import (
    DISTANCES,
    MOST_KEPT,
    Answer,
    Answers,
    distance,
    gradients,
    renew,
    train_on,
)
from veilset.methods.moments.dp_moments import Moments
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged
from veilset.networks.convnet import UNIT, ConvNet
from veilset.networks.generators import CodeImages
from veilset.networks.precision import fast
from veilset.privacy.gradients import Loss
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

LARGEST_BATCH = 2048
MOVE = 0.125, 0.2, 15  # of an augmentation: shift as a part of a side, relative size, degrees
TAUGHT, TAUGHT_RATE = 300, 2e-3  # steps in which a prior learns to draw start images, and their rate
PRIOR_SECONDS = 1.5e-3  # of a step of the prior, for each of its images
WIDE = 64  # from this width on bfloat16 is the faster
# Images per class: (stages, epochs). The paper's O and I: together always 500 epochs or fewer.
PUBLISHED = {1: (1, 1), 10: (10, 50), 20: (20, 25), 50: (50, 10)}
PLAIN = {"start": "noise", "replay": 0, "trust": False, "lr_decay": False}


@dataclass(frozen=True, kw_only=True)
class Config:
    per_class: int | None = option(
        None, "images per class that are released; default 10, or N / K if less; a longer sample repeats them", ge=1
    )
    width: int = option(16, "channels of the matched network", ge=1, le=1024)
    networks: int = option(50, "fresh networks, one after the other", ge=1)
    stages: int = option(4, "how often a network is asked about, trained on the images between", ge=1)
    queries: int = option(1, "questions at a stage, all about the same weights", ge=1)
    epochs: int = option(20, "inner training: passes over the images between two stages", ge=0)
    inner_lr: float = option(0.01, "learning rate of inner training", gt=0)
    batch_size: int | None = option(None, "expected units per query; default all, at most 2048", ge=1)
    clip_norm: float = option(0.1, "max_grad_norm of one unit, over all matched weights", gt=0)
    distance: str = option("gm", "between gradients: gm by output unit, mse, cos of the whole", choices=DISTANCES)
    augment: bool = option(False, "shift, scale or turn all images, private and not, alike in each question")
    prior: bool = option(False, "change the weights of a generator in place of pixels")
    start: str | None = option(
        None, "first images; default moments, which a prior learns to draw first", choices=("noise", "moments")
    )
    budget_share: float = option(0.2, "part of the budget for start moments", gt=0, lt=1)
    optimizer: str = option("adam", "of the images or prior", choices=("adam", "sgd"))
    lr: float | None = option(
        None,
        "learning rate; default 0.02 for pixels (in units of 0.3 of their range), for a prior 0.001, from noise 0.01",
        gt=0,
    )
    momentum: float = option(0.5, "of sgd; adam has its own", ge=0, lt=1)
    replay: int = option(
        4, "further steps after each question, against answers drawn from all; they cost no privacy", ge=0
    )
    trust: bool = option(True, "gm: let a unit count by the estimated part of its gradient that is not noise")
    lr_decay: bool = option(True, "let the learning rate of the images fall to zero along a half cosine")


def _published(per_class: int) -> dict[str, Any]:
    stages, epochs = PUBLISHED[per_class]
    network = {"width": 128, "networks": 1000, "stages": stages, "queries": 10, "epochs": epochs, "batch_size": 256}
    return {"per_class": per_class, **network, "optimizer": "sgd", "lr": 0.1, **PLAIN}


class PrivateSet(Staged, Synthesizer):
    """Gradient matching at the gate."""

    name = "private-set"
    Config = Config
    recipes: ClassVar = {
        "paper": _published(10),
        **{f"paper-{n}": _published(n) for n in (1, 20, 50)},
        "prior": _published(10) | {"stages": 2, "epochs": 10, "prior": True, "optimizer": "adam", "lr": 0.01},
    }

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        """Moments, where the images start, and the loop."""
        c = self.config
        if started(c) == "noise":
            return Compose({"match": Part(self._matching())}, prefixed=False)
        parts = {"moments": Part(Moments(), c.budget_share), "match": Part(self._matching())}
        return Compose(parts, prefixed=False)

    def _matching(self) -> Matching:
        return Matching(self.config)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return learned["match"]

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return picked(state["x"], labels)


def started(c: Config) -> str:
    """How the images start."""
    return c.start or "moments"


class Matching(Stage):
    """Images whose gradients match those of the private ones, by the loop "match"."""

    def __init__(self, config: Config):
        self.config = config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One loop of weight 1."""
        c = self.config
        self._check(info)
        steps = c.networks * c.stages * c.queries
        match = dp_sgd(
            "match", info, batch=c.batch_size or min(LARGEST_BATCH, info.units), steps=steps, bound=c.clip_norm
        )
        with torch.device("meta"):  # draws nothing; refuses sides that it cannot take
            size = sum(p.numel() for p in ConvNet(info.shape, len(info.classes), c.width).parameters())
        seconds, memory = self._cost(info, match, size)
        return Plan((match,), seconds=seconds, memory_mb=memory)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "x", the images [K, S, C, H, W]; they start as draws of the stage "moments" if that was asked."""
        c, classes, release = self.config, len(info.classes), gate.release("match")
        y = torch.arange(classes, device=self.device).repeat_interleave(self._each(info))
        images = self._first(info, earlier, y).to(self.device)
        net = ConvNet(info.shape, classes, c.width).to(self.device)
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimiser = self._optimiser(images)
        answers, a_network = Answers(MOST_KEPT if c.replay else 1), c.stages * c.queries
        noise = release.noise_multiplier * release.bound / (release.sample_rate * info.units)
        for t in gate.loop("match", {"images": images, "optimiser": optimiser, "net": net, "answers": answers}):
            if t % a_network == 0:
                renew(net, ConvNet(info.shape, classes, c.width))
            elif t % c.queries == 0:
                train_on(net, images().detach(), y, c.epochs, c.inner_lr)
            move = drawn_move(*MOVE) if c.augment else None
            with fast(c.width >= WIDE):
                grads = gate.grad("match", _loss(move), net)
            if c.lr_decay:
                optimiser.param_groups[0]["lr"] = self._rate * cosine(t, release.steps, warm=1)
            new = answers.add(grads, net, move)
            for i in range(1 + c.replay):
                self._step(images, y, optimiser, net, answers.draw() if i else new, noise)
        return {"x": images().detach().unflatten(0, (classes, -1))}

    # ------------------------------------------------------------------ parts of the plan

    @property
    def _rate(self) -> float:
        c = self.config
        if c.lr or not c.prior:
            return float(c.lr or 0.02)
        return 0.001 if started(self.config) == "moments" else 0.01  # a faster one forgets what the prior has learned

    def _each(self, info: PublicInfo) -> int:
        return each(self.config.per_class, 10, info)

    def _check(self, info: PublicInfo) -> None:
        """What the declared facts do not allow, before anything is asked."""
        classes = len(info.classes)
        if classes < 2:
            raise ConfigError(f"classes = {list(info.classes)}: private-set matches a classifier; declare at least two")
        self._each(info)

    def _cost(self, info: PublicInfo, match: Release, size: int) -> tuple[float, float]:
        """(seconds, MB) on the reference machine; maps grow as pixels x width, products as pixels x width^2."""
        c, pixels = self.config, math.prod(info.shape[1:])
        private = match.sample_rate * info.units
        public = (3.5 * (1 + c.replay) + 0.6 * c.epochs) * len(info.classes) * self._each(info)
        an_image = pixels * c.width * (1.3e-8 + 1.5e-10 * c.width)
        maps = (1.3e-3 + 4e-4 * len(info.classes) * self._each(info)) * pixels * c.width
        memory = 500 + maps + 8e-6 * size * (min(MOST_KEPT, match.steps) if c.replay else 1)
        taught = TAUGHT if started(self.config) == "moments" else 0
        prior = (match.steps * (1 + c.replay) + taught) * len(info.classes) * self._each(info) if c.prior else 0
        return match.steps * (private + public) * an_image + prior * PRIOR_SECONDS, memory

    # ------------------------------------------------------------------ parts of the loop

    def _first(self, info: PublicInfo, earlier: Earlier, y: torch.Tensor) -> nn.Module:
        """The module that gives the images, before any step."""
        c = self.config
        drawn = None
        if "moments" in earlier:
            drawn = Moments().draw(earlier["moments"], info, y.cpu())
        if c.prior:
            prior = CodeImages(info.shape, len(info.classes), y).to(self.device)
            return prior if drawn is None else taught(prior, drawn.to(self.device))
        return Pixels(0.5 + UNIT * torch.randn(len(y), *info.shape) if drawn is None else drawn)

    def _optimiser(self, images: nn.Module) -> torch.optim.Optimizer:
        c = self.config
        if c.optimizer == "sgd":
            return torch.optim.SGD(images.parameters(), self._rate, momentum=c.momentum)
        return torch.optim.Adam(images.parameters(), self._rate)

    def _step(
        self,
        images: nn.Module,
        y: torch.Tensor,
        optimiser: torch.optim.Optimizer,
        net: ConvNet,
        answer: Answer,
        noise: float,
    ) -> None:
        """One step of the images towards an answer of the gate: public arithmetic."""
        c = self.config
        got = gradients(net, moved(images(), answer.move), y, answer.parameters)
        optimiser.zero_grad()
        distance(c.distance, got, answer.grads, noise if c.trust else None).backward()
        optimiser.step()
        if isinstance(images, Pixels):
            images.clamp()


class Pixels(nn.Module):
    """Images whose pixels are free, kept in units of the network's."""

    def __init__(self, x: torch.Tensor):
        super().__init__()
        self.u = nn.Parameter(x / UNIT)
        self.clamp()

    def forward(self) -> torch.Tensor:
        """The images [n, C, H, W]."""
        return self.u * UNIT

    def clamp(self) -> None:
        """Back into [0, 1]."""
        with torch.no_grad():
            self.u.clamp_(0, 1 / UNIT)


def taught(prior: CodeImages, x: torch.Tensor) -> CodeImages:
    """The generator, trained to draw the images x [n, C, H, W] for its codes. Free: reads nothing but x."""
    adam = torch.optim.Adam(prior.parameters(), TAUGHT_RATE)
    for t in range(TAUGHT):
        adam.param_groups[0]["lr"] = TAUGHT_RATE * cosine(t, TAUGHT, warm=1)
        adam.zero_grad()
        F.binary_cross_entropy(prior(), x).backward()
        adam.step()
    return prior


def _loss(move: torch.Tensor | None) -> Loss:
    """Cross-entropy of one image, moved as the set is."""

    def loss(net: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(net(moved(x[None], move)).float(), y[None])

    return loss
