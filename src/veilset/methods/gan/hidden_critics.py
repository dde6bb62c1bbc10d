"""Wasserstein critics of single shards, as functions that the gate's enclave maps over many shards or asks about one.

Nothing here keeps a state: weights come in `Hidden.state` and go out as values, and gradients are taken with
`torch.func`, so that all shards are trained in one pass and a critic that answered leaves nothing behind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad

from veilset.methods.base import State
from veilset.networks.critics import score
from veilset.privacy.enclave import Hidden

DRIFT = 1e-3  # weight of the mean squared score of records (Karras et al. 2018, arXiv 1710.10196)


class Critics:
    """WGAN-GP critics of one architecture (Gulrajani et al. 2017, arXiv 1704.00028).

    Args:
        net: lends its structure and initial weights, which are public.
        rate: learning rate of Adam.
        penalty: weight of the gradient penalty.
        batch: records a step.
        waves: orthonormal directions [d, C H W] that the net reads, as images [1, 1, d]; None: it reads pixels. What
            does not see more than these has no slope elsewhere, and takes a fraction of the time.
    """

    def __init__(self, net: nn.Module, rate: float, penalty: float, batch: int, waves: torch.Tensor | None = None):
        self._waves = waves
        self._net, self._rate, self._penalty, self._batch = net, rate, penalty, batch
        self.initial = {name: p.detach().clone() for name, p in net.named_parameters()}

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """Images [..., C, H, W] as the net reads them; all functions below but `warmed` take them so."""
        return x if self._waves is None else (x.flatten(-3) @ self._waves.T)[..., None, None, :]

    def scores(self, weights: State, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Scores [n] of images for their labels."""
        return score(functional_call(self._net, weights, (x, y)), y)

    def loss(self, weights: State, real: torch.Tensor, fake: torch.Tensor, y: torch.Tensor, there: Any) -> torch.Tensor:
        """Of records and generated images of the same labels [n, C, H, W]; `there` is 0 where a shard is empty."""
        between = fake + torch.rand(len(y), 1, 1, 1, device=y.device) * (real - fake)
        slope = grad(lambda x: self.scores(weights, x, y).sum())(between).flatten(1)
        steep = ((slope.square().sum(1) + 1e-12).sqrt() - 1).square().mean()
        own = self.scores(weights, real, y)
        told = DRIFT * own.square().mean() - own.mean()
        return self.scores(weights, fake, y).mean() + there * told + self._penalty * steep

    def warmed(self, h: Hidden, pupil: Any, steps: int, fakes: torch.Tensor | None = None) -> State:
        """A critic of the shard, trained against `fakes` [K, each, ...], images by class as it sees them; None: against
        a generator of its own, which starts as `pupil` and is thrown away."""
        if fakes is not None:
            weights = self._told(h, fakes, self._drawn(), steps)
            return {name: v + 0 * h.count for name, v in weights.items()}
        weights, made = self._drawn(), {name: p.detach() for name, p in pupil.named_parameters()}
        ours, theirs = Adam(self._rate), Adam(self._rate)
        codes = (self._batch, pupil.code)
        for t in range(steps):
            x, y, there = h.batch(self._batch)
            x, fake = self.seen(x), self.seen(_generated(pupil, made, torch.randn(codes, device=x.device), y))
            weights = ours.step(weights, grad(self.loss)(weights, x, fake, y, there))
            if t % 5 == 4:
                z = torch.randn(codes, device=x.device)

                def pleased(made: State, weights: State = weights, z: Any = z, y: Any = y) -> torch.Tensor:
                    return -self.scores(weights, self.seen(_generated(pupil, made, z, y)), y).mean()

                made = theirs.step(made, grad(pleased)(made))
        return {name: v + 0 * h.count for name, v in weights.items()}  # a model each, where no step was taken, too

    def answered(
        self, h: Hidden, fakes: torch.Tensor, x: torch.Tensor, y: torch.Tensor, steps: int, basis: torch.Tensor | None
    ) -> torch.Tensor:
        """The gradients of the shard's critic on images x [B, C, H, W], after some steps against `fakes`.

        Args:
            h: the shard; its state becomes that of the critic.
            fakes: generated images by class [K, each, C, H, W].
            x: images that are asked about, with labels y [B].
            steps: of the critic before it answers.
            basis: directions [d, C H W] in which a row lies; None: those, or the pixels, that the net reads.

        Returns:
            [B, d].
        """
        weights = self._told(h, fakes, {name: h.state[name] for name in self.initial}, steps)
        h.state.update(weights)
        return self.slopes(weights, x, y, basis)

    def slopes(self, weights: State, x: torch.Tensor, y: torch.Tensor, basis: torch.Tensor | None) -> torch.Tensor:
        """The gradient of each score on its image: [B, d], see `answered`."""
        rows = grad(lambda x: self.scores(weights, x, y).sum())(x).flatten(1)
        return rows if basis is None else rows @ basis.T

    def _drawn(self) -> State:
        """Initial weights, drawn anew with the deviation of the net's: what all shards start from would move all their
        answers alike, and be learned as if it were theirs."""
        return {
            name: v.square().mean().sqrt() * torch.randn(v.shape, device=v.device) for name, v in self.initial.items()
        }

    def _told(self, h: Hidden, fakes: torch.Tensor, weights: State, steps: int) -> State:
        """The weights after some steps on records of the shard beside generated images of the same labels."""
        adam = Adam(self._rate)
        for _ in range(steps):
            real, labels, there = h.batch(self._batch)
            real = self.seen(real)
            which = torch.randint(fakes.shape[1], (self._batch,), device=real.device)
            weights = adam.step(weights, grad(self.loss)(weights, real, fakes[labels, which], labels, there))
        return weights


class Adam:
    """Adam with betas (0.5, 0.9), as a function of weights: `torch.optim` changes them in place, no map can."""

    def __init__(self, rate: float):
        self._rate, self._taken = rate, 0
        self._mean: State = {}
        self._square: State = {}

    def step(self, weights: State, grads: State) -> State:
        """The weights after one more step."""
        self._taken += 1
        a, b = 1 - 0.5**self._taken, 1 - 0.9**self._taken
        self._mean = {k: 0.5 * self._mean.get(k, 0.0) + 0.5 * g for k, g in grads.items()}
        self._square = {k: 0.9 * self._square.get(k, 0.0) + 0.1 * g.square() for k, g in grads.items()}
        return {
            k: w - self._rate * (self._mean[k] / a) / ((self._square[k] / b).sqrt() + 1e-8) for k, w in weights.items()
        }


def _generated(net: Any, weights: State, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = functional_call(net, weights, (z, y))
    return out
