"""Diffusion in the notation of Karras et al. 2022 (arXiv 2206.00364): noise levels, denoiser, loss and samplers.

A network F becomes the denoiser D(x; s, y) = skip x + out F(into x, time, y) of images with noise of deviation s, for
pixels in [-1, 1]. Nothing here mixes images, so everything is safe under per-record gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from veilset.privacy.draws import Draws, Uniform

DATA = math.sqrt(1 / 3)  # s_d: the deviation that pixels in [-1, 1] are taken to have
HIGHEST, LOWEST, BEND = 80.0, 0.002, 7.0  # ends and exponent of the time grid

Network = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # (x, time, y) -> F
Map = Callable[[torch.Tensor], torch.Tensor]
Denoiser = Callable[[torch.Tensor, float], torch.Tensor]  # (x, noise level) -> D
SAMPLERS = ("ddim", "stochastic", "ancestral", "churn")


class Scales(NamedTuple):
    """What a parameterisation makes of noise levels s, each [n]."""

    skip: torch.Tensor
    out: torch.Tensor
    into: torch.Tensor
    time: torch.Tensor
    weight: torch.Tensor


@dataclass(frozen=True)
class EDM:
    """The parameterisation of Karras et al.; noise levels are log-normal.

    Args:
        mean, std: of ln s while training.
    """

    mean: float = -1.2
    std: float = 1.2

    def levels(self, u: torch.Tensor) -> torch.Tensor:
        """Noise levels to train at, of numbers in (0, 1) [n]."""
        return (self.mean + self.std * torch.special.ndtri(u)).exp()

    def scales(self, s: torch.Tensor) -> Scales:
        """The factors at noise levels s [n]."""
        total = (s.square() + DATA**2).sqrt()
        return Scales((DATA / total).square(), s * DATA / total, 1 / total, s.log() / 4, (total / (s * DATA)).square())


@dataclass(frozen=True)
class Velocity:
    """v-prediction (Salimans, Ho 2022) with the cosine schedule: log-SNR between two limits, uniform in its angle.

    Args:
        low, high: limits of ln(1 / s^2).
    """

    low: float = -9.0
    high: float = 13.0

    def levels(self, u: torch.Tensor) -> torch.Tensor:
        """Noise levels to train at, of numbers in (0, 1) [n]."""
        a, b = (2 / math.pi * math.acos(1 / math.sqrt(1 + math.exp(-x))) for x in (self.high, self.low))
        return (math.pi / 2 * (a + (b - a) * u)).tan()  # = sqrt(cos^-2 - 1)

    def scales(self, s: torch.Tensor) -> Scales:
        """The factors at noise levels s [n]."""
        total = (s.square() + 1).sqrt()
        return Scales(1 / total.square(), s / total, 1 / total, 2 / math.pi * s.atan(), (total / s).square())


Kind = EDM | Velocity


def denoise(net: Network, kind: Kind, x: torch.Tensor, s: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """D(x; s, y): x [n, C, H, W] with noise levels s [n], labels y [n], to clean images [n, C, H, W]."""
    k = kind.scales(s)
    f = net(wide(k.into) * x, k.time, y).float()
    return wide(k.skip) * x + wide(k.out) * f


def errors(
    net: Network, kind: Kind, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """The weighted denoising error of each image, weight |D(x + s noise; s, y) - x|^2 per pixel.

    Args:
        net: the network F.
        kind: the parameterisation.
        x: clean images [n, C, H, W], pixels in [-1, 1].
        y: labels [n].
        s: noise levels [n].
        noise: standard normal, as x.

    Returns:
        [n], about 1 for a network that returns 0.
    """
    d = denoise(net, kind, x + wide(s) * noise, s, y)
    return kind.scales(s).weight * (d - x).square().flatten(1).mean(1)


def record_draws(shape: Sequence[int], copies: int, drop: float, shift: int = 0, flip: bool = False) -> Draws:
    """What a record draws for `record_loss`; arguments as there.

    Args:
        shape: of what the network works on, [C, H, W].
    """
    draws: dict[str, Sequence[int] | Uniform] = {"noise": (copies, *shape), "level": Uniform((copies,))}
    draws |= {"drop": Uniform()} if drop else {}
    draws |= {"flip": Uniform((copies,))} if flip else {}
    return draws | ({"shift": Uniform((2, copies))} if shift else {})


def record_loss(
    net: Network, kind: Kind, x: torch.Tensor, y: torch.Tensor, own: Mapping[str, torch.Tensor], copies: int, none: int,
    drop: float, shift: int = 0, flip: bool = False, encode: Map | None = None,
) -> torch.Tensor:  # fmt: skip
    """The loss of one record: the mean error of its copies, each with its own noise level, noise and place.

    The mean is taken before the gradient is clipped, so copies cost no privacy (noise multiplicity, Dockhorn et al.
    2023; augmentation multiplicity, De et al. 2022).

    Args:
        net: the network F.
        kind: the parameterisation.
        x: one image [C, H, W], pixels in [0, 1].
        y: its label, a scalar.
        own: what it drew, see `record_draws`.
        copies: K.
        none: the label that stands for "no class".
        drop: probability that all copies are trained without the class.
        shift: each copy is moved by up to this many pixels each way; what enters is black.
        flip: each copy is mirrored left to right with probability 1/2.
        encode: images in [-1, 1] to what the network works on; None: images themselves.
    """
    if drop:
        y = torch.where(own["drop"] < drop, torch.full_like(y, none), y)
    many = moved(x.expand(copies if shift or flip else 1, *x.shape), shift, flip, own)
    many = 2 * many - 1 if encode is None else encode(2 * many - 1)
    s = kind.levels(spread(own["level"]))
    return errors(net, kind, many.expand(copies, *many.shape[1:]), y.expand(copies), s, own["noise"]).mean()


def moved(x: torch.Tensor, shift: int, flip: bool, own: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Images [n, C, H, W], each moved and mirrored at random as `record_loss` says."""
    n, _, high, wide_ = x.shape
    if flip:
        x = torch.where(own["flip"].view(n, 1, 1, 1) < 0.5, x, x.flip(3))
    if shift:
        room = torch.nn.functional.pad(x, [shift] * 4)
        for axis, side in ((2, high), (3, wide_)):
            start = (own["shift"][axis - 2] * (2 * shift + 1)).long().view(n, 1, 1, 1)
            at = torch.arange(side, device=x.device).view([side if a == axis else 1 for a in range(4)]) + start
            room = room.gather(
                axis, at.expand([n if a == 0 else side if a == axis else room.shape[a] for a in range(4)])
            )
        x = room
    return x


