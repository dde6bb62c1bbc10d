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
ROWS = 256  # rows of the distance matrix held at once: 20 MB for 10,000 columns
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
    square, most = x.square().sum(1), max(ks)
    best = torch.full((len(x), most), torch.inf, dtype=torch.float64)

    def keep(rows: slice, distances: torch.Tensor, more: torch.Tensor | int) -> None:
        least = distances.topk(min(most, distances.shape[1]), dim=1, largest=False).values + more
        best[rows] = torch.cat([best[rows], least], 1).topk(most, dim=1, largest=False).values

    for i in range(0, len(x), ROWS):  # the matrix is symmetric: a block serves its rows, and its columns as later rows
        rows, later = slice(i, i + ROWS), slice(i + ROWS, len(x))
        d = torch.addmm(square[i:], x[rows], x[i:].T, alpha=-2)  # the row's own square is still to be added
        d.diagonal().fill_(torch.inf)  # not its own neighbour
        keep(rows, d, square[rows, None])
        if i + ROWS < len(x):
            keep(later, torch.add(d[:, ROWS:].T, square[rows]).contiguous(), 0)
    return best[:, [k - 1 for k in ks]].T.clamp(min=0)


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
    import numpy as np
    import torch

    centre = real.mean(0)  # distances stay, and products round less
    real, fake = real - centre, fake - centre
    # Each distance is a product, plus a term of its column and one of its row, both less the slack. The column's enters
    # with the product; the row's goes to the other side of every comparison, which saves a pass over the matrix.
    of_column, of_row = ((1 - ROUNDING) * x.square().sum(1) for x in (fake, real))
    manifold, dense = ((r - of_row).numpy() for r in real_radii)
    in_real, in_fake = np.zeros(len(fake), bool), torch.zeros(len(real), dtype=torch.bool)
    balls, covered = 0, 0
    for i in range(0, len(real), ROWS):
        rows = slice(i, i + ROWS)
        d = torch.addmm(of_column, real[rows], fake.T, alpha=-2)
        in_real |= (d.numpy() <= manifold[rows, None]).any(0)  # numpy's truth values are ten times quicker than torch's
        inside = np.count_nonzero(d.numpy() <= dense[rows, None], axis=1)
        balls += int(inside.sum())
        covered += int(np.count_nonzero(inside))
        in_fake[rows] = d.sub_(fake_radii[0]).amin(1) <= -of_row[rows]
    return Neighbours(
        float(in_real.mean()), in_fake.double().mean().item(), balls / (K_DENSITY * len(fake)), covered / len(real)
    )
