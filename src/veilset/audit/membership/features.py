"""What anyone who holds the released images can measure of a candidate. Larger always means more like a member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from veilset.core.types import Images

COMPONENTS = 40
NEAREST = (1, 3, 10)
WIDTHS = {"wide": 1 / 28, "narrow": 1 / 112}  # squared length scale of a kernel, in units of the number of pixels
CHUNK = 1 << 24  # distances at a time


@dataclass(frozen=True)
class Candidates:
    """The records that are asked about, and a public view of them.

    Attributes:
        x: float32 [n, C, H, W] in [0, 1].
        y: int64 [n].
        centre, axes: mean [P] and first principal directions [P, d] of the candidates, members and outsiders alike,
            so that they say nothing about who is a member.
    """

    x: torch.Tensor
    y: torch.Tensor
    centre: torch.Tensor
    axes: torch.Tensor

    @classmethod
    def of(cls, images: Images) -> Candidates:
        """Candidates from images."""
        x = images.x.float() / 255
        flat = x.flatten(1)
        centre = flat.mean(0)
        _, axes = torch.linalg.eigh(torch.cov(flat.T) if flat.shape[1] > 1 else torch.eye(1))
        return cls(x, images.y, centre, axes.flip(1)[:, :COMPONENTS])

    def low(self, flat: torch.Tensor) -> torch.Tensor:
        """Flat images [k, P] in principal coordinates [k, d]."""
        return (flat - self.centre) @ self.axes


def image_features(images: Images, them: Candidates) -> dict[str, torch.Tensor]:
    """Features of a set of released images, float64 [n] each.

    Args:
        images: what was released, labels included.
        them: the candidates.

    Returns:
        nearest, nearest-3, nearest-10: minus the mean distance to that many nearest images of the candidate's class;
        density-wide, density-narrow: log mean of a Gaussian kernel over the images of its class (a sum over released
        images as in Hilprecht et al. 2019); nearest-pca: as nearest, in principal coordinates; classifier: log
        probability of the candidate's label by a logistic regression trained on the released images.
    """
    flat, released = them.x.flatten(1), images.x.flatten(1).float() / 255
    names = ["nearest", *(f"nearest-{k}" for k in NEAREST[1:]), *(f"density-{w}" for w in WIDTHS), "nearest-pca"]
    out = {name: torch.zeros(len(flat), dtype=torch.float64) for name in names}
    for k in them.y.unique().tolist():
        mine, theirs = (them.y == k).nonzero()[:, 0], released[images.y == k]
        theirs = theirs if len(theirs) else released  # a class that was never released
        small = them.low(theirs)
        for part in mine.split(max(1, CHUNK // len(theirs))):
            square = squared_distances(flat[part], theirs)
            near = square.topk(min(NEAREST[-1], len(theirs)), largest=False).values.sqrt().double()
            for number, name in zip(NEAREST, names, strict=False):
                out[name][part] = -near[:, :number].mean(1)
            for name, width in WIDTHS.items():
                exponent = -square.double() / (2 * width * flat.shape[1])
                out[f"density-{name}"][part] = exponent.logsumexp(1)
            low = squared_distances(them.low(flat[part]), small)
            out["nearest-pca"][part] = -low.min(1).values.sqrt().double()
    return out | {"classifier": _classifier(images, released, them)}


def squared_distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a_i - b_j|^2 of flat images [p, P] and [q, P]: [p, q]."""
    product = torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2)
    return product.add_(a.square().sum(1)[:, None]).clamp_min_(0)


def _classifier(images: Images, released: torch.Tensor, them: Candidates) -> torch.Tensor:
    """Log probability of each candidate's label; a label that was never released has the smallest."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    seen = images.y.unique().tolist()
    if len(seen) < 2:
        return torch.zeros(len(them.y), dtype=torch.float64)
    scale = them.low(released).std().clamp_min(1e-6)
    model = LogisticRegression(max_iter=300).fit((them.low(released) / scale).numpy(), images.y.numpy())
    said = model.predict_log_proba((them.low(them.x.flatten(1)) / scale).numpy())
    table = np.full((len(said), len(images.classes)), -30.0)
    table[:, model.classes_] = said
    return torch.from_numpy(table).gather(1, them.y[:, None])[:, 0].clamp_min(-30.0)
