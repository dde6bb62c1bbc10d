"""fd-gabor: the distance itself, its features, and that it grows when images get worse."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.evaluation import evaluate
from veilset.evaluation.fidelity import features, frechet, gabor_bank, moments


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return frechet(*moments(a), *moments(b))


@pytest.mark.parametrize("rank", [1, 3, 6, 20])
def test_frechet_equals_the_matrix_square_root_form(rank: int) -> None:
    rng = np.random.default_rng(rank)
    for _ in range(5):
        (ma, mb), (a, b) = rng.normal(size=(2, 6)), rng.normal(size=(2, 6, rank))
        a, b = a @ a.T + 1e-6 * np.eye(6), b @ b.T + 1e-6 * np.eye(6)
        expected = ((ma - mb) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
        got = frechet(*(torch.from_numpy(v) for v in (ma, a, mb, b)))
        assert got == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_frechet_of_point_masses_and_scaled_gaussians_is_known() -> None:
    zero, eye = torch.zeros(4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    assert frechet(zero, 0 * eye, zero + 3, 0 * eye) == pytest.approx(36)
    assert frechet(zero, eye, zero, 9 * eye) == pytest.approx(4 * (3 - 1) ** 2)


def test_identical_sets_are_at_distance_zero(digits: Images) -> None:
    assert distance(digits.x, digits.x) < 1e-8
    shuffled = digits.x[torch.randperm(len(digits), generator=torch.Generator().manual_seed(1))]
    assert distance(digits.x, shuffled) < 1e-8


def test_moments_are_those_of_the_features(digits: Images) -> None:
    mean, cov = moments(digits.x)
    f = features(digits.x).numpy()
    np.testing.assert_allclose(mean, f.mean(0), rtol=1e-10)
    np.testing.assert_allclose(cov, np.cov(f.T), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("channels", "width"), [(1, 208), (3, 240)])
def test_features_of_grey_and_colour(channels: int, width: int) -> None:
    flat = torch.full((2, channels, 20, 45), 100, dtype=torch.uint8)
    f = features(flat)
    assert f.shape == (2, width) and f.dtype == torch.float64
    assert torch.allclose(f[:, : 16 * channels], torch.tensor(100.0).double())  # brightness in grey levels
    assert f[:, 16 * channels :].abs().max() < 1e-4  # a flat image has no texture


def test_each_filter_answers_its_own_orientation() -> None:
    assert gabor_bank().sum((1, 2, 3)).abs().max() < 1e-6
    across = 127 + 100 * torch.cos(2 * torch.pi * torch.arange(32) / 4)
    vertical_bars = across.expand(1, 1, 32, 32).round().to(torch.uint8)
    for image, best in ((vertical_bars, 0), (vertical_bars.mT, 2)):
        energy = features(image)[0, 16 : 16 + 64].view(4, 16).mean(1)
        assert energy.argmax() == best and energy[best] > 5 * energy[2 - best]


def test_it_grows_with_noise_blur_and_class_collapse(train: Images, test: Images) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(train.x.shape, generator=generator)

    def noisy(sd: float) -> torch.Tensor:
        return (train.x + sd * noise).clamp(0, 255).to(torch.uint8)

    def blurred(times: int) -> torch.Tensor:
        v = train.x.float()
        for _ in range(times):
            v = torch.nn.functional.avg_pool2d(v, 3, 1, 1)
        return v.to(torch.uint8)

    chains = {
        "noise": [noisy(sd) for sd in (0, 15, 30, 60, 120)],
        "blur": [blurred(k) for k in (0, 1, 2, 4)],
        "collapse": [train.x[train.y < k] for k in (10, 7, 4, 2, 1)],
    }
    for name, chain in chains.items():
        values = [distance(x, test.x) for x in chain]
        assert values == sorted(values) and values[1] > 1.2 * values[0], (name, values)


def test_the_detail_states_both_counts_and_fixed_images_are_measured_once(train: Images, test: Images) -> None:
    m = evaluate(train, test, metrics=["fd-gabor"])["fd-gabor"]
    assert (m.detail["images"], m.detail["against_images"]) == (1200, 597)
    assert m.seeds == 1 and m.spread is None and m.better == "lower"
    with pytest.raises(DataError, match="at least 2"):
        evaluate(train[:1], test, metrics=["fd-gabor"])
