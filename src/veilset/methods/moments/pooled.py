"""The plainest private Gaussian: a mean per class on a coarse grid, and one covariance that all classes share.

A rival to measure others by (`dp-moments --recipe pooled`), frozen: where units are few or noise is large, hardly
anything finer can be told, so a method that has to be right on any set may not be worse than this one.

Private access, each a sum over images:
  mean     averages of z - 1/2 over the cells of the grid, by class, clipped to C0, and a constant that counts
  within   r r', r = z - noisy mean of the class, clipped to C: of all classes together
"""

from __future__ import annotations

import math

import torch

from veilset.core.types import PublicInfo
from veilset.learning.shrinkage import root, shrunk
from veilset.methods.base import State
from veilset.methods.stages import Asked, Earlier, Stage
from veilset.networks.dct import half, whole
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

GRID = 8  # cells a side
CENTRED, RESIDUAL = 0.5, 0.3  # C0 (which no image passes) and C, in units of sqrt(C H W)
COUNT = 0.3  # the constant that counts, relative to the clipping bound beside it


class Pooled(Stage):
    """Means of classes and their common covariance, on a grid of averages."""

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """Two sums of equal cost."""
        side, d = math.sqrt(info.pixels), len(grid(info.shape))
        bounds = {"mean": CENTRED * side * math.hypot(1, COUNT), "within": (RESIDUAL * side) ** 2}
        releases = tuple(Release(name=name, bound=bound) for name, bound in bounds.items())
        return Plan(releases, seconds=2 + 6e-9 * info.units * d * d, memory_mb=400 + 1e-4 * d * d)

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """Mean, then covariance about it."""
        basis, classes = grid(info.shape).to(self.device), len(info.classes)
        c0, c = (scale * math.sqrt(info.pixels) for scale in (CENTRED, RESIDUAL))
        middle = 0.5 * basis.sum(1)

        def centred(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            z = basis @ x.flatten() - middle
            return torch.cat([z * (c0 / z.norm().clamp_min(c0)), z.new_full((1,), COUNT * c0)])

        answer = gate.sum("mean", centred, by_class=True).float()
        expected = info.units / classes
        count = (answer[:, -1:] / (COUNT * c0)).clamp(expected / 50, info.units)
        mean = middle.cpu() + answer[:, :-1] / count
        here = mean.to(basis)

        def products(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            r = basis @ x.flatten() - here[y]
            return half(r * (c / r.norm().clamp_min(c)))

        noise = gate.deviation("within") / info.units
        within = whole(gate.sum("within", products).float() / info.units, len(basis))
        return {"mean": mean, "root": root(shrunk(within, noise)), "basis": basis.cpu()}

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Clamped draws."""
        z = state["mean"][labels] + torch.randn(len(labels), len(state["basis"])) @ state["root"]
        return (z @ state["basis"]).clamp(0, 1).unflatten(1, info.shape)


def grid(shape: tuple[int, int, int]) -> torch.Tensor:
    """Orthonormal rows [C x at most GRID^2, C H W]: averages of each colour over the cells of a grid."""
    c, h, w = shape
    down, across = (_cells(n) for n in (h, w))
    return torch.einsum("de,ih,jw->dijehw", torch.eye(c), down, across).flatten(3).flatten(0, 2)


def _cells(n: int) -> torch.Tensor:
    """Orthonormal rows [min(n, GRID), n] of cells in a row."""
    m = min(n, GRID)
    rows = torch.nn.functional.one_hot(torch.arange(n) * m // n, m).T.float()
    return rows / rows.norm(dim=1, keepdim=True)
