"""Fidelity and variety apart, by nearest neighbours in feature space: precision, recall, density, coverage.

A ball is drawn around every point of a set, as wide as the distance to its k-th nearest neighbour in the same set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veilset.core.errors import DataError

if TYPE_CHECKING:
    import torch

K_MANIFOLD = 3  # precision and recall, Kynkaanniemi et al. 2019
K_DENSITY = 5  # density and coverage, Naeem et al. 2020
ROWS = 1000  # rows of the distance matrix held at once: 80 MB for 10,000 columns
ROUNDING = 1e-12  # relative to the squared lengths, what a distance computed from a product may be off


@dataclass(frozen=True)
class Neighbours:
    """The four figures, each a share of 0 to 1 except density, which may pass 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def radii(x: torch.Tensor, ks: tuple[int, ...] = (K_MANIFOLD, K_DENSITY)) -> torch.Tensor:
    """Squared distance of each point to its k-th nearest other point: float64 [len(ks), N], for features [N, D].

    Raises:
        DataError: not more points than the largest k.
    """
    import torch

    if len(x) <= max(ks):
        raise DataError(
            f"nearest neighbours got {len(x)} images: precision and its kin need more than {max(ks)} on each side"
        )
    x = x - x.mean(0)
    out = torch.empty(len(ks), len(x), dtype=torch.float64)
    for i in range(0, len(x), ROWS):
        d = _squared(x[i : i + ROWS], x)
        d[torch.arange(len(d)), torch.arange(i, i + len(d))] = torch.inf  # not its own neighbour
        nearest = d.topk(max(ks), dim=1, largest=False).values
        out[:, i : i + len(d)] = nearest[:, [k - 1 for k in ks]].T
    return out


def neighbours(
    real: torch.Tensor, fake: torch.Tensor, real_radii: torch.Tensor, fake_radii: torch.Tensor
) -> Neighbours:
    """The four figures of generated features against real ones.

    precision: share of generated points in at least one ball of a real point; recall: the same with the roles changed
    (Kynkaanniemi et al. 2019, equations 1 and 2; k = 3). density: balls of real points that a generated point lies in,
    divided by k; coverage: share of balls of real points that hold a generated point (Naeem et al. 2020, equations 2
    and 3; k = 5). A point on the rim is inside, also when rounding moves it a little.

    Args:
        real, fake: float64 [N, D], [M, D].
        real_radii, fake_radii: what `radii` says about them.
    """
    import torch

    centre = real.mean(0)  # distances stay, and products round less
    real, fake = real - centre, fake - centre
    slack_real, slack_fake = ROUNDING * real.square().sum(1), ROUNDING * fake.square().sum(1)
    in_real = torch.zeros(len(fake), dtype=torch.bool)
    in_fake = torch.zeros(len(real), dtype=torch.bool)
    balls, covered = 0, 0
    for i in range(0, len(real), ROWS):
        rows = slice(i, i + ROWS)
        d = _squared(real[rows], fake) - slack_real[rows, None] - slack_fake
        in_real |= (d <= real_radii[0, rows, None]).any(0)
        in_fake[rows] = (d <= fake_radii[0]).any(1)
        dense = d <= real_radii[1, rows, None]
        balls += int(dense.sum())
        covered += int(dense.any(1).sum())
    return Neighbours(
        in_real.double().mean().item(),
        in_fake.double().mean().item(),
        balls / (K_DENSITY * len(fake)),
        covered / len(real),
    )


def _squared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared distances [A, B], at least 0."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)).clamp_(min=0)
