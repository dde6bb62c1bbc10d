"""Critics and activations: shapes, isolation of records, losses, and the bound that weight clipping gives."""

from __future__ import annotations

import pytest
import torch

from veilset.core.errors import ConfigError
from veilset.networks.activations import NAMES, TemperedSigmoid, activation
from veilset.networks.critics import (
    LOSSES,
    ConvCritic,
    MLPCritic,
    class_loss,
    fake_loss,
    generator_loss,
    halvings,
    one_hot,
    real_loss,
    score,
    unverified_paper_bound,
    weight_clip_bound,
)
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator, settle

SHAPES = [(1, 28, 28), (3, 32, 32), (1, 13, 9), (3, 64, 64)]


def critics(shape, classes):
    yield MLPCritic(shape, classes, (7, 5))
    yield MLPCritic(shape, classes, (7,), "tanh", labels="input")
    yield MLPCritic(shape, classes, (7,), basis=11)
    yield ConvCritic(shape, classes, 2)
    yield ConvCritic(shape, classes, 2, "tempered-sigmoid", norm="group", hidden=6)


@pytest.mark.parametrize("name", NAMES)
def test_activations_are_elementwise(name):
    x = torch.linspace(-3, 3, 12)
    act = activation(name)
    assert torch.allclose(act(x), torch.cat([act(v[None]) for v in x]))


def test_tanh_is_a_tempered_sigmoid_and_unknown_names_are_refused():
    x = torch.linspace(-4, 4, 50)
    assert torch.allclose(TemperedSigmoid(2, 2, 1)(x), x.tanh(), atol=1e-6)
    with pytest.raises(ConfigError, match="leaky-relu"):
        activation("leaky-rely")


@pytest.mark.parametrize("shape", SHAPES)
def test_critics_take_any_shape_and_keep_records_apart(shape):
    for critic in critics(shape, 3):
        x, y = torch.rand(4, *shape), torch.tensor([0, 1, 2, 0])
        whole = score(critic(x, y), y)
        assert whole.shape == (4,)
        other = x.clone()
        other[3] += 1
        assert torch.equal(score(critic(other, y), y)[:3], whole[:3]), "a record reached another one's score"
        assert not [m for m in critic.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("shape", SHAPES)
def test_generators_take_any_shape(shape):
    for net in (
        DeconvGenerator(shape, 3, 5, 4),
        MLPGenerator(shape, 3, 5, (6,), norm=False),
        MLPGenerator(shape, 3, 5, (6,)),
        MLPGenerator(shape, 3, 5, (6,), basis=11),
    ):
        x = net(torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))
        assert x.shape == (4, *shape) and float(x.min()) >= 0 and float(x.max()) <= 1
        settle(net, 5, 3, 8, rounds=2)
        one = net.eval()(torch.zeros(1, 5), torch.tensor([1]))
        assert torch.allclose(one, net(torch.zeros(2, 5), torch.tensor([1, 2]))[:1], atol=1e-5)


def test_in_a_basis_only_low_frequencies_matter_and_the_basis_is_not_kept():
    critic, y = MLPCritic((1, 8, 8), 3, (7,), basis=10), torch.tensor([1, 2])
    x = torch.rand(2, 1, 8, 8)
    chequers = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert torch.allclose(score(critic(x, y), y), score(critic(x + critic_free(chequers, critic), y), y), atol=1e-5)
    assert critic.widths() == [10, 7, 4] and "basis" not in critic.state_dict()
    generator = MLPGenerator((1, 8, 8), 3, 5, (6,), basis=10).eval()
    logits = generator(torch.randn(4, 5), torch.tensor([0, 1, 2, 0])).logit().flatten(1)
    assert torch.allclose(logits @ critic.basis @ critic.basis.T, logits, atol=1e-4)
    assert "basis" not in generator.state_dict()


def critic_free(x, critic):
    """What of an image x [H, W] a critic in a basis cannot see."""
    v = x.flatten()
    return (v - v @ critic.basis @ critic.basis.T).view_as(x)