def spread(u: torch.Tensor) -> torch.Tensor:
    """Of n uniform numbers, the i-th in the i-th of n equal parts of (0, 1): over all draws each part is as likely, and
    together they cover.
    """
    n = len(u)
    return ((torch.arange(n, device=u.device) + u) / n).clamp(1e-6, 1 - 1e-6)


def wide(v: torch.Tensor) -> torch.Tensor:
    """[n] to [n, 1, 1, 1]."""
    return v[:, None, None, None]


# ---------------------------------------------------------------------- samplers


def time_grid(steps: int, high: float = HIGHEST, low: float = LOWEST) -> list[float]:
    """`steps` noise levels from high to low, dense near low."""
    if steps == 1:
        return [high]
    a, b = high ** (1 / BEND), low ** (1 / BEND)
    return [(a + i / (steps - 1) * (b - a)) ** BEND for i in range(steps)]


def guided(net: Network, kind: Kind, y: torch.Tensor, none: int, weight: float, rows: int = 200) -> Denoiser:
    """The denoiser of images with labels y [n]: (1 + weight) D(y) - weight D(no class).

    Args:
        net: the network F.
        kind: the parameterisation.
        y: labels of all images that will be denoised together.
        none: the label that stands for "no class".
        weight: 0 is no guidance; above 0 makes images more typical of their class.
        rows: images at a time; small enough that activations stay in the cache.
    """

    def one(x: torch.Tensor, t: float, labels: torch.Tensor) -> torch.Tensor:
        s = torch.full((len(x),), t, device=x.device)
        d = denoise(net, kind, x, s, labels)
        if weight:
            d = (1 + weight) * d - weight * denoise(net, kind, x, s, torch.full_like(labels, none))
        return d

    def all_(x: torch.Tensor, t: float) -> torch.Tensor:
        return torch.cat([one(a, t, b) for a, b in zip(x.split(rows), y.split(rows), strict=True)])

    return all_


def draw(
    denoiser: Denoiser, x: torch.Tensor, times: list[float], sampler: str = "churn", churn: float = 0.0,
    churn_from: float = 0.0, churn_to: float = math.inf,
) -> torch.Tensor:  # fmt: skip
    """Bring noise to images.

    Args:
        denoiser: D.
        x: where to start, [n, C, H, W]: noise of deviation times[0], on top of an image or of nothing.
        times: falling noise levels.
        sampler: "ddim", Euler steps of the flow without noise; "stochastic", Euler-Maruyama steps of the reverse
            diffusion; "ancestral", its steps as exact as D allows (Ho et al. 2020), good when there are few; "churn",
            Heun steps of the flow, before each of which some noise is added (Karras et al., Algorithm 2).
        churn: S_churn, how much is added in all, for "churn"; a step adds at most as much as is there.
        churn_from, churn_to: S_min and S_max, the levels between which it is added.

    Returns:
        D at the last step, pixels about in [-1, 1].
    """
    for t, lower in zip(times, [*times[1:], None], strict=True):
        if sampler == "churn":
            more = min(churn / len(times), 1.0) if churn_from <= t <= churn_to else 0.0
            if more:
                x, t = x + t * math.sqrt((1 + more) ** 2 - 1) * torch.randn_like(x), t * (1 + more)
        d = denoiser(x, t)
        if lower is None:
            return d
        if sampler == "ancestral":
            kept = (lower / t) ** 2
            x = d + kept * (x - d) + lower * math.sqrt(1 - kept) * torch.randn_like(x)
            continue
        slope = (x - d) / t
        if sampler == "stochastic":
            x = x + 2 * (lower - t) * slope + math.sqrt(2 * (t - lower) * t) * torch.randn_like(x)
            continue
        ahead = x + (lower - t) * slope
        if sampler == "churn":
            slope = (slope + (ahead - denoiser(ahead, lower)) / lower) / 2
            ahead = x + (lower - t) * slope
        x = ahead
    raise ValueError("times: must hold at least one noise level")
