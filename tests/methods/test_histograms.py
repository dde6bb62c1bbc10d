"""histograms: distributions near to noisy ones, nearer to the true ones where these have the assumed form."""

from __future__ import annotations

import pytest
import torch

from veilset.methods.moments import texture
from veilset.methods.moments.histograms import nearest, peaked, stepped

CELLS, MIDDLE = texture.CELLS, texture.CELLS // 2
WIDTHS = texture._widths()


def _band() -> torch.Tensor:
    """Shares of values with a density that falls from 0 on both sides, half of them exactly 0."""
    u = torch.arange(CELLS) / CELLS + 0.5 / CELLS
    shares = torch.exp(-texture._v(u, True).abs() / 0.05) * WIDTHS
    shares[MIDDLE] = 0
    shares = shares / shares.sum() / 2
    shares[MIDDLE] = 0.5
    return shares


def _pixels() -> torch.Tensor:
    """Most at one end, some at the other, the rest alike in two runs."""
    shares = torch.cat([torch.full((60,), 0.0005), torch.full((69,), 0.002)])
    shares[0] += 0.6
    shares[-1] += 0.1
    return shares / shares.sum()


def test_a_distribution_is_the_nearest_one() -> None:
    given = torch.tensor([0.5, 0.3, 0.2])
    assert torch.allclose(nearest(given), given, atol=1e-6)
    assert torch.allclose(nearest(torch.tensor([0.9, 0.4, -0.3, 0.05])), torch.tensor([0.75, 0.25, 0, 0]), atol=1e-6)
    assert float(nearest(torch.randn(50)).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("deviation", [0.0, 1e-9, 1e-4])
def test_true_forms_stay_as_they_are(deviation: float) -> None:
    assert torch.allclose(peaked(_band(), deviation, WIDTHS), _band(), atol=1e-6)
    assert torch.allclose(stepped(_pixels(), deviation), _pixels(), atol=1e-6)


@pytest.mark.parametrize("deviation", [0.0003, 0.002])
def test_noise_leaves_less_than_in_the_nearest_distribution(deviation: float) -> None:
    torch.manual_seed(0)
    for _ in range(5):
        for true, found in (
            (_band(), lambda noisy: peaked(noisy, deviation, WIDTHS)),
            (_pixels(), lambda noisy: stepped(noisy, deviation)),
        ):
            noisy = true + deviation * torch.randn(CELLS)
            after, before = ((p - true).norm() for p in (found(noisy), nearest(noisy)))
            assert float(after) < 0.9 * float(before), (after, before)
            assert float(found(noisy).sum()) == pytest.approx(1, abs=1e-5) and float(found(noisy).min()) >= 0


def test_a_peaked_density_rises_and_falls_whatever_its_cells_width() -> None:
    torch.manual_seed(0)
    density = peaked(_band() + 0.002 * torch.randn(CELLS), 0.002, WIDTHS) / WIDTHS
    slopes = density.diff()
    assert float(slopes[: MIDDLE - 1].min()) >= -1e-4 and float(slopes[MIDDLE + 1 :].max()) <= 1e-4
    assert float((_band().diff() > 0)[MIDDLE + 1 :].sum()) > 5, "shares themselves do rise where cells get wider"


def test_two_peaks_are_believed_where_noise_cannot_be_their_reason() -> None:
    """Lines of one width have bands of few values; noise that hides them makes one peak of them."""
    torch.manual_seed(0)
    two = _band() * 0.8
    two[MIDDLE + 30] += 0.2
    seen = peaked(two + 0.001 * torch.randn(CELLS), 0.001, WIDTHS)
    assert float(seen[MIDDLE + 30]) == pytest.approx(float(two[MIDDLE + 30]), abs=0.005)
    assert float(seen[MIDDLE + 29]) < 0.01
    hidden = peaked(two + 0.2 * torch.randn(CELLS), 0.2, WIDTHS)
    assert float(hidden.sum()) == pytest.approx(1, abs=1e-5)
    assert float((hidden / WIDTHS).diff()[MIDDLE + 1 :].max()) <= 1e-4
