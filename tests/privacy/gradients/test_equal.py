"""Every rule, and every loss that uses several of them, gives the gradients of a loop over single records."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from veilset.privacy.gradients.clipped import Clipped, Total
from veilset.privacy.gradients.reference import named, per_record
from veilset.privacy.gradients.sheet import MARGIN
from veilset.privacy.gradients.taps import tapped

N, SHAPE, CLASSES = 7, (3, 8, 8), 4


def loop(loss, net, x, y, seed=None) -> torch.Tensor:
    """Gradients one record at a time by plain autograd: [n, size]. For losses without random draws."""
    rows = []
    for i in range(len(x)):
        if isinstance(net, nn.Module):
            one, leaves = copy.deepcopy(net), None
            leaves = [p for p in one.parameters() if p.requires_grad]
        else:
            one = {k: v.clone().requires_grad_() for k, v in net.items()}
            leaves = list(one.values())
        grads = torch.autograd.grad(loss(one, x[i], y[i]), leaves, allow_unused=True)
        pairs = zip(grads, leaves, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    return torch.stack(rows)


def classify(net, x, y):
    return F.cross_entropy(net(x[None]), y[None])


class Twice(nn.Module):
    """One linear layer and one convolution used twice, and a weight that is also used directly."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(192, 4)
        self.mix = nn.Linear(4, 4)
        self.unused = nn.Linear(5, 5)

    def forward(self, x):
        x = F.silu(self.conv(F.silu(self.conv(x))))
        return self.mix(torch.tanh(self.mix(self.out(x.flatten(1))))) + self.mix.weight.sum()


class Attention(nn.Module):
    """Self-attention over positions, with one projection by Linear and one by 1x1 convolution."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 2, stride=2), nn.GroupNorm(2, 8)
        self.qkv, self.proj, self.out = nn.Conv2d(8, 24, 1), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = self.stem(x)
        q, k, v = self.qkv(self.norm(h)).flatten(2).transpose(1, 2).chunk(3, 2)
        h = h.flatten(2).transpose(1, 2) + self.proj(torch.softmax(q @ k.transpose(1, 2) / 8**0.5, 2) @ v)
        return self.out(h.mean(1))


class Conditional(nn.Module):
    """An embedding, a linear layer at several positions, layer and instance norm, transposed convolution."""

    def __init__(self):
        super().__init__()
        self.embed, self.inst = nn.Embedding(CLASSES + 1, 6), nn.InstanceNorm2d(3, affine=True)
        self.up = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1, output_padding=1)
        self.norm, self.row, self.out = nn.LayerNorm(17), nn.Linear(17, 6), nn.Linear(6, 4)

    def forward(self, x, y):
        h = self.row(self.norm(self.up(self.inst(x)))).mean((1, 2))
        return self.out(torch.tanh(h + self.embed(y)))


class Position(nn.Module):
    """Parameters that no layer owns, and a layer whose input no record changes."""

    def __init__(self):
        super().__init__()
        self.place, self.scale = nn.Parameter(torch.randn(3, 8, 8)), nn.Parameter(torch.ones(()))
        self.time, self.out = nn.Linear(2, 192), nn.Linear(192, 4)
        self.register_buffer("clock", torch.tensor([[0.3, -1.0]]))

    def forward(self, x):
        return self.out(torch.tanh((x + self.place).flatten(1) * self.scale + self.time(self.clock)))


class Tied(nn.Module):
    """Two layers with one weight under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(192, 192), nn.Linear(192, 192), nn.Linear(192, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1))))))


