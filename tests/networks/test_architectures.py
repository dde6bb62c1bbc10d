"""Instance normalisation in plain order says what the library's says, whatever order its input has in memory."""

import pytest
import torch
from torch import nn

from veilset.networks.architectures import SIX, AvgPool, InstanceNorm, make_network


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_the_librarys(order):
    torch.manual_seed(0)
    ours, theirs = InstanceNorm(6), nn.GroupNorm(6, 6)
    theirs.load_state_dict(ours.state_dict())
    x, weights = torch.randn(3, 6, 5, 7), torch.randn(3, 6, 5, 7)
    slopes = []
    for net in (ours, theirs):
        inside = x.contiguous(memory_format=order).requires_grad_()
        out = net(inside)
        (out * weights).sum().backward()
        slopes.append((out.detach(), inside.grad, net.weight.grad, net.bias.grad))
    for mine, other in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("name", SIX)
def test_no_network_normalises_through_channels_last(name):
    """The library's group norm is many times slower there, and half of a training step was lost to it."""
    orders = []
    net = make_network(name, (1, 28, 28), 3)
    for module in net.modules():
        if isinstance(module, nn.GroupNorm):
            assert isinstance(module, InstanceNorm)
            module.register_forward_hook(lambda m, given, out: orders.append(out.is_contiguous()))
    net.to(memory_format=torch.channels_last)(torch.randn(2, 1, 28, 28).contiguous(memory_format=torch.channels_last))
    assert all(orders)
    assert len(orders) == sum(isinstance(m, InstanceNorm) for m in net.modules())


@pytest.mark.parametrize("sides", [(4, 6), (5, 7), (1, 2)])
def test_average_pool_is_the_librarys(sides):
    x = torch.randn(2, 3, *sides)
    if min(sides) > 1:
        torch.testing.assert_close(AvgPool()(x), nn.AvgPool2d(2)(x))
    else:
        assert AvgPool()(x).shape == (2, 3, 0, 1)
