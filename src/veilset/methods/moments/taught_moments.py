"""Taught-Moments: images of dp-moments, labelled by a teacher that was learned in the same run.

Idea: ours. A Gaussian of a class also draws images that look like another class, and a classifier learns their wrong
labels. A teacher (dp-scatter) needs little of a budget, and tells what an image shows better than the Gaussian that it
was drawn from. So images are drawn for the wanted labels, but kept under the label that the teacher gives, and drawn
again for labels that are still wanted.

Private access, shares of the budget set by `budget_share`:
  mean, spread, cells, within   the sums of dp-moments
  detail                        histograms of grey levels and of fine bands, from which drawn images get the edges and
                                the black ground that low frequencies lack (module `texture`); a fiftieth of the images'
                                part; left out where the declared units are too few for it
  linear                        the clipped gradients of dp-scatter
  choice                        for each variant of the drawn images (with detail or without, augmented after labelling
                                or not) the noisy count of private images that a CNN trained on it classifies
                                correctly (module `selection`); as much of the budget as such counts need; left out
                                where that is more than a twentieth
Everything after is post-processing, free. Two things make the classifier work on synthetic images:
  * It learns from private images that are reduced to the low frequencies of dp-moments, and reads drawn images so.
    A teacher of whole images is better on those and worse on drawn ones, whose fine structure belongs to no class.
  * Its offsets are then set so that drawn images of all classes in equal numbers get all labels in equal numbers. The
    drawn images lack detail, and a teacher takes what lacks detail for one class (on Fashion-MNIST, for shirts).
"""

from __future__ import annotations

import math
from collections.abc import Container
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods.base import BATCH, State, Synthesizer
from veilset.methods.moments import selection, texture
from veilset.methods.moments.dp_moments import Config as MomentsConfig
from veilset.methods.moments.dp_moments import Moments, cells_for, likelihood
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged, learned_by, named
from veilset.methods.teachers import dp_scatter
from veilset.networks.dct import low_frequencies
from veilset.privacy.plan import Plan
from veilset.privacy.spec import Privacy

DETAIL, EVENED, CHOICE = "detail", "evened", "choice"  # stages
CURVES, MOVED = "detail.curves", "choice.moved"  # in the state
FREQUENCIES = 136  # as many as dp-moments has by default
CELLS = 0.055  # half of dp-moments': what fewer, broader Gaussians draw wrongly, the teacher puts under the right label
ROUNDS = 8  # of drawing again; a label that still has no image then keeps one that was drawn for it
TRIED, TURNS = 300, 200  # drawn images per class by which the offsets are set, and steps of setting them


@dataclass(frozen=True, kw_only=True)
class Config:
    budget_share: float = option(
        0.3, "the teacher's part of the budget, in units of 1 / noise_multiplier^2; images get the rest", gt=0, lt=1
    )
    steps: int | None = option(None, "gradient steps of the teacher; default as dp-scatter", ge=1)
    batch_size: int | None = option(None, "its expected units per step; default as dp-scatter", ge=1)
    n_components: int | None = option(
        None, "Gaussians per class; default 0.055 / sqrt(noise_multiplier K / N), from 1 to 16", ge=1, le=64
    )
    mc_samples: int = option(1000, "Monte Carlo samples that correct moments for clamping; as dp-moments", ge=0)
    texture: bool = option(True, "match histograms of grey levels and fine bands to those of the private images")
    selection: bool = option(True, "choose by noisy counts of private images whether to match them, and to augment")


class TaughtMoments(Staged, Synthesizer):
    """Class Gaussians for images, a private linear classifier for their labels."""

    name = "taught-moments"
    Config = Config
    recipes: ClassVar = {"plain": {"texture": False, "selection": False}}

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        """Images, their texture, the teacher, and the choice among forms."""
        c = self.config
        parts, told = self._parts(info, privacy)
        cells = c.n_components or cells_for(info, privacy, CELLS)
        images = Moments(
            MomentsConfig(basis_size=FREQUENCIES, n_components=cells, mc_samples=c.mc_samples), sized=privacy
        )
        stages = {"images": Part(images)}
        if DETAIL in parts:
            stages[DETAIL] = Part(texture.Texture(images, "images"), parts[DETAIL])
        teacher = dp_scatter.Config(steps=c.steps, batch_size=c.batch_size)
        stages["teacher"] = Part(dp_scatter.Linear(teacher, blurred, privacy), c.budget_share)
        stages[EVENED] = Part(Evened(), {})
        if CHOICE in parts:
            draws = selection.Selection(_kinds(parts), lambda e: [partial(labelled, form, info) for form in forms(e)])
            stages[CHOICE] = Part(draws, parts[CHOICE])
        memory = selection.MEMORY if CHOICE in parts else 0.0
        return Compose(stages, prefixed=False, memory_mb=memory, warnings=told)

    def _parts(self, info: PublicInfo, privacy: Privacy) -> tuple[dict[str, float], tuple[str, ...]]:
        """(parts of the budget for what is asked beside images and teacher, what is left out for want of units)."""
        parts, told = dict[str, float](), list[str]()
        if self.config.texture:
            part = (1 - self.config.budget_share) * texture.SHARE
            if info.units >= (least := texture.least(info, privacy, part)):
                parts[DETAIL] = part
            else:
                told.append(_left_out(DETAIL, "so that images stay smooth", info, least))
        if self.config.selection:
            kinds = _kinds(parts)
            if info.units >= (least := selection.least(privacy, kinds)):
                parts[CHOICE] = selection.share(info, privacy, kinds)
            else:
                told.append(_left_out(CHOICE, "so that images are not augmented", info, least))
        return parts, tuple(told)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        several = forms(learned)
        if CHOICE not in learned:
            return several[0]
        return several[int(learned[CHOICE]["which"])] | {MOVED: learned[CHOICE]["moved"]}

    def _notes(self, state: State) -> tuple[str, ...]:
        form = "with fine detail" if CURVES in state else "without fine detail"
        return (f"draws {form}, {'each augmented' if state.get(MOVED) else 'not augmented'}",)

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        """likelihood: log density of the Gaussian cells."""
        return likelihood(learned_by("images", self.fitted()[0]), x, y)

    def labels(self, x: torch.Tensor) -> torch.Tensor:
        """What the classifier of a fitted model calls images [n, C, H, W] in [0, 1], all classes equally often."""
        state, _ = self.fitted()
        logits = torch.cat([_scores(state, part) for part in x.split(BATCH)])
        return (logits + even_out(logits)).argmax(1)

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        images = labelled(state, info, labels)
        return selection.moved(images) if state.get(MOVED) else images


