"""One unit's contribution: never above the bound, whatever the record holds, and summed without rounding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from veilset.privacy.bounding import CROWD, MARGIN, TAIL, ExactSum, clip, grid

HUGE = [1e30, 1e100, 1e101, 1e160, 1e300, 1.7e308, 1e-300, 5e-324, 0.0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(width=64), min_size=1, max_size=20), st.floats(1e-6, 1e6))
def test_a_clipped_row_never_passes_the_bound(row, bound):
    got = clip(torch.tensor([row], dtype=torch.float64), bound)
    assert bool(torch.isfinite(got).all())
    assert float(got.norm()) <= bound * (1 - MARGIN / 2)


@pytest.mark.parametrize("value", HUGE)
def test_huge_finite_rows_keep_their_direction(value):
    got = clip(torch.tensor([[value, -value]], dtype=torch.float64), 2.0)
    assert float(got.norm()) == pytest.approx(min(2.0 * (1 - MARGIN), value * 2**0.5), rel=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_becomes_zero(bad):
    got = clip(torch.tensor([[1.0, bad], [3.0, 4.0]]), 1.0)
    assert got[0].tolist() == [0.0, 0.0]
    assert float(got[1].norm()) == pytest.approx(1 - MARGIN)


def test_the_margin_is_kept():
    """Room for the rounding of norms and sums; the figure is part of the claim (docs/threat-model.md)."""
    v = torch.randn(50, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 100
    norm = clip(v, 2.0).norm(dim=1)
    assert float(norm.max()) <= 2.0 * (1 - 0.99e-6)
    assert float(norm.min()) >= 2.0 * (1 - 1.01e-6)


def test_short_rows_are_left_alone():
    v = torch.tensor([[0.3, -0.4]])
    assert torch.equal(clip(v, 1.0), v.double())


@pytest.mark.parametrize("other", [1e30, 1e101, 1e300, float("nan"), float("inf")])
def test_what_one_row_holds_does_not_change_another_by_a_bit(other):
    v = torch.randn(64, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    alone = clip(v, 1.0)
    beside = clip(torch.cat([v, torch.full((1, 7), other, dtype=torch.float64)]), 1.0)
    assert torch.equal(beside[:64], alone)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), st.floats(1e-3, 1e3), st.integers(1, 7), st.booleans())
def test_truncation_cannot_increase_the_norm(row, bound, images, coarse):
    """However a unit's images fall on the grid, be it as coarse as you like, their sum stays within the bound."""
    step = bound / 9 if coarse else grid(bound, bound, units=100)
    exact = ExactSum(2, 3, bound, step)
    v = torch.tensor([row] * images, dtype=torch.float64)
    exact.add(v, torch.full((images,), 1 / images, dtype=torch.float64), torch.arange(images) % 2)
    total = exact.total()
    assert torch.equal(total.value, total.value.round())
    assert float(total.value.norm()) <= total.sensitivity * (1 - MARGIN / 2)


def test_order_and_chunks_do_not_change_a_bit():
    g = torch.Generator().manual_seed(1)
    v, row = torch.randn(500, 9, generator=g) * 4, torch.randint(0, 3, (500,), generator=g)
    one = torch.ones(500, dtype=torch.float64)
    step = grid(1.0, 3.7, units=500)

    def total(order, size):
        exact = ExactSum(3, 9, 1.0, step)
        for i in range(0, 500, size):
            part = order[i : i + size]
            exact.add(v[part], one[part], row[part])
        return exact.total().value

    first = total(torch.arange(500), 500)
    for size in (1, 7, 64, 499):
        assert torch.equal(total(torch.randperm(500, generator=g), size), first)


@pytest.mark.parametrize("units", [1, 10, 1437, 2**13, 60_000, 10**6, 10**9])
@pytest.mark.parametrize("bound", [1e-3, 1.0, 8.0, 1e4])
@pytest.mark.parametrize("noise", [0.0, 1e-9, 0.5, 3.7, 1e4])
def test_the_grid_is_the_finest_that_holds_sums_and_noise(units, bound, noise):
    step = grid(bound, noise * bound, units)
    largest = max(CROWD * units * bound, TAIL * noise * bound)
    assert math.frexp(step)[0] == 0.5
    assert largest < 2.0**53 * step  # sums of up to eight times the declared units and 64 deviations are exact
    assert largest >= 2.0**52 * step
