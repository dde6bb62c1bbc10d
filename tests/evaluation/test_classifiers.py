"""The CNN's shapes and its dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from veilset.networks.classifiers import CNN, HalfDropout


def test_the_network_is_the_published_one_at_28() -> None:
    net = CNN((1, 28, 28), 10)
    widths = [m.in_features for m in net.modules() if isinstance(m, nn.Linear)]
    assert widths == [1152, 128]
    assert [m.padding for m in net.modules() if isinstance(m, nn.Conv2d)] == [(0, 0)] * 3
    assert not net.resized


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (3, 64, 64), (1, 28, 40), (1, 8, 100), (3, 200, 31)])
def test_any_shape_gives_logits(shape: tuple[int, int, int]) -> None:
    net = CNN(shape, 7).eval()
    assert net(torch.zeros(2, *shape)).shape == (2, 7)


def test_half_dropout_is_the_identity_in_evaluation_mode() -> None:
    x = torch.randn(3, 5)
    assert HalfDropout().eval()(x) is x


def _layouts() -> dict[str, torch.Tensor]:
    x = torch.ones(8, 16, 13, 13)
    return {
        "rows": torch.ones(50, 500),
        "channels first": x,
        "channels last": x.to(memory_format=torch.channels_last),
        "bfloat16": x.bfloat16(),
        "strided": torch.ones(8, 16, 13, 26)[..., ::2],
        "odd count": torch.ones(3, 7, 11, 13)[:, :, 1:, 1:],
    }


@pytest.mark.parametrize("layout", list(_layouts()))
def test_half_dropout_has_the_distribution_of_dropout(layout: str) -> None:
    x = _layouts()[layout]
    torch.manual_seed(0)
    draws = torch.stack([HalfDropout()(x) for _ in range(40)]).double()
    assert draws.dtype == torch.float64 and set(draws.unique().tolist()) == {0.0, 2.0}
    coins = draws.flatten(1) - 1  # fair coins of -1 and 1
    total = coins.numel()
    assert abs(coins.sum()) < 5 * total**0.5
    # Independent: all bytes of one drawn word, across words, and the same place in two draws.
    for lag in range(1, 17):
        pairs = coins[:, lag:] * coins[:, :-lag]
        assert abs(pairs.sum()) < 5 * pairs.numel() ** 0.5
    between = coins[1:] * coins[:-1]
    assert abs(between.sum()) < 5 * between.numel() ** 0.5
    # Every place is hit: no element is always kept or always dropped (chance 2^-39 each).
    assert coins.std(0).min() > 0


def test_half_dropout_passes_gradients_through_its_mask() -> None:
    x = torch.ones(1000, requires_grad=True)
    y = HalfDropout()(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
