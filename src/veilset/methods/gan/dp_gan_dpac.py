"""DP-GAN-DPAC: gs-wgan, whose hidden critics are joined by a classifier that knows generated and real images.

Paper: Chen, Liu, Ma, Nepal, Xu 2023, "Private Image Generation with Dual-Purpose Auxiliary Classifier", CVPR 2023
(algorithm read in the authors' code).
Idea: images are useful if a classifier learns from them what real images show (g2r), and if one of real images knows
them (r2g). So at each step a new classifier learns from generated images, then from the records of the shard that
answers, and the generator learns to please critic and classifier together.

Private access: as gs-wgan, "critic". Critic and classifier see the same shard, so their gradients are added up, clipped
and noised once: the classifier costs nothing.

The classifier's score is a margin, its logit of the label less the mean of the others, with a gradient penalty, so
that it is about as steep as a critic. Four parameters leave out a part each: `g2r`, `r2g`, `sequential` and `fresh`.

Differs from the paper and its code:
  * Rows stay `rows` throughout. The authors' code releases 1000 a step from the classifier's start on, by two paths,
    with noise for 32 by one: what it prints as 10 is of order 10,000 (`veilset claim dp-gan-dpac`).
  * The rest as gs-wgan has it: one charge a step, nothing kept between steps, shards by lot, and the start from class
    moments, which has most of the images' quality; `start_share=0` is without, `generator_lr=0` the start alone.
  * The generated images of the first phase are public, so where a classifier is fresh that phase is taken once a step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.func import functional_call, grad

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.methods.base import State
from veilset.methods.gan import gs_wgan
from veilset.methods.gan.common import Fakes
from veilset.methods.gan.hidden_critics import DRIFT, Adam, Critics
from veilset.networks.critics import one_hot
from veilset.networks.published_gans import SpectralCritic
from veilset.privacy.enclave import Hidden
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy

OWN = "classifier."  # in front of the names of a classifier that is kept, among a critic's weights


@dataclass(frozen=True, kw_only=True)
class Config(gs_wgan.Config):
    classifier_weight: float = option(
        0.8, "of the classifier in what the generator pays; the critic has the rest; 0: gs-wgan", ge=0, le=1
    )
    classifier_steps: int = option(3, "steps of a classifier in each of its two phases", ge=1)
    classifier_from: float = option(0.0, "part of the training after which the classifier joins", ge=0, lt=1)
    g2r: bool = option(True, "the classifier learns from generated images")
    r2g: bool = option(True, "the classifier learns from the records of the shard")
    sequential: bool = option(True, "from generated images first, then from records; or from both in each step")
    fresh: bool = option(True, "a new classifier at each step; or one a shard that is kept, in turn only")


class DPGANDPAC(gs_wgan.GSWGAN):
    """Hidden critics, and a classifier of generated and real images, whose gradients are noised together."""

    name = "dp-gan-dpac"
    Config = Config
    recipes: ClassVar = {
        "paper": gs_wgan.PUBLISHED | {"classifier_weight": 0.2, "classifier_from": 0.3, "classifier_steps": 10}
    }

    def _game(self) -> gs_wgan.Sanitised:
        return DualPurpose(self.config)


class DualPurpose(gs_wgan.Sanitised):
    """A generator that learns from hidden critics and classifiers."""

    config: Config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """As gs-wgan's.

        Raises:
            ConfigError: a classifier would be kept by shards that are drawn in secret.
        """
        c = self.config
        if not c.fresh and c.mechanism != "round-robin":
            raise ConfigError(
                f"fresh = False with mechanism = {c.mechanism!r}: a classifier that is kept voids what a secret draw "
                "saves; take mechanism='round-robin', or a fresh one"
            )
        return super().plan(info, budget)

    def _asked(self, info: PublicInfo, critics: Critics, fakes: Fakes) -> gs_wgan.Asking:
        c, waves, without = self.config, self._rest(info), super()._asked(info, critics, fakes)
        w = c.classifier_weight

        def asked(x: torch.Tensor, y: torch.Tensor, now: float) -> gs_wgan.Answer:
            critic = without(x, y, now)
            if not w or now < c.classifier_from:
                return critic
            classifiers = Classifiers(self._classifier(info).to(self.device), c, fakes, self.read(info))
            ready, seen = classifiers.ready() if c.fresh else None, classifiers.seen(x)

            def answer(h: Hidden) -> torch.Tensor:
                return (1 - w) * critic(h) + w * classifiers.slopes(classifiers.taught(h, ready), seen, y, waves)

            return answer

        return asked

    def _classifier(self, info: PublicInfo) -> Any:
        if self.config.critic == "published":
            return SpectralCritic(info.shape, len(info.classes), self.config.width or 64, len(info.classes))
        return self.network(info)


class Classifiers(Critics):
    """Classifiers of one architecture, scored by margins.

    Args:
        net: lends its structure and initial weights; its last heads, one a class, are the logits.
        config: parameters.
        fakes: generated images.
        waves: as of `Critics`.
    """

    def __init__(self, net: Any, config: Config, fakes: Fakes, waves: torch.Tensor | None = None):
        super().__init__(net, config.lr, config.penalty, config.batch_size, waves)
        self._config, self._classes = config, len(fakes.x)
        self._fakes = self.seen(fakes.x.flatten(0, 1)), fakes.y

    def scores(self, weights: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Margins [n] of the labels."""
        return margin(functional_call(self._net, weights, (x, y))[:, -self._classes :], y)

    def paid(self, weights: State, x: torch.Tensor, y: torch.Tensor, there: Any = 1.0) -> torch.Tensor:
        """The loss on images x [n, C, H, W] with labels y [n]; `there` is 0 for blanks."""
        own = self.scores(weights, x, y)
        slope = grad(lambda x: self.scores(weights, x, y).sum())(x).flatten(1)
        steep = ((slope.square().sum(1) + 1e-12).sqrt() - 1).square()
        return there * (DRIFT * own.square() - own + self._penalty * steep).mean()

    def ready(self, weights: State | None = None) -> State:
        """Weights, by default the initial ones, after the first phase, on generated images."""
        weights, c = weights or self.initial, self._config
        if c.g2r and c.sequential:
            weights = self._after(weights, lambda w: self.paid(w, *self._fakes))
        return weights

    def taught(self, h: Hidden, ready: State | None) -> State:
        """Weights after the second phase, on the shard's records; from `ready`, or from what the shard kept."""
        c = self._config
        weights = ready or self.ready({name: h.state.get(OWN + name, v) for name, v in self.initial.items()})
        if c.r2g or not c.sequential:

            def both(w: State) -> torch.Tensor:
                x, y, there = h.batch(self._batch)
                total = self.paid(w, self.seen(x), y, there) if c.r2g else there * 0
                mixed = c.g2r and not c.sequential
                return total + self.paid(w, *self._fakes) if mixed else total

            weights = self._after(weights, both)
        if ready is None:
            h.state.update({OWN + name: v for name, v in weights.items()})
        return weights

    def _after(self, weights: State, loss: Callable[[State], torch.Tensor]) -> State:
        adam = Adam(self._rate)
        for _ in range(self._config.classifier_steps):
            weights = adam.step(weights, grad(loss)(weights))
        return weights


def margin(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The logit of the label less the mean of the others, [n], of logits [n, K], K > 1, and labels [n]."""
    own = (logits * one_hot(y, logits.shape[1]).to(logits)).sum(1)
    return own - (logits.sum(1) - own) / (logits.shape[1] - 1)
