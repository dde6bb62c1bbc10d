"""Taught-Moments: images of dp-moments, labelled by a teacher that was learned in the same run.

Idea: ours. A Gaussian of a class also draws images that look like another class, and a classifier learns their wrong
labels. A teacher (dp-scatter) needs little of a budget, and tells what an image shows better than the Gaussian that it
was drawn from. So images are drawn for the wanted labels, but kept under the label that the teacher gives, and drawn
again for labels that are still wanted.

Private access, shares of the budget set by `share`:
  mean, spread, cells, within   the sums of dp-moments
  linear                        the clipped gradients of dp-scatter
Everything after is free. Two things make the teacher fit for images that are no photographs:
  * It learns from private images that are reduced to the low frequencies of dp-moments, which is all that the drawn
    images have.
  * Its offsets are then set so that drawn images of all classes in equal numbers get all labels in equal numbers. The
    drawn images lack detail, and a teacher takes what lacks detail for one class (on Fashion-MNIST, for shirts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods import dp_scatter
from veilset.methods.base import State, Synthesizer
from veilset.methods.dp_moments import DPMoments
from veilset.methods.training import loop_multiplier
from veilset.networks.dct import low_frequencies
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

IMAGES, TEACHER = "images.", "teacher."
FREQUENCIES = 136  # as many as dp-moments has by default
ROUNDS = 8  # of drawing again; a label that still has no image then keeps one that was drawn for it
TRIED, TURNS = 300, 200  # drawn images a class by which the offsets are set, and steps of setting them


@dataclass(frozen=True, kw_only=True)
class Config:
    share: float = option(
        0.3, "the teacher's part of the budget, in units of 1 / noise_multiplier^2; images get the rest", gt=0, lt=1
    )
    steps: int | None = option(None, "gradient steps of the teacher; default as dp-scatter", ge=1)
    batch: int | None = option(None, "its expected units a step; default as dp-scatter", ge=1)
    draws: int = option(1000, "draws that correct the moments of a cell for clamping; as dp-moments", ge=0)


class TaughtMoments(Synthesizer):
    """Class Gaussians for images, a private linear classifier for their labels."""

    name = "taught-moments"
    Config = Config

    @property
    def _images(self) -> DPMoments:
        return DPMoments(size=FREQUENCIES, draws=self.config.draws)

    @property
    def _teacher(self) -> dp_scatter.Config:
        return dp_scatter.Config(steps=self.config.steps, batch=self.config.batch)

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        images = self._images._plan(info, privacy)
        linear = dp_scatter.release(self._teacher, info, privacy.epsilon)
        linear = replace(linear, weight=_weight(linear, images, privacy, self.config.share))
        teacher = dp_scatter.cost(info, linear)
        return Plan(
            (*images.releases, linear),
            seconds=images.seconds + teacher.seconds,
            memory_mb=max(images.memory_mb, teacher.memory_mb),
        )

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        images = self._images._fit(gate, info, plan)
        teacher = dp_scatter.learn(gate, self._teacher, info, plan["linear"], self.device, blurred)
        teacher = {name: value.detach().cpu() for name, value in teacher.items()}
        y = torch.arange(len(info.classes)).repeat(TRIED)
        parts = [self._images._sample(images, info, part) for part in y.split(1000)]
        logits = torch.cat([dp_scatter.scores(teacher, part, blurred) for part in parts])
        teacher["bias"] = teacher["bias"] + even_out(logits)
        return {IMAGES + k: v for k, v in images.items()} | {TEACHER + k: v for k, v in teacher.items()}

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        images, teacher = (
            {name.removeprefix(kind): value for name, value in state.items() if name.startswith(kind)}
            for kind in (IMAGES, TEACHER)
        )
        out, open_ = torch.zeros(len(labels), *info.shape), torch.arange(len(labels))
        for _ in range(ROUNDS):
            drawn = self._images._sample(images, info, labels[open_])
            taught = dp_scatter.scores(teacher, drawn, blurred).argmax(1)
            out[open_] = drawn  # what has no better image by the last round keeps this
            left = []
            for k in range(len(info.classes)):
                wanted, given = open_[labels[open_] == k], drawn[taught == k]
                n = min(len(wanted), len(given))
                out[wanted[:n]] = given[:n]
                left.append(wanted[n:])
            open_ = torch.cat(left).sort().values
            if not len(open_):
                break
        return out


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Features of images [..., C, H, W] that are reduced to their low frequencies first."""
    basis = _basis(tuple(x.shape[-3:])).to(x.device)
    return dp_scatter.seen((x.flatten(-3) @ basis.T @ basis).clamp(0, 1).unflatten(-1, x.shape[-3:]))


@cache
def _basis(shape: tuple[int, int, int]) -> torch.Tensor:
    return low_frequencies(shape, FREQUENCIES)


def even_out(logits: torch.Tensor) -> torch.Tensor:
    """Offsets [K] by which the mean probability of each class over logits [n, K] is the same."""
    offset = torch.zeros(logits.shape[1])
    for _ in range(TURNS):
        offset = offset - 0.2 * ((logits + offset).softmax(1).mean(0) * len(offset)).clamp_min(1e-6).log()
    return offset


def _weight(linear: Release, images: Plan, privacy: Privacy, share: float) -> float:
    """The weight with which the loop costs `share` of the budget, where the images' sums cost the rest.

    Shares are of mu^2, where they add up. Only the split follows this; the price is exact.
    """
    if not privacy.private:
        return 1.0
    one = gaussian_noise_multiplier(privacy.epsilon, privacy.delta)
    alone = math.sqrt(sum(r.steps / r.weight**2 for r in images.releases))  # multiplier of the sums' scale, if alone
    noise = loop_multiplier(math.sqrt(share) / one, linear.sample_rate, linear.steps)
    return noise * math.sqrt(1 - share) / (one * alone)
