"""Own scattering against the kymatio package, and what the features promise."""

from __future__ import annotations

import math

import pytest
import torch

from veilset.core.errors import ConfigError
from veilset.networks import scattering

SHAPES = [(1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64), (1, 30, 29), (1, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_kymatio(shape: tuple[int, int, int]) -> None:
    frontend = pytest.importorskip("kymatio.scattering2d.frontend.torch_frontend")  # kymatio.torch needs an old scipy
    x = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    wanted = frontend.ScatteringTorch2D(J=2, shape=shape[1:])(x)
    got = scattering.scattering(x)
    assert got.shape == wanted.shape
    assert float((got - wanted).abs().max()) < 5e-5 * float(wanted.max())  # kymatio's filters are rounded to float32
    fine = (got - wanted)[:, :, 1:].abs().max() / wanted[:, :, 1:].max()
    assert float(fine) < 1e-4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_features_have_mean_0_and_variance_1_in_each_group_whatever_the_image(shape: tuple[int, int, int]) -> None:
    x = torch.stack([torch.rand(shape), torch.zeros(shape), torch.ones(shape), 1e4 * torch.randn(shape)])
    z = scattering.features(x)
    n = scattering.size(shape)
    assert z.shape == (4, n)
    assert bool((z.norm(dim=1) <= math.sqrt(n) * (1 + 1e-5)).all())
    groups = z.unflatten(1, (shape[0] * 27, -1))
    assert float(groups.mean(2).abs().max()) < 1e-3
    assert float((groups[3].square().mean(1) - 1).abs().max()) < 1e-3  # groups of tiny values are left smaller


def test_28_pixels_a_side_give_81_paths_of_7_by_7() -> None:
    assert scattering.scattering(torch.rand(5, 1, 28, 28)).shape == (5, 1, 81, 7, 7)
    assert scattering.size((1, 28, 28)) == 3969 and scattering.size((3, 64, 64)) == 3 * 81 * 16 * 16


def test_a_record_has_the_same_bits_alone_in_any_batch_and_under_vmap() -> None:
    x = torch.rand(32, 1, 28, 28)
    whole, order = scattering.features(x), torch.randperm(32)
    assert torch.equal(scattering.features(x[order]), whole[order])
    assert torch.equal(torch.func.vmap(scattering.features)(x[order]), whole[order])
    other = x.clone()
    other[1:] = 0
    assert torch.equal(scattering.features(other)[0], whole[0])


def test_a_stroke_is_seen_by_the_wavelets_of_its_angle() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., 16, :] = 1  # a horizontal line varies from row to row
    first = scattering.scattering(x)[0, 0, 1:9].mean((1, 2))
    turned = scattering.scattering(x.mT.contiguous())[0, 0, 1:9].mean((1, 2))
    assert int(first.argmax()) == (int(turned.argmax()) + 4) % 8
    assert float(first.max()) > 3 * float(first.min())


def test_gradients_are_those_of_finite_differences() -> None:
    x = torch.rand(1, 8, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(81 * 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def f(x: torch.Tensor) -> torch.Tensor:
        return (scattering.features(x) * weights).sum()

    assert torch.autograd.gradcheck(f, x, eps=1e-6, atol=1e-4)


def test_images_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 5 pixels"):
        scattering.size((1, 4, 28))
