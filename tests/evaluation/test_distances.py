"""Frechet, kernel distance and Inception Score against torchmetrics and against slow references, to 1e-4 relative."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from veilset.core.errors import DataError
from veilset.evaluation import distances
from veilset.evaluation.distances import (
    Gaussian,
    fit,
    frechet,
    frechet_between,
    inception_score,
    kernel_distance,
    squared_mmd,
)

WIDTH = 24


class Columns(torch.nn.Module):
    """A feature extractor that reads the features out of the picture."""

    num_features = WIDTH

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :WIDTH].double()


def pictures(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, 8, 8, generator=generator, dtype=torch.float64) * (1 + 0.2 * seed)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    return pictures(300, 0), pictures(300, 1)


def test_all_three_equal_torchmetrics(pair: tuple[torch.Tensor, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    fid = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance(feature=Columns())
    kid = pytest.importorskip("torchmetrics.image.kid").KernelInceptionDistance(feature=Columns(), subset_size=300)
    score = pytest.importorskip("torchmetrics.image.inception").InceptionScore(feature=Columns(), splits=1)
    fid.set_dtype(torch.float64)
    for m in (fid, kid):
        m.update(pair[0], real=True)
        m.update(pair[1], real=False)
    score.update(pair[0])
    a, b = (Columns()(x) for x in pair)
    assert frechet_between(fit(a), fit(b)) == pytest.approx(fid.compute().item(), rel=1e-4)
    assert squared_mmd(a, b) == pytest.approx(kid.compute()[0].item(), rel=1e-4)
    monkeypatch.setattr(distances, "SPLITS", 1)  # which image is in which split is a matter of chance there
    assert inception_score(a)[0] == pytest.approx(score.compute()[0].item(), rel=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1.0001, 1.05])
@pytest.mark.parametrize("falls", [0.5, 1.5, 4.0])
def test_the_quick_way_to_a_frechet_distance_is_taken_where_it_is_right(falls: float, scale: float) -> None:
    """Spectra from flat to nearly singular, distances from 0 up: it is within 1e-6 of the slow way, or not taken."""
    generator = torch.Generator().manual_seed(9)
    turn = torch.linalg.qr(torch.randn(60, 60, generator=generator, dtype=torch.float64))[0]
    a = torch.randn(1000, 60, generator=generator, dtype=torch.float64) * (1 + torch.arange(60)) ** -falls @ turn
    one, other = fit(a), fit(scale * a)
    slow = frechet_between(Gaussian(one.mean, one.factor), other)
    assert frechet_between(one, other) == pytest.approx(slow, rel=1e-6, abs=1e-14)


def test_the_quick_way_to_a_frechet_distance_is_taken_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (torch.randn(300, WIDTH, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    expected = frechet_between(fit(a), fit(b))
    monkeypatch.setattr(torch.linalg, "svdvals", lambda _: pytest.fail("singular values were taken"))
    assert frechet_between(fit(a), fit(b)) == expected


@pytest.mark.parametrize("images", [10, 200])
def test_frechet_equals_the_matrix_square_root_of_scipy(images: int) -> None:
    """Also where the covariances are singular: fewer images than features."""
    a, b = Columns()(pictures(images, 2)), Columns()(pictures(images + 3, 3))
    (ma, ca), (mb, cb) = ((x.numpy().mean(0), np.cov(x.numpy().T)) for x in (a, b))
    ridge = 1e-9 * np.eye(WIDTH)  # sqrtm needs it; it moves the distance by less than the tolerance
    root = scipy.linalg.sqrtm((ca + ridge) @ (cb + ridge)).real
    expected = ((ma - mb) ** 2).sum() + np.trace(ca + cb - 2 * root)
    assert frechet_between(fit(a), fit(b)) == pytest.approx(expected, rel=1e-4)
    by_moments = frechet(*(torch.from_numpy(v) for v in (ma, ca, mb, cb)))
    assert by_moments == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_equals_its_definition() -> None:
    a, b = Columns()(pictures(7, 4)), Columns()(pictures(5, 5))

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (math.fsum((x * y).tolist()) / WIDTH + 1) ** 3

    aa = [k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j]
    bb = [k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j]
    ab = [k(x, y) for x in a for y in b]
    expected = sum(aa) / len(aa) + sum(bb) / len(bb) - 2 * sum(ab) / len(ab)
    assert squared_mmd(a, b) == pytest.approx(expected, rel=1e-9)
    assert kernel_distance(a, b) == (pytest.approx(expected), None, 5)


def test_kernel_distance_has_no_bias_and_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "SUBSET", 50)
    a, b = Columns()(pictures(400, 6)), Columns()(pictures(400, 7))
    mean, deviation, size = kernel_distance(a, b)
    assert deviation is not None and size == 50
    assert abs(mean - squared_mmd(a, b)) < 5 * deviation / math.sqrt(distances.SUBSETS)
    assert kernel_distance(a, b) == (mean, deviation, size)


def test_inception_score_equals_its_definition() -> None:
    logits = 3 * torch.randn(40, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    scores = []
    for part in logits[order].softmax(1).numpy().reshape(10, 4, 6):
        marginal = part.mean(0)
        scores.append(math.exp(sum((row * np.log(row / marginal)).sum() for row in part) / 4))
    assert inception_score(logits) == (pytest.approx(np.mean(scores)), pytest.approx(np.std(scores)))


def test_inception_score_of_certain_and_of_blind_classifiers() -> None:
    sure = torch.eye(5, dtype=torch.float64).repeat_interleave(400, 0) * 1e4  # sorted by class, as samples are
    assert inception_score(sure)[0] == pytest.approx(5, rel=0.02)
    assert inception_score(torch.zeros(50, 5, dtype=torch.float64)) == (pytest.approx(1), pytest.approx(0))


def test_too_few_images_are_refused_with_the_number() -> None:
    x = torch.randn(9, 4, dtype=torch.float64)
    with pytest.raises(DataError, match="got 1 images: it needs at least 2"):
        fit(x[:1])
    with pytest.raises(DataError, match="got 1 images: it needs at least 2"):
        kernel_distance(x, x[:1])
    with pytest.raises(DataError, match="got 9 images: it needs at least 10"):
        inception_score(x)