def test_one_hot_and_halvings():
    y = torch.tensor([2, 0])
    assert torch.equal(one_hot(y, 3), torch.nn.functional.one_hot(y, 3).float())
    assert [halvings((s, s)) for s in (8, 28, 32, 64)] == [1, 2, 2, 3]


def test_the_score_is_the_common_head_and_the_labels():
    heads = torch.arange(8.0).view(2, 4)
    assert score(heads, torch.tensor([0, 2])).tolist() == [1.0, 11.0]
    wanted = torch.nn.functional.cross_entropy(heads[:, 1:], torch.tensor([0, 2]), reduction="none")
    assert torch.allclose(class_loss(heads, torch.tensor([0, 2])), wanted)


@pytest.mark.parametrize("kind", LOSSES)
def test_losses_have_the_right_sign_and_slope(kind):
    s = torch.linspace(-3, 3, 31, requires_grad=True)
    for loss, low, high in ((real_loss, -1, 0), (fake_loss, 0, 1), (generator_loss, -1, 0)):
        (slope,) = torch.autograd.grad(loss(kind, s).sum(), s)
        assert low - 1e-6 <= float(slope.min()) and float(slope.max()) <= high + 1e-6
        assert float(slope.abs().max()) > 0


# ---------------------------------------------------------------------- the bound by weight clipping


def norm_of_gradient(critic, x, sign=None):
    y = torch.zeros(len(x), dtype=torch.int64)
    s = score(critic(x, y), y)
    total = s[0] if sign is None else (s * torch.tensor(sign)).sum()
    grads = torch.autograd.grad(total, list(critic.parameters()))
    return float(torch.cat([g.flatten() for g in grads]).norm())


def test_the_printed_bound_is_not_one():
    """784-128-1, tanh, every parameter at the limit; a white image against a black one."""
    critic = MLPCritic((1, 28, 28), 1, (128,), "tanh", labels="input")
    critic.layers[0] = torch.nn.Linear(784, 128)
    for p in critic.parameters():
        torch.nn.init.constant_(p, 0.01)
    f = critic.layers
    x = torch.stack([torch.ones(784), torch.zeros(784)])
    s = f(x)[:, 0]
    grads = torch.autograd.grad(s[0] - s[1], list(f.parameters()))
    pair = float(torch.cat([g.flatten() for g in grads]).norm())
    assert pair == pytest.approx(11.20, abs=0.01)
    assert unverified_paper_bound([784, 128, 1], 0.01, 1, 1) == pytest.approx(2.56)
    assert pair <= 2 * weight_clip_bound([784, 128, 1], 0.01, "tanh")


@pytest.mark.parametrize(
    ("widths", "act", "twice"),
    [([784, 128, 1], "tanh", 23.6), ([784, 128, 1], "leaky-relu", 177.7), ([784, 64, 16, 1], "tanh", 8.30)]
    + [([100, 96, 1], "leaky-relu", 20.0), ([784, 128, 128, 1], "leaky-relu", 228.6)],
)
def test_the_bound_has_the_values_worked_out_by_hand(widths, act, twice):
    assert 2 * weight_clip_bound(widths, 0.01, act) == pytest.approx(twice, rel=0.01)


@pytest.mark.parametrize("act", NAMES)
@pytest.mark.parametrize("hidden", [(6,), (9, 4)])
@pytest.mark.parametrize("limit", [0.01, 0.5])
def test_no_gradient_passes_the_bound(act, hidden, limit):
    torch.manual_seed(0)
    critic = MLPCritic((1, 4, 4), 2, hidden, act, labels="input")
    bound = weight_clip_bound(critic.widths(), limit, act)
    for trial in range(20):
        for p in critic.parameters():
            torch.nn.init.uniform_(p, -limit, limit) if trial else torch.nn.init.constant_(p, limit)
        assert norm_of_gradient(critic, torch.ones(1, 1, 4, 4)) <= bound
        assert norm_of_gradient(critic, torch.rand(1, 1, 4, 4)) <= bound