class InPlace(nn.Module):
    """What layers give is changed in place: by functions, by modules, by sums, and through a view."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.Linear(576, 4)
        self.norm, self.relu = nn.GroupNorm(4, 16), nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.first(x))
        more = self.norm(self.second(h))
        more += h
        more[:, :8].mul_(0.5)
        out = self.out(F.silu(more, inplace=True).flatten(1))
        out[:, 0] += 1
        return out.sub_(0.1)


def small(*layers) -> nn.Module:
    return nn.Sequential(*layers)


def classifier(*layers) -> nn.Module:
    """The layers, then a linear head of four classes."""
    body = nn.Sequential(*layers, nn.Flatten())
    return nn.Sequential(body, nn.Linear(body(torch.zeros(1, *SHAPE)).shape[1], CLASSES))


CASES = {
    "linear": (lambda: classifier(nn.Flatten(), nn.Linear(192, 9, bias=False), nn.Tanh()), classify),
    "conv": (lambda: classifier(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3)), classify),
    "conv stride 2": (
        lambda: classifier(nn.Conv2d(3, 6, 4, 2, 1), nn.SiLU(), nn.Conv2d(6, 4, 3, 2, bias=False)),
        classify,
    ),
    "conv uneven": (lambda: classifier(nn.Conv2d(3, 4, (2, 3), (2, 1), (0, 2), (1, 2)), nn.SiLU()), classify),
    "conv same padding": (lambda: classifier(nn.Conv2d(3, 4, 3, padding="same"), nn.SiLU()), classify),
    "conv groups": (lambda: classifier(nn.Conv2d(3, 6, 3, groups=3), nn.SiLU()), classify),
    "transposed": (
        lambda: classifier(nn.Conv2d(3, 6, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(6, 2, 3, 2, 1, 1)),
        classify,
    ),
    "group norm": (lambda: classifier(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.SiLU()), classify),
    "group norm plain": (
        lambda: classifier(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6, affine=False), nn.SiLU()),
        classify,
    ),
    "shared": (Twice, classify),
    "tied": (Tied, classify),
    "in place": (InPlace, classify),
    "attention": (Attention, classify),
    "conditional": (Conditional, lambda f, x, y: F.cross_entropy(f(x[None], y[None]), y[None])),
    "own parameters": (Position, classify),
    "several draws": (
        lambda: small(classifier(nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6), nn.SiLU()), nn.Tanh(), nn.Linear(4, 4)),
        lambda f, x, y: F.cross_entropy(f(torch.stack([x, x.flip(2), 2 * x, x - 1])), y.expand(4)),
    ),
    "real and fake": (
        lambda: small(nn.Conv2d(3, 6, 4, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(96, 1)),
        lambda f, x, y: F.softplus(-f(x[None])).sum() + F.softplus(f(1 - x[None])).sum(),
    ),
    "mapping": (
        lambda: {"w": torch.randn(4, 192), "b": torch.randn(4)},
        lambda p, x, y: F.cross_entropy(F.linear(x.flatten()[None], p["w"], p["b"]), y[None]),
    ),
    "frozen part": (lambda: frozen(classifier(nn.Conv2d(3, 6, 3), nn.SiLU())), classify),
}


def frozen(net: nn.Module) -> nn.Module:
    """All but the first convolution's weight are trained."""
    net[0][0].weight.requires_grad_(False)
    return net


def summed(clipped, loss, net, x, y, used, bound, *own) -> torch.Tensor:
    """The clipped sum over the first `used` records, each a unit of its own; the rest is padding."""
    total = Total(clipped.size, bound, several=False)
    clipped.add(total, loss, net, (x, y, *own), torch.arange(used), torch.ones(used, dtype=torch.int64))
    return total.sum


@pytest.fixture
def records():
    torch.manual_seed(5)
    return torch.randn(N, *SHAPE), torch.randint(0, CLASSES, (N,))


def built(case: str):
    torch.manual_seed(1)
    make, loss = CASES[case]
    net = make()
    if isinstance(net, nn.Module):
        for p in net.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return net, loss


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", CASES)
def test_per_record_gradients_equal_a_loop(case, layout, records):
    net, loss = built(case)
    x, y = records
    wanted = loop(loss, net, x, y)  # contiguous: torch's own instance_norm has a wrong gradient for channels_last
    if isinstance(net, nn.Module):
        net = net.to(memory_format=layout)
    got = tapped(loss, net, (x.contiguous(memory_format=layout), y)).rows()
    assert float((got - wanted).norm(dim=1).div(wanted.norm(dim=1)).max()) < 1e-4
    reference = per_record(loss, net, (x, y))
    flat = torch.cat([reference[k].reshape(N, -1) for k in named(net)], 1)
    assert float((flat - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("bound", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("case", CASES)
def test_the_clipped_sum_equals_a_loop(case, bound, records):
    net, loss = built(case)
    x, y = records
    wanted = loop(loss, net, x, y).double()
    most = bound * (1 - MARGIN)
    wanted = (wanted * (most / wanted.norm(dim=1, keepdim=True).clamp_min(most))).sum(0)
    clipped = Clipped(loss, net, (x[0], y[0]))
    assert clipped.fast
    got = summed(clipped, loss, net, x, y, N, bound)
    assert float((got - wanted).norm() / wanted.norm()) < 2e-4
    some = summed(clipped, loss, net, x, y, 3, bound)  # the other four are padding
    alone = summed(clipped, loss, net, x[:3], y[:3], 3, bound)
    assert float((some - alone).norm() / alone.norm()) < 1e-5
