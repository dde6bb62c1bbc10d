"""DP-Condense: a few images per class whose embeddings by random networks have the private images' means.

Papers: Zheng and Li 2023, "Differentially Private Dataset Condensation" (NDPDC, OpenReview H8XpqEkbua_); distribution
matching without privacy: Zhao and Bilen 2023, arXiv 2110.04181, equation 5; subspaces and sums that are used again:
Zheng et al. 2025, arXiv 2508.01749.
Idea: a classifier that is trained on few images does well on others if both look alike to networks that know nothing.
What random networks see of the private images is a mean, so it needs one pass forwards and one noisy sum; all the work
of making images to that mean is free.

Private access:
  mean, spread, cells, within   the sums of dp-moments, for a part of the budget (start = "moments")
  embedding                     class sums of embeddings by random networks, together one vector per image
Everything after is free. Images start as draws of dp-moments, which also say beforehand where embeddings lie: the sum
is of what an embedding has beyond the mean of the drawn images of its class, so that the bound is small. Along axes in
which the answer is no larger than its noise, the mean of the drawn images is kept.

Differs from the papers and their code:
  * One sum over all images by several networks. `sums` and `group_size` give the published schedule: a fresh network
    for each of many sums over small Poisson groups. For the same budget one sum over all has the least noise.
  * Noise is drawn once for each sum, and only the noisy sum is kept. The released code of arXiv 2508.01749 keeps the
    exact sums and draws new noise whenever one is used, 20 to 200 times for each that it pays for.
  * Axes come from images that were paid for in the same run, not from public images. None is left out: the noise of an
    axis does not depend on how many others are asked for, and what is only noise is dropped afterwards.
  * Group sizes follow from declared sizes. The published rate is of the true size of a class, which is private.
  * The noise's part of a difference is taken off (James and Stein), axis by axis.
  * Images are changed wave by wave, fine waves less, by Adam; the published code changes pixels by gradient descent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from veilset.core.config import option
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import cosine
from veilset.methods.base import State, Synthesizer
from veilset.methods.condensation.common import each, picked
from veilset.methods.moments.dp_moments import Moments
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged
from veilset.networks.dct import dct
from veilset.networks.embeddings import Embeddings
from veilset.networks.precision import fast_dtype
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

PER_CLASS = 50
REFERENCE = 200  # drawn images per class by which means, axes and the bound are set
COVERED = 0.9  # of the drawn images lie within the bound; others are scaled down to it


@dataclass(frozen=True, kw_only=True)
class Config:
    per_class: int | None = option(
        None,
        "images per class; a longer sample repeats them; default 50, or a declared class if smaller",
        ge=1,
        le=10_000,
    )
    start: str = option("moments", "what the images are at first", choices=("moments", "noise"))
    budget_share: float = option(
        0.5, "part of the budget, in units of 1 / noise_multiplier^2, that moments get", gt=0, lt=1
    )
    networks: int = option(50, "random networks in one sum", ge=1, le=1000)
    width: int = option(32, "channels of a network", ge=1, le=512)
    augment: bool = option(True, "each network sees images shifted, scaled or turned in its own way")
    sums: int = option(1, "noisy sums, each by networks of its own", ge=1, le=100_000)
    group_size: int | None = option(None, "expected images per class in one sum; default all", ge=1)
    steps: int = option(800, "steps by which the images are changed; they cost no privacy", ge=1)
    networks_per_step: int = option(2, "networks that are used in one step", ge=1)
    lr: float = option(0.02, "initial learning rate of Adam on the images' frequencies, in pixel values", gt=0)
    cutoff: float = option(
        0.3, "frequencies above this part of the highest are changed less, by its square; large: all alike", gt=0
    )


class DPCondense(Staged, Synthesizer):
    """Few images whose random embeddings have the private means."""

    name = "dp-condense"
    Config = Config
    recipes: ClassVar = {
        "paper": {"start": "noise", "networks": 1, "width": 128, "sums": 10_000, "group_size": 50}
        | {"steps": 10_000, "networks_per_step": 1}
    }

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        """Moments, where the images start, and the embeddings."""
        matching = Matching(self.config, each(self.config.per_class, PER_CLASS, info))
        with torch.device("meta"):  # draws nothing
            size = Embeddings(info.shape, 1, self.config.width, False, torch.float32).size
        if self.config.start == "noise":
            return Compose({"matching": Part(matching)}, prefixed=False)
        parts = {"moments": Part(Moments(), self.config.budget_share), "matching": Part(matching)}
        return Compose(parts, prefixed=False, memory_mb=4e-6 * self.config.networks * size**2)  # the axes

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        return learned["matching"]

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return picked(state["x"], labels)


class Matching(Stage):
    """Means of embeddings, and images that have them.

    Args:
        config: parameters.
        many: images per class.
    """

    def __init__(self, config: Config, many: int):
        self.config, self._many = config, many

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Sums of embeddings."""
        c, expected = self.config, info.units / len(info.classes)
        rate = min(1.0, (c.group_size or expected) / expected)
        embedding = Release(name="embedding", sample_rate=rate, steps=c.sums)
        looks = c.networks * c.sums * rate * info.units  # of a network at an image; with its gradient, three times
        looks += 3 * c.steps * c.networks_per_step * self._many * len(info.classes)
        return Plan((embedding,), seconds=5 + 1.5e-9 * looks * info.pixels * c.width, memory_mb=600.0)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "x", the images [K, S, C, H, W]; they start as draws of the stage "moments" if that was asked."""
        c, classes, release = self.config, len(info.classes), gate.release("embedding")
        if "moments" in earlier:
            x = _drawn(earlier["moments"], info, self._many)
            reference = _drawn(earlier["moments"], info, REFERENCE)
        else:
            x, reference = torch.rand(classes, self._many, *info.shape), None
        expected = release.sample_rate * info.units / classes
        noise = release.noise_multiplier / expected
        targets = []
        for _ in progress(range(c.sums), "sums"):
            look = Embeddings(info.shape, c.networks, c.width, c.augment, fast_dtype()).to(self.device)
            view = View(look, reference)
            answer = gate.sum("embedding", view.whole, by_class=True)
            targets.append((look, view.target((answer / expected).float().to(self.device), noise)))
        return {"x": self._matched(x, targets)}

    def _matched(self, x: torch.Tensor, targets: list[tuple[Embeddings, torch.Tensor]]) -> torch.Tensor:
        """Images [K, S, C, H, W] changed until their embeddings' means are the targets. Free."""
        c = self.config
        x = x.to(self.device)
        rows, columns = (dct(side).to(x) for side in x.shape[-2:])
        pace = _pace(x.shape[-2], x.shape[-1], c.cutoff).to(x)
        waves = (rows @ x @ columns.T / pace).requires_grad_()
        adam = torch.optim.Adam([waves], c.lr, betas=(0.9, 0.99))
        turns = [(look, i, target[i]) for look, target in targets for i in range(len(look))]
        order = torch.cat([torch.randperm(len(turns)) for _ in range(-(-c.steps * c.networks_per_step // len(turns)))])
        for t in progress(range(c.steps), "images"):
            adam.param_groups[0]["lr"] = c.lr * cosine(t, c.steps)
            x = (rows.T @ (waves * pace) @ columns).clamp(0, 1)
            loss = x.new_zeros(())
            for j in order[t * c.networks_per_step : (t + 1) * c.networks_per_step].tolist():
                look, i, target = turns[j]
                mean = look(i, x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
                loss = loss + (mean - target).square().sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
        return (rows.T @ (waves.detach() * pace) @ columns).clamp(0, 1)


class View:
    """From where and along which axes embeddings are measured, set by images that were paid for before.

    Args:
        look: the networks.
        reference: drawn images [K, R, C, H, W]; None: embeddings are measured as they are.
    """

    def __init__(self, look: Embeddings, reference: torch.Tensor | None):
        self.look, self.bound = look, math.sqrt(len(look))
        self.means: torch.Tensor | None = None
        if reference is None:
            return
        classes, many = reference.shape[:2]
        means, axes, beyond = [], [], torch.zeros(classes * many)
        for i in range(len(look)):
            with torch.no_grad():
                e = torch.cat([look(i, part.to(look.device)).cpu() for part in reference.flatten(0, 1).split(100)])
            middle = e.unflatten(0, (classes, many)).mean(1)
            rotation = torch.linalg.svd(e - e.mean(0), full_matrices=False)[2]
            beyond += ((e - middle.repeat_interleave(many, 0)) @ rotation.T).square().sum(1)
            means.append(middle)
            axes.append(rotation)
        self.means, self.axes = torch.stack(means).to(look.device), torch.stack(axes).to(look.device)
        self.bound = max(1e-6, float(beyond.sqrt().quantile(COVERED)))

    def whole(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the gate sums for an image [C, H, W] of label y: all networks' embeddings of it, less the mean of the
        drawn images of its class, in units of the bound: [networks * size].
        """
        parts = [self.look(i, x[None])[0] for i in range(len(self.look))]
        if self.means is not None:
            parts = [self.axes[i] @ (e - self.means[i, y]) for i, e in enumerate(parts)]
        return torch.cat(parts) / self.bound

    def target(self, mean: torch.Tensor, noise: float) -> torch.Tensor:
        """Class means of embeddings, [networks, K, size].

        Args:
            mean: noisy means [K, networks * size] of `whole`: the gate's answer / expected number of images.
            noise: standard deviation of each of its entries.
        """
        beyond = mean.unflatten(1, (len(self.look), -1)).transpose(0, 1)
        if self.means is None:
            return beyond * self.bound
        power = beyond.square().mean((0, 1))  # along an axis, over networks and classes
        kept = ((power - noise**2) / power.clamp_min(1e-30)).clamp_min(0)
        return self.means + (beyond * kept * self.bound) @ self.axes


def _pace(high: int, wide: int, bend: float) -> torch.Tensor:
    """How far one step changes each wave of an image, [H, W], mean square 1: networks with a stride hardly see the
    finest waves, and would leave specks in them.
    """
    frequency = (torch.arange(high) / high).square()[:, None] + (torch.arange(wide) / wide).square()
    pace = 1 / (1 + frequency / bend**2)
    return pace / pace.square().mean().sqrt()


def _drawn(moments: State, info: PublicInfo, each: int) -> torch.Tensor:
    """Images [K, each, C, H, W] of a dp-moments model."""
    y = torch.arange(len(info.classes)).repeat_interleave(each)
    return Moments().draw_many(moments, info, y).unflatten(0, (len(info.classes), each))
