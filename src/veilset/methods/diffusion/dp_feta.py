"""DP-FETA: a cheap noisy summary of every class first, a diffusion model trained on it, then DP-SGD from there.

Paper: Li, Gong, Li, Zhao, Hou, Wang 2025, "From Easy to Hard", IEEE S&P, arXiv 2504.01395.
Idea: noisy gradients are wasted on what a few sums over the data say at once. A small part of the budget buys such
sums; the denoiser learns them without noise, and DP-SGD (`dp-diffusion`) only adds what they do not say.

What is bought (`warm_start`):
  central   the paper's: mean images of each class, halved in size, of a few random subsets; then enlarged, cleaned by
            a median filter, sharpened (grey images), and shown with random turns, shifts and contrasts
  mode      the paper's variant: the most frequent grey level of each pixel instead of its mean
  moments   ours: the model of `dp-moments`, class means and covariances in a low-frequency basis. Pre-training draws
            new images from it, and so learns variety as well; and sampling starts from a new image of it with noise
            of level `entry_sigma`, so that the denoiser only has to learn, and is mostly trained on, the levels below:
            what moments cannot say. Where DP-SGD has learned little, entering higher loses accuracy; where it has
            learned much, it gains

Private access: "central" or "mode", `queries` Poisson subsets, sums by class; or the releases of `dp-moments`. Then
the loop "train" of `dp-diffusion`. All in one plan; `budget_share` of the budget (in squared mu of Gaussian privacy,
where shares add up) goes to the warm start.

Differs from the paper and its code:
  * Sums are divided by the declared expected count of a class in a subset. Both public codes divide by the realised
    count but scale noise for the nominal one, which understates the sensitivity, most for rare classes.
  * What is summed is x - 1/2, whose norm is at most sqrt(pixels) / 2: half the noise of sums of x. Likewise one-hot
    grey levels less their mean, for the mode.
  * Halving averages 2x2 pixels; the code keeps every second pixel.
  * Network, batches and sampler are those of `dp-diffusion`. The published schedule is the recipe "paper".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch.nn import functional as F

from veilset.core.config import option
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import average, cosine
from veilset.methods.base import State, Synthesizer
from veilset.methods.diffusion import dp_diffusion
from veilset.methods.diffusion.dp_diffusion import PUBLISHED, Denoiser, Network
from veilset.methods.moments.dp_moments import Moments, likelihood
from veilset.methods.stages import Asked, Compose, Earlier, Part, Stage, Staged, learned_by, named
from veilset.networks.diffusion import HIGHEST, errors, spread
from veilset.networks.precision import fast
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

POOL = 20_000  # images drawn from a `dp-moments` model, once, to pre-train on
MOMENTS = "moments"  # whose tensors a model keeps beside those of its network
Draw = Callable[[int], tuple[torch.Tensor, torch.Tensor]]  # n -> images [n, C, H, W] in [0, 1], labels [n]


@dataclass(frozen=True, kw_only=True)
class Config(dp_diffusion.Config):
    frequencies: int = option(136, "perceptron: how many low frequencies an image is made of", ge=1)
    lr: float = option(5e-3, "top learning rate of Adam", gt=0)
    sampling_steps: int = option(30, "noise levels an image is drawn through", ge=1)
    warm_start: str = option("moments", "what is bought first", choices=("central", "mode", "moments"))
    budget_share: float | None = option(
        None, "part of the budget for the warm start; default 0.1, or 0.3 for moments", gt=0, lt=1
    )
    queries: int = option(5, "central images per class", ge=1, le=10_000)
    query_sample_rate: float = option(0.1, "part of the records in one query for central images", gt=0, le=1)
    grey_levels: int = option(2, "grey levels that the mode is chosen from", ge=2, le=256)
    entry_sigma: float = option(
        2.0,
        "noise level at which images of moments enter the sampler, and below which it is trained; 80: pure noise",
        gt=0.002,
        le=80,
    )
    warm_steps: int = option(1000, "pre-training steps; they cost no privacy", ge=1)
    warm_batch_size: int = option(1024, "images per pre-training step", ge=1)
    warm_lr: float = option(5e-3, "top learning rate of pre-training", gt=0)


class DPFETA(Staged, Synthesizer):
    """Noisy class summaries first, then a diffusion model by DP-SGD."""

    name = "dp-feta"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {
        "paper": PUBLISHED
        | {"warm_start": "central", "budget_share": 0.03, "steps": 2250, "warm_steps": 2000, "warm_batch_size": 64}
        | {"warm_lr": 3e-4}
    }

    def _stages(self, info: PublicInfo, privacy: Privacy) -> Compose:
        c = self.config
        moments = c.warm_start == "moments"
        first: Stage = Moments() if moments else Central(c)
        parts = {"first": Part(first, c.budget_share or (0.3 if moments else 0.1)), "train": Part(Warmed(c, privacy))}
        return Compose(parts, prefixed=False)

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return replace(super()._plan(info, privacy), memory_mb=700)

    def _kept(self, learned: Earlier, info: PublicInfo) -> State:
        moments = named({MOMENTS: learned["first"]}) if self.config.warm_start == "moments" else {}
        return learned["train"] | moments

    def attack_features(self, folder: Path, x: torch.Tensor, y: torch.Tensor) -> State:
        """denoising, as of dp-diffusion; likelihood of the moments, if they were bought."""
        state, info = self.fitted()
        features = {"denoising": Warmed(self.config).denoising(state, info, x, y)}
        moments = learned_by(MOMENTS, state)
        return features | (likelihood(moments, x, y) if moments else {})

    def _sample(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return Warmed(self.config).on(self.device).draw(state, info, labels)


class Central(Stage):
    """Central images of random subsets, or their most frequent grey levels."""

    def __init__(self, config: Config):
        self.config = config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """A sum over each of several Poisson subsets."""
        c, side = self.config, math.sqrt(math.prod(_halved(info.shape)))
        bound = side / 2 if c.warm_start == "central" else side * math.sqrt(1 - 1 / c.grey_levels)
        return Plan(
            (Release(name=c.warm_start, bound=bound, sample_rate=c.query_sample_rate, steps=c.queries),), seconds=1.0
        )

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "x", cleaned images [n, C, H, W], and their labels "y"."""
        c, classes = self.config, len(info.classes)
        small, levels = _halved(info.shape), torch.linspace(0, 1, c.grey_levels)
        expected = c.query_sample_rate * info.units / classes
        images = []
        for _ in range(c.queries):
            if c.warm_start == "mode":
                counts = gate.sum("mode", lambda x, y: _one_hot(_pooled(x, small), c.grey_levels), by_class=True)
                images.append(levels[counts.argmax(1)])
            else:
                total = gate.sum("central", lambda x, y: _pooled(x, small) - 0.5, by_class=True)
                images.append((0.5 + total / expected).clamp(0, 1).float())
        return {"x": cleaned(torch.cat(images), info.shape), "y": torch.arange(classes).repeat(c.queries)}


