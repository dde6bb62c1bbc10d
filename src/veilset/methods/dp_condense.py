"""DP-Condense: a few images a class whose embeddings by random networks have the private images' means.

Papers: Zheng and Li 2023, "Differentially Private Dataset Condensation" (NDPDC, OpenReview H8XpqEkbua_); distribution
matching without privacy: Zhao and Bilen 2023, arXiv 2110.04181, equation 5; subspaces and sums that are used again:
Zheng et al. 2025, arXiv 2508.01749.
Idea: a classifier that is trained on few images does well on others if both look alike to networks that know nothing.
What random networks see of the private images is a mean, so it needs one pass forwards and one noisy sum; all the work
of making images to that mean is free.

Private access:
  mean, spread, cells, within   the sums of dp-moments, for a part of the budget (start = "moments")
  embedding                     class sums of embeddings by random networks, together one vector an image
Everything after is free. Images start as draws of dp-moments, which also say beforehand where embeddings lie: the sum
is of what an embedding has beyond the mean of the drawn images of its class, in the directions in which drawn images
vary most, so that the bound is small and little noise enters.

Differs from the papers and their code:
  * One sum over all images by several networks. `sums` and `group` give the published schedule: a fresh network for
    each of many sums over small Poisson groups. For the same budget one sum over all has the least noise.
  * Noise is drawn once for each sum, and only the noisy sum is kept. The released code of arXiv 2508.01749 keeps the
    exact sums and draws new noise whenever one is used, 20 to 200 times for each that it pays for.
  * Directions come from images that were paid for in the same run, not from public images.
  * Group sizes follow from declared sizes. The published rate is of the true size of a class, which is private.
  * The noise's part of a difference is taken off (James and Stein), direction by direction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.methods.dp_moments import DPMoments
from veilset.methods.few import picked
from veilset.methods.training import cosine, part_of, sums_beside
from veilset.networks.classifiers import fast_dtype
from veilset.networks.embeddings import Embeddings
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

REFERENCE = 200  # drawn images a class by which means, directions and the bound are set
COVERED = 0.9  # of the drawn images lie within the bound; of the others, the direction is kept


@dataclass(frozen=True, kw_only=True)
class Config:
    per_class: int = option(50, "images a class that are released; a longer sample repeats them", ge=1, le=10_000)
    start: str = option("moments", "what the images are at first", choices=("moments", "noise"))
    share: float = option(0.5, "part of the budget, in units of 1 / noise_multiplier^2, that moments get", gt=0, lt=1)
    networks: int = option(20, "random networks in one sum", ge=1, le=1000)
    width: int = option(32, "channels of a network", ge=1, le=512)
    moved: bool = option(True, "each network sees images shifted, scaled or turned in its own way")
    directions: int = option(64, "of each network's embedding that are asked for (start = moments)", ge=1)
    sums: int = option(1, "noisy sums, each by networks of its own", ge=1, le=100_000)
    group: int | None = option(None, "expected images a class in one sum; default all", ge=1)
    steps: int = option(500, "steps by which the images are changed; they cost no privacy", ge=1)
    networks_a_step: int = option(2, "networks that are looked through in one step", ge=1)
    rate: float = option(0.02, "first learning rate of Adam on the images, whose pixels are in [0, 1]", gt=0)


class DPCondense(Synthesizer):
    """Few images whose random embeddings have the private means."""

    name = "dp-condense"
    Config = Config
    recipes: ClassVar = {
        "paper": {"start": "noise", "networks": 1, "width": 128, "sums": 10_000, "group": 50}
        | {"steps": 10_000, "networks_a_step": 1}
    }

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        c, expected = self.config, info.units / len(info.classes)
        if c.per_class > expected:
            raise ConfigError(
                f"per_class = {c.per_class}: must be at most the {expected:g} units of a class that are declared; "
                "to release as many images as there are, use another method"
            )
        rate = min(1.0, (c.group or expected) / expected)
        embedding = Release(name="embedding", sample_rate=rate, steps=c.sums)
        first: tuple[Release, ...] = ()
        seconds, memory = 0.0, 600.0
        if c.start == "moments":
            before = DPMoments()._plan(info, part_of(privacy, c.share))
            first = sums_beside(before, embedding, privacy, c.share)
            seconds, memory = before.seconds, max(memory, before.memory_mb)
        looks = c.networks * c.sums * rate * info.units + 3.0 * c.steps * c.networks_a_step * c.per_class * len(
            info.classes
        )
        return Plan((*first, embedding), seconds=seconds + 5 + 1.5e-9 * looks * info.pixels * c.width, memory_mb=memory)

    def _fit(self, gate: Gate, info: PublicInfo, plan: Plan) -> State:
        c, classes = self.config, len(info.classes)
        release = plan["embedding"]
        if c.start == "moments":
            moments = DPMoments()
            moments.device = self.device
            bought = moments._fit(gate, info, replace(plan, privacy=part_of(plan.budget, c.share)))
            x = _drawn(moments, bought, info, c.per_class)
            reference = _drawn(moments, bought, info, REFERENCE)
        else:
            x, reference = torch.rand(classes, c.per_class, *info.shape), None
        expected = release.sample_rate * info.units / classes
        noise = release.noise_multiplier / expected
        targets = []
        for _ in progress(range(c.sums), "sums"):
            look = Embeddings(info.shape, c.networks, c.width, c.moved, fast_dtype()).to(self.device)
            view = View(look, reference, c.directions)
            answer = gate.sum("embedding", view.whole, by_class=True)
            targets.append((view, view.target((answer / expected).float().cpu(), noise)))
        return {"x": self._matched(x, targets)}

    def _matched(self, x: torch.Tensor, targets: list[tuple[View, torch.Tensor]]) -> torch.Tensor:
        """Images [K, S, C, H, W] changed until their embeddings' means are the targets. Free."""
        c = self.config
        x = x.to(self.device).requires_grad_()
        adam = torch.optim.Adam([x], c.rate, betas=(0.9, 0.99))
        turns = [(view, i, t[i].to(self.device)) for view, t in targets for i in range(len(view))]
        order = torch.cat([torch.randperm(len(turns)) for _ in range(-(-c.steps * c.networks_a_step // len(turns)))])
        for t in progress(range(c.steps), "images"):
            adam.param_groups[0]["lr"] = c.rate * cosine(t, c.steps)
            adam.zero_grad()
            for j in order[t * c.networks_a_step : (t + 1) * c.networks_a_step].tolist():
                view, i, target = turns[j]
                mean = view(i, x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)
                (mean - target).square().sum().backward()
            adam.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        return x.detach()

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return picked(state["x"], labels)


class View:
    """Where and in which directions embeddings are compared, set by images that were paid for before.

    Args:
        look: the networks.
        reference: drawn images [K, R, C, H, W]; None: embeddings as they are.
        directions: of each network, at most.
    """

    def __init__(self, look: Embeddings, reference: torch.Tensor | None, directions: int):
        self.look, self.bound = look, math.sqrt(len(look))
        self.centre: torch.Tensor | None = None
        if reference is None:
            return
        classes, many = reference.shape[:2]
        centre, axes, within, drawn = [], [], [], torch.zeros(classes * many)
        for i in range(len(look)):
            with torch.no_grad():
                e = torch.cat([look(i, part.to(look.stem.device)).cpu() for part in reference.flatten(0, 1).split(100)])
            middle = e.mean(0)
            rotation = torch.linalg.svd(e - middle, full_matrices=False)[2][:directions]
            e = (e - middle) @ rotation.T
            means = e.unflatten(0, (classes, many)).mean(1)
            drawn += (e - means.repeat_interleave(many, 0)).square().sum(1)
            centre.append(middle)
            axes.append(rotation)
            within.append(means)
        device = look.stem.device
        self.centre, self.axes = torch.stack(centre).to(device), torch.stack(axes).to(device)
        self.means = torch.stack(within)  # [networks, K, directions]
        self.there = self.means.to(device)
        self.bound = max(1e-6, float(drawn.sqrt().quantile(COVERED)))

    def __len__(self) -> int:
        return len(self.look)

    def __call__(self, i: int, x: torch.Tensor) -> torch.Tensor:
        """Embeddings [n, directions] of images [n, C, H, W] by network i."""
        e = self.look(i, x)
        return e if self.centre is None else (e - self.centre[i]) @ self.axes[i].T

    def whole(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """What the gate sums for an image [C, H, W] of label y: all networks' embeddings of it, less the mean of the
        drawn images of its class, in units of the bound: [networks * directions].
        """
        parts = [self(i, x[None])[0] - (0 if self.centre is None else self.there[i, y]) for i in range(len(self))]
        return torch.cat(parts) / self.bound

    def target(self, mean: torch.Tensor, noise: float) -> torch.Tensor:
        """Class means of embeddings, [networks, K, directions].

        Args:
            mean: noisy means [K, networks * directions] of `whole`: the gate's answer / expected number of images.
            noise: standard deviation of each of its entries.
        """
        beyond = mean.unflatten(1, (len(self), -1)).transpose(0, 1)
        if self.centre is None:
            return beyond * self.bound
        power = beyond.square().mean((0, 1))  # of a direction, over networks and classes
        kept = ((power - noise**2) / power.clamp_min(1e-30)).clamp_min(0)
        return self.means + beyond * kept * self.bound


def _drawn(moments: DPMoments, bought: State, info: PublicInfo, each: int) -> torch.Tensor:
    """Images [K, each, C, H, W] of a dp-moments model."""
    y = torch.arange(len(info.classes)).repeat_interleave(each)
    x = torch.cat([moments._sample(bought, info, part) for part in y.split(1000)])
    return x.unflatten(0, (len(info.classes), each))
