"""Images as codes of a public model: inversion of its decoder, one record at a time, and the gate seen through it.

Papers: D. Chen, Cheung, Chuah, Ozonoff 2021, arXiv 2201.03139 (equation 4: projected gradients); what is bounded, is
bounded by public numbers. A code depends on its image and on public data, and on nothing else: iterations are so many
for everybody, each record stops by itself, and all start from one public constant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from veilset.core.types import PublicInfo
from veilset.methods.inversion.public_models import PublicModel
from veilset.methods.stages import Asked

PATIENCE, LEAST, SMALLEST = 8, 1e-3, 1 / 16  # iterations without a fall of this part, before a step is halved; its end
ROWS = 128  # records that are inverted together, always
SHOWN = 2048  # public images whose codes' moments are taken
SPAN = 3.5  # deviations of a coordinate that lie within [0, 1] on both sides of the middle
Slope = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def inverted(
    slope: Slope, x: torch.Tensor, start: torch.Tensor, steps: int, rate: float, radius: float
) -> torch.Tensor:
    """The best code met on the way from `start`, of one image.

    min |G(z) - x|^2 with |z| <= radius, for N(0, I) the same as P(z) >= P(z0) with |z0| = radius (equation 7 of the
    document), by projected gradients: an average of them, divided by their own usual size as Adam does, but by one
    number for all coordinates, since a projection onto a ball is right for those alone. A record halves its step when
    its own error has not fallen for PATIENCE iterations, and stops when the step is small; what it does then is
    computed and thrown away.

    Args:
        slope: (code [d], image [P]) -> error and its gradient.
        x: [P] in [0, 1].
        start: [d], the same for everybody.
        steps: iterations.
        rate: first step size.
        radius: of the ball that codes lie in.

    Returns:
        [d]. An error that is not a number is never the best.
    """
    z, best, first, second = start, start, torch.zeros_like(start), x.new_zeros(())
    least = x.new_full((), math.inf)
    size, waited = x.new_ones(()), x.new_zeros(())
    for t in range(steps):
        error, g = slope(z, x)
        going, fell = size > SMALLEST, error < least * (1 - LEAST)
        best = torch.where(going & (error < least), z, best)
        least = torch.where(going & (error < least), error, least)
        waited = torch.where(fell, 0.0, waited + 1)
        size = torch.where(waited >= PATIENCE, size / 2, size)
        waited = torch.where(waited >= PATIENCE, 0.0, waited)
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g.square().mean()
        move = first / (1 - 0.9 ** (t + 1)) / ((second / (1 - 0.99 ** (t + 1))).sqrt() + 1e-8)
        z = within(z - rate * (1 - t / steps) * size * move, radius)
    return best


def within(v: torch.Tensor, radius: float) -> torch.Tensor:
    """v [..., d], made shorter where it is longer than the radius."""
    return v * (radius / v.norm(dim=-1, keepdim=True).clamp_min(radius))


class Code(nn.Module):
    """One image to its code, as a picture of one row: [C, H, W] in [0, 1] to [1, 1, k], about within [0, 1].

    Mapped ROWS at a time, always. Equal for equal public models and parameters, so that the gate computes codes once
    for all stages.

    Args:
        model: public.
        how: "latents", "iterations", "rate", "reach" (radius of codes, in units of sqrt(d)) and "size", k.
    """

    rows = ROWS

    def __init__(self, model: PublicModel, how: Mapping[str, Any]):
        super().__init__()
        self.model, self.how, d, k = model, dict(how), model.latent, how["size"]
        self.radius = how["reach"] * math.sqrt(d)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("into", torch.zeros(k, d))
        self.register_buffer("back", torch.zeros(d, k))
        self.mean: torch.Tensor
        self.into: torch.Tensor
        self.back: torch.Tensor
        self._key = ""

    def raw(self, x: torch.Tensor) -> torch.Tensor:
        """One image to its code in the model's coordinates [d], in the ball of the radius."""
        if self.how["latents"] == "encoder":
            assert self.model.encoder is not None
            return within(self.model.encoder(x.flatten()[None])[0], self.radius)
        start = torch.zeros(self.model.latent, device=x.device)
        steps, rate = self.how["iterations"], self.how["rate"]
        return inverted(self.model.decoder.slope, x.flatten(), start, steps, rate, self.radius)

    @torch.no_grad()
    def settle(self, public: torch.Tensor) -> None:
        """Take the moments by which codes are whitened from public images [n, C, H, W] in [0, 1].

        Directions are those in which the codes of public images differ by what their images show: eigenvectors of the
        covariance, in the metric of the decoder's mean squared slope. Only the first k are kept.
        """
        look = torch.func.vmap(self.raw)
        w = torch.cat([look(part) for part in public.split(ROWS)])
        mean, d = w.mean(0), w.shape[1]
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda v: self.model.decoder(v[None])[0]))
        metric = sum((j.mT @ j).sum(0) for j in map(jacobian, w[:256].split(8)))  # type: ignore[arg-type]
        metric = metric / metric.diagonal().mean() + 1e-3 * torch.eye(d)
        values, axes = torch.linalg.eigh(metric)
        root, inverse = (axes * values.sqrt()) @ axes.T, (axes / values.sqrt()) @ axes.T
        seen, turned = torch.linalg.eigh(root @ torch.cov((w - mean).T) @ root)
        k = len(self.into)
        deviation, turned = seen.flip(0)[:k].clamp_min(1e-8).sqrt(), turned.flip(1)[:, :k]
        self.mean.copy_(mean)
        self.into.copy_((turned / deviation).T @ root)
        self.back.copy_(inverse @ (turned * deviation))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[C, H, W] to [1, 1, k]: whitened by public moments, clipped to a public radius."""
        k = len(self.into)
        u = within(self.into @ (self.raw(x) - self.mean), self.how["reach"] * math.sqrt(k))
        return (0.5 + u / (2 * SPAN))[None, None]

    def images(self, codes: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Codes [n, 1, 1, k] to images [n, C, H, W] in [0, 1]."""
        k = len(self.into)
        u = within((codes.flatten(1) - 0.5) * (2 * SPAN), self.how["reach"] * math.sqrt(k))
        return self.model.decoder(self.mean + u @ self.back.T).unflatten(1, shape)

    def frozen(self) -> Code:
        """Itself, from now on constant."""
        digest = hashlib.sha256(repr(sorted(self.how.items())).encode())
        for name, v in sorted(self.state_dict().items()):
            digest.update(name.encode() + v.cpu().numpy().tobytes())
        self._key = digest.hexdigest()
        return self.eval().requires_grad_(False)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Code) and self._key != "" and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key) if self._key else id(self)


