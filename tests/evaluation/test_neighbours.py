"""Precision, recall, density, coverage against a slow reference, and where they are known."""

from __future__ import annotations

import math

import pytest
import torch

from veilset.core.errors import DataError
from veilset.evaluation import neighbours as module
from veilset.evaluation.neighbours import Neighbours, neighbours, radii


def measure(real: torch.Tensor, fake: torch.Tensor) -> Neighbours:
    return neighbours(real, fake, radii(real), radii(fake))


def slow(real: torch.Tensor, fake: torch.Tensor) -> Neighbours:
    """The definitions, one pair of points after the other, distances by differences."""

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.dist(a.tolist(), b.tolist())

    def radius(x: torch.Tensor, k: int) -> list[float]:
        return [sorted(distance(p, q) for j, q in enumerate(x) if j != i)[k - 1] for i, p in enumerate(x)]

    d = [[distance(r, f) for f in fake] for r in real]
    r3, f3, r5 = radius(real, 3), radius(fake, 3), radius(real, 5)
    n, m = range(len(real)), range(len(fake))
    return Neighbours(
        sum(any(d[i][j] <= r3[i] for i in n) for j in m) / len(fake),
        sum(any(d[i][j] <= f3[j] for j in m) for i in n) / len(real),
        sum(d[i][j] <= r5[i] for i in n for j in m) / (5 * len(fake)),
        sum(any(d[i][j] <= r5[i] for j in m) for i in n) / len(real),
    )


def cloud(n: int, seed: int, width: int = 3, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def same(a: Neighbours, b: Neighbours) -> None:
    assert vars(a) == pytest.approx(vars(b), rel=1e-12)


@pytest.mark.parametrize(("n", "m", "shift"), [(60, 45, 0.0), (45, 60, 0.8), (30, 30, 3.0), (6, 6, 0.5)])
def test_the_four_equal_their_definitions(n: int, m: int, shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 16)  # several blocks, the last one not full
    real, fake = cloud(n, 0), cloud(m, 1, shift=shift)
    expected = slow(real, fake)
    same(measure(real, fake), expected)
    same(measure(real + 1000, fake + 1000), expected)  # far from the origin products round more


def test_points_on_the_rim_and_copies_are_inside() -> None:
    grid = torch.cartesian_prod(*[torch.arange(5.0, dtype=torch.float64)] * 2) * 8  # all distances are exact
    same(measure(grid, grid), slow(grid, grid))
    doubled = torch.cat([cloud(8, 2)] * 6) * 1e3  # each point six times: radii are 0
    got = measure(doubled, doubled)
    assert (got.precision, got.recall, got.coverage) == (1.0, 1.0, 1.0)


def test_collapse_costs_recall_and_noise_costs_precision() -> None:
    real = cloud(400, 3, 8)
    perfect, collapsed, noisy = cloud(400, 4, 8), 0.05 * cloud(400, 5, 8), 4 * cloud(400, 6, 8)
    good, narrow, wide = (measure(real, x) for x in (perfect, collapsed, noisy))
    assert min(vars(good).values()) > 0.7
    assert narrow.precision == 1 and narrow.recall < 0.05 and narrow.coverage < 0.5 and narrow.density > 2
    assert wide.precision < 0.05 and wide.density < 0.05


def test_too_few_points_are_refused() -> None:
    with pytest.raises(DataError, match="got 5 images.*more than 5"):
        radii(cloud(5, 0))
