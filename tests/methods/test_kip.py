"""dp-kip: kernel regression from support images, its gradient carried to the images, and what is released."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import veilset as vs
from veilset.methods.condensation import dp_kip
from veilset.methods.condensation.dp_kip import regression
from veilset.methods.teachers import dp_scatter
from veilset.networks import scattering


def targets(y: torch.Tensor, classes: int) -> torch.Tensor:
    return nn.functional.one_hot(y, classes).float() - 1 / classes


def test_without_ridge_the_regression_interpolates_its_support() -> None:
    torch.manual_seed(0)
    x, y = torch.rand(8, 1, 8, 8), targets(torch.arange(8) % 4, 4)
    f = scattering.features(x)
    assert torch.allclose(f @ regression(x, y, 1e-7).T, y, atol=1e-3)
    assert float((f @ regression(x, y, 1e3).T).abs().max()) < 0.1 * float(y.abs().max())


def test_a_gradient_of_the_classifier_is_carried_to_the_images_as_the_loss_would_carry_it() -> None:
    """J' (dL/dW), as a step does, is dL/dx of the whole loss: by autograd, and by differences of one pixel."""
    torch.manual_seed(0)
    x, y = torch.rand(6, 1, 8, 8, dtype=torch.float64), targets(torch.arange(6) % 3, 3).double()
    z, t = scattering.features(torch.rand(9, 1, 8, 8, dtype=torch.float64)), torch.arange(9) % 3
    wanted = targets(t, 3).double()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (0.5 * (z @ regression(x, y, 1e-3).T - wanted).square().mean(1)).mean()

    weight = regression(x, y, 1e-3)
    inner = torch.stack([_weight_gradient(weight, a, b) for a, b in zip(z, t, strict=True)]).mean(0)
    there = x.clone().requires_grad_()
    (regression(there, y, 1e-3) * inner).sum().backward()
    whole = torch.autograd.grad(loss(here := x.clone().requires_grad_()), here)[0]
    assert torch.allclose(there.grad, whole, atol=1e-9)
    bump = torch.zeros_like(x)
    bump[2, 0, 3, 4] = 1e-6
    slope = float((loss(x + bump) - loss(x - bump)) / 2e-6)
    assert slope == pytest.approx(float(whole[2, 0, 3, 4]), rel=1e-3)


def _weight_gradient(weight: torch.Tensor, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What the gate's loss gives for one record."""
    net = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype)
    net.weight.data.copy_(weight)
    dp_kip._error(net, z, y).backward()
    return net.weight.grad


@pytest.fixture(scope="module")
def fitted():
    params = {"per_class": 3, "steps": 25}
    return vs.make("dp-kip", **params).fit(vs.load("digits").train, vs.Privacy(50.0), seed=0)


@pytest.mark.long
def test_thirty_images_classify_the_digits(fitted) -> None:
    test, images = vs.load("digits").test, fitted.sample(30)
    assert images.y.bincount().tolist() == [3] * 10 and len({x.numpy().tobytes() for x in images.x}) == 30
    weight = regression(images.x.float() / 255, targets(images.y, 10), 1e-3)
    right = (dp_scatter.seen(test.x.float() / 255).float() @ weight.T).argmax(1) == test.y
    assert float(right.float().mean()) > 0.8
    start = regression(torch.rand(30, 1, 8, 8), targets(images.y, 10), 1e-3)
    chance = (dp_scatter.seen(test.x.float() / 255).float() @ start.T).argmax(1) == test.y
    assert float(chance.float().mean()) < 0.5, "random images would have done"


@pytest.fixture(scope="module")
def begun():
    """One step that hardly moves anything."""
    return vs.make("dp-kip", per_class=3, steps=1, lr=1e-9).fit(vs.load("digits").train, vs.Privacy(1.0), seed=4)


def test_a_longer_sample_repeats_the_set(begun) -> None:
    images = begun.sample(60)
    for k in range(10):
        own = [x.numpy().tobytes() for x in images.x[images.y == k]]
        assert len(own) == 6 and len(set(own)) == 3


def test_it_starts_from_noise_about_grey(begun) -> None:
    x = begun._state["x"]
    assert abs(float(x.mean()) - 0.5) < 0.05 and 0.1 < float(x.std()) < 0.25
    assert float((x - x.flip(0)).abs().mean()) > 0.1, "no two classes start from the same picture"