# ---------------------------------------------------------------------- the gate, seen through codes


def coded(info: PublicInfo, size: int, told: bool) -> PublicInfo:
    """Declared facts of a set of codes, which are pictures of one row; of one class, if labels are not used."""
    shape, names = (1, 1, size), info.classes if told else ("any",)
    return replace(info, shape=shape, classes=names, value_range=(0.0, 1.0))


class Coded(Asked):
    """The gate as a stage sees it that works on codes in place of images.

    Args:
        gate: which answers about images.
        code: the public map of one image, computed once a record in front of whatever is asked.
        info: of the codes.
        told: labels are used.
    """

    def __init__(self, gate: Asked, code: Code, info: PublicInfo, told: bool):
        super().__init__(gate, str)  # type: ignore[arg-type]
        self.info, self._asked, self._code, self._told = info, gate, code, told

    def release(self, name: str) -> Any:
        """A release as it was priced."""
        return self._asked.release(name)

    def sum(self, name: str, f: Any, **how: Any) -> torch.Tensor:
        """As `Gate.sum`, of codes."""
        if self._told:
            return self._asked.sum(name, f, features=self._code, **how)
        apart = how.pop("by_class", False)
        answer = self._asked.sum(name, Unlabelled(f), features=self._code, **how)
        return answer[None] if apart else answer

    def grad(self, name: str, loss: Any, params: Any, **how: Any) -> dict[str, torch.Tensor]:
        """As `Gate.grad`, of codes."""
        loss = loss if self._told else Unlabelled(loss, at=2)
        return self._asked.grad(name, loss, params, features=self._code, **how)


class Unlabelled:
    """A map or loss that gets label 0 in place of each record's own, which is argument number `at`."""

    def __init__(self, f: Callable[..., Any], at: int = 1):
        self.f, self.at = f, at

    @property
    def __code__(self) -> object:
        """Which operations it runs: those of f."""
        return ("unlabelled", getattr(self.f, "__code__", type(self.f)))

    def __call__(self, *args: Any) -> Any:
        return self.f(*(v * 0 if i == self.at else v for i, v in enumerate(args)))