class Warmed(Denoiser):
    """A denoiser that is trained on public draws of what was bought first, and enters its sampler from them."""

    config: Config

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """The loop, and pre-training, which costs time alone."""
        c, plan = self.config, super().plan(info, budget)
        return replace(plan, seconds=plan.seconds + self.seconds(info, budget) * c.warm_steps * c.warm_batch_size)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """The averaged weights."""
        first = earlier["first"]
        draw = _pool(first, info) if self.config.warm_start == "moments" else _around(first)
        net = self.network(info, *self.size(info, budget))
        return self.train(gate, info, self._pretrained(net, draw, len(info.classes)))

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Images from noise, or from new images of the moments."""
        weights = {k: v for k, v in state.items() if not k.startswith(f"{MOMENTS}.")}
        if self._entry == HIGHEST:
            return super().draw(weights, info, labels)
        x = Moments().draw(learned_by(MOMENTS, state), info, labels)
        return self.drawn(weights, info, labels, 2 * x - 1, self._entry)

    @property
    def _entry(self) -> float:
        return float(self.config.entry_sigma if self.config.warm_start == "moments" else HIGHEST)

    @property
    def _levels(self) -> tuple[float, float]:
        """About those that the sampler will ask for: nearly all lie below `entry_sigma`, and few far below."""
        return super()._levels if self._entry > 2 else (math.log(self._entry) - 0.65, 0.8)

    def _pretrained(self, net: Network, draw: Draw, none: int) -> Network:
        """The network, trained on public draws of K = `none` classes, its weights averaged."""
        c, kind = self.config, self.kind
        adam, mean = torch.optim.Adam(net.parameters(), c.warm_lr), average(net, 0.99)
        for t in progress(range(c.warm_steps), "pre-training"):
            adam.param_groups[0]["lr"] = c.warm_lr * cosine(t, c.warm_steps)
            x, y = (a.to(self.device) for a in draw(c.warm_batch_size))
            y = torch.where(torch.rand(len(y), device=y.device) < self._drop, none, y)
            x = net.encode(2 * x - 1).contiguous(memory_format=torch.channels_last)
            with fast():
                levels = kind.levels(spread(torch.rand(len(y)))).to(x)
                loss = errors(net, kind, x, y, levels, torch.randn_like(x)).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            mean.update_parameters(net)
        net.load_state_dict(mean.module.state_dict())
        return net


# ---------------------------------------------------------------------- per-image maps, given to the gate


def _halved(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    return shape[0], -(-shape[1] // 2), -(-shape[2] // 2)


def _pooled(x: torch.Tensor, small: tuple[int, int, int]) -> torch.Tensor:
    """[C, H, W] to half the sides, rounded up; means, so values stay in [0, 1]."""
    return F.adaptive_avg_pool2d(x[None], small[1:])[0]


def _one_hot(x: torch.Tensor, levels: int) -> torch.Tensor:
    """[C, h, w] in [0, 1] to [levels, C, h, w]: 1 at the nearest level of each pixel, less 1 / levels everywhere."""
    nearest = (x * (levels - 1)).round()
    return (nearest[None] == torch.arange(levels, device=x.device).view(-1, 1, 1, 1)).to(x) - 1 / levels


# ---------------------------------------------------------------------- free post-processing


def _pool(moments: State, info: PublicInfo) -> Draw:
    """Draws from a fixed pool of images of a `dp-moments` model."""
    y = torch.arange(max(POOL, len(info.classes))) % len(info.classes)
    x = Moments().draw_many(moments, info, y)

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.randint(0, len(y), (n,))
        return x[at], y[at]

    return draw


def _around(central: State) -> Draw:
    """Draws from cleaned central images, turned, shifted and changed in contrast at random."""
    x, y = central["x"], central["y"]

    def draw(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.randint(0, len(y), (n,))
        return turned(x[at]), y[at]

    return draw


def cleaned(x: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Small noisy images [n, C, h, w] to clean ones of the full shape: enlarged, median of 3x3, sharpened if grey."""
    x = F.interpolate(x, shape[1:], mode="bilinear")
    around = F.pad(x, [1] * 4, mode="replicate").unfold(2, 3, 1).unfold(3, 3, 1)
    x = around.flatten(4).median(-1).values
    if shape[0] == 1:
        cross = torch.tensor([[0.0, -1, 0], [-1, 5, -1], [0, -1, 0]]).view(1, 1, 3, 3)
        x = F.conv2d(F.pad(x, [1] * 4, mode="replicate"), cross)
    return x.clamp(0, 1)


def turned(x: torch.Tensor) -> torch.Tensor:
    """Images [n, C, H, W] in [0, 1], each with a random small turn, scale, slant, shift and contrast."""
    n = len(x)

    def random(most: float) -> torch.Tensor:
        return (2 * torch.rand(n) - 1) * most

    turn, slant, scale = random(0.26), random(0.2), 1 + random(0.12)
    rows = torch.stack(
        [
            torch.stack([scale * turn.cos(), slant - turn.sin(), random(0.14)], 1),
            torch.stack([turn.sin(), scale * turn.cos(), random(0.14)], 1),
        ],
        1,
    )
    x = F.grid_sample(x, F.affine_grid(rows, list(x.shape), align_corners=False), align_corners=False)
    return (x * (1 + random(0.2))[:, None, None, None]).clamp(0, 1)