class Evened(Stage):
    """Offsets of the teacher for each form of the drawn images; asks nothing, for it reads what was learned alone."""

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Nothing."""
        return Plan(())

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "bias", [forms, K], with which the drawn images of a form get all labels equally often."""
        labels = torch.arange(len(info.classes)).repeat(TRIED).split(BATCH)
        logits = (torch.cat([_scores(f, drawn(f, info, part)) for part in labels]) for f in forms(earlier))
        return {"bias": torch.stack([earlier["teacher"]["bias"].cpu() + even_out(x) for x in logits])}


def forms(learned: Earlier) -> list[State]:
    """States to choose from, the preferred one first: with texture, and without; evened, if that was learned."""
    moments = named({"images": learned["images"]})
    kinds = [moments | named({DETAIL: learned[DETAIL]}), moments] if DETAIL in learned else [moments]
    teacher = {name: v.detach().cpu() for name, v in named({"teacher": learned["teacher"]}).items()}
    if EVENED not in learned:
        return [kind | teacher for kind in kinds]
    return [kind | teacher | {"teacher.bias": b} for kind, b in zip(kinds, learned[EVENED]["bias"], strict=True)]


def labelled(state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
    """Images that the teacher gives these labels, but for the few that it gives to none in all rounds."""
    out, open_ = torch.zeros(len(labels), *info.shape), torch.arange(len(labels))
    for _ in range(ROUNDS):
        new = drawn(state, info, labels[open_])
        taught = _scores(state, new).argmax(1)
        out[open_] = new  # what has no better image by the last round keeps this
        left = []
        for k in range(len(info.classes)):
            wanted, given = open_[labels[open_] == k], new[taught == k]
            n = min(len(wanted), len(given))
            out[wanted[:n]] = given[:n]
            left.append(wanted[n:])
        open_ = torch.cat(left).sort().values
        if not len(open_):
            break
    return out


def drawn(state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
    """Images of the Gaussians of these labels, as the teacher will see them."""
    x = Moments().draw_many(learned_by("images", state), info, labels)
    return texture.apply(state[CURVES], x, info) if CURVES in state else x


def _kinds(asked: Container[str]) -> int:
    """How many kinds of images there are to choose from."""
    return 1 + (DETAIL in asked)


def _scores(state: State, x: torch.Tensor) -> torch.Tensor:
    """The teacher's scores [n, K] of images [n, C, H, W] in [0, 1]."""
    return dp_scatter.scores(learned_by("teacher", state), x, blurred)


def blurred(x: torch.Tensor) -> torch.Tensor:
    """Features of images [..., C, H, W] that are reduced to their low frequencies first."""
    return dp_scatter.seen(reduced(x))


def reduced(x: torch.Tensor) -> torch.Tensor:
    """Images [..., C, H, W] in [0, 1] with the low frequencies of the drawn ones only, in [0, 1]."""
    basis = _basis(tuple(x.shape[-3:])).to(x.device)
    return (x.flatten(-3) @ basis.T @ basis).clamp(0, 1).unflatten(-1, x.shape[-3:])


@cache
def _basis(shape: tuple[int, int, int]) -> torch.Tensor:
    return low_frequencies(shape, FREQUENCIES)


def even_out(logits: torch.Tensor) -> torch.Tensor:
    """Offsets [K] by which the mean probability of each class over logits [n, K] is the same."""
    offset = torch.zeros(logits.shape[1])
    for _ in range(TURNS):
        offset = offset - 0.2 * ((logits + offset).softmax(1).mean(0) * len(offset)).clamp_min(1e-6).log()
    return offset


def _left_out(name: str, so: str, info: PublicInfo, least: float) -> str:
    """Why a release is not in the plan. (Images too small for bands are too small for the teacher.)"""
    needed = math.ceil(least / 100) * 100
    return (
        f"release {name!r} is left out, {so}: at this epsilon its noise needs about {needed} units, "
        f"and {info.units} are declared"
    )
