"""The clipped sum: what a record can do to it, what is refused, what falls back, and what bfloat16 changes."""

from __future__ import annotations

import warnings

import pytest
import torch
from test_equal import CASES, CLASSES, SHAPE, N, built, classifier, classify, loop, summed
from torch import nn
from torch.nn import functional as F

from veilset.core.errors import ConfigError
from veilset.privacy.gradients.clipped import Clipped, Total
from veilset.privacy.gradients.sheet import MARGIN, ROWS, Sheet


def images(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, *SHAPE, generator=g), torch.randint(0, CLASSES, (n,), generator=g)


# ---------------------------------------------------------------------- the bound


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e10])
@pytest.mark.parametrize("case", CASES)
def test_no_record_moves_the_sum_by_more_than_the_bound(case, scale, bfloat16):
    """With 31 others, for ordinary, huge and adversarial inputs."""
    net, loss = built(case)
    x, y = images(32)
    x[5] *= scale
    x[9], x[10] = scale, 0.0
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        clipped = Clipped(loss, net, (x[0], y[0]))
        everyone = summed(clipped, loss, net, x, y, 32, 1.0)
        for k in (5, 9, 10, 20):
            keep = [i for i in range(32) if i != k] + [k]  # the record that is left out becomes padding
            others = summed(clipped, loss, net, x[keep], y[keep], 31, 1.0)
            assert bool(torch.isfinite(others).all())
            assert float((everyone - others).norm()) <= 1.0


@pytest.mark.parametrize("layer", [F.linear, lambda x, w: w @ x, lambda x, w: (w * x).sum(1)])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_margin_is_kept(bfloat16, layer):
    """Room for float32, in every contribution: each record has a class, and so a row of the weight, to itself."""
    x = torch.rand(64, 20, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 64)[:, None]
    w = {"w": torch.zeros(64, 20)}

    def loss(p, x, y):
        return 1e4 * ((torch.arange(64) == y) * layer(x, p["w"])).sum()

    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        clipped = Clipped(loss, w, (x[0], torch.tensor(0)))
        got = summed(clipped, loss, w, x, torch.arange(64), 64, 1.0)
    norm = got.view(64, 20).norm(dim=1)
    assert float(norm.max()) <= 1 - 0.99e-3
    assert float(norm.min()) >= 1 - 1.1e-3


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_cancelling_positions_cannot_hide_a_large_contribution(length):
    """Gram forms whose terms cancel: what is summed stays below the bound although the exact norm is tiny."""
    torch.manual_seed(0)
    for size in (1.0, 1e4, 1e8):
        a, g = torch.randn(3, length, 300) * size, torch.randn(3, length, 200)
        a[1, length // 2 :] = a[1, : length - length // 2].clone()
        g[1, length // 2 :] = -g[1, : length - length // 2].clone() * (1 + 1e-6)
        sheet = Sheet(3, {"w": torch.Size([200, 300])})
        sheet.product("w", a, g)
        assert "w" in sheet.factored or length == 1 or length * 500 >= 60_000
        alone = []
        for row in range(3):
            one = Sheet(1, {"w": torch.Size([200, 300])})
            one.product("w", a[row : row + 1], g[row : row + 1])
            total = torch.zeros(60_000, dtype=torch.float64)
            one.add_clipped(total, torch.tensor([True]), 1.0)
            alone.append(total)
            assert float(total.norm()) <= 1.0
        together = torch.zeros(60_000, dtype=torch.float64)
        sheet.add_clipped(together, torch.ones(3, dtype=torch.bool), 1.0)
        assert float((together - torch.stack(alone).sum(0)).norm()) < 1e-4


def test_rounding_of_a_full_chunk_stays_far_inside_the_margin():
    """Rows that all point the same way, where every addition rounds alike: off by less than half of the margin."""
    v = torch.full((ROWS, 5000), 1 / 5000**0.5) * (1 + 1e-4 * torch.arange(ROWS)[:, None])
    for used in (ROWS - 1, ROWS):
        exact = (v[:used].double() / v[:used].double().norm(dim=1, keepdim=True)).sum(0) * (1 - MARGIN)
        sheet = Sheet(ROWS, {"w": torch.Size([5000])})
        sheet.add("w", v.clone())
        total = torch.zeros(5000, dtype=torch.float64)
        sheet.add_clipped(total, torch.arange(ROWS) < used, 1.0)
        assert float((total - exact).norm()) < 0.5 * MARGIN


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("case", ["conv", "shared", "linear", "several draws", "conditional"])
def test_a_record_without_finite_gradient_contributes_nothing(case, bad):
    net, loss = built(case)
    x, y = images(8)
    x[3] = bad
    clipped = Clipped(loss, net, (x[0], y[0]))
    keep = [0, 1, 2, 4, 5, 6, 7, 3]
    got, without = summed(clipped, loss, net, x, y, 8, 1.0), summed(clipped, loss, net, x[keep], y[keep], 7, 1.0)
    assert bool(torch.isfinite(got).all())
    moved = float((got - without).norm())
    assert moved < 1e-5 or (bad == 1e38 and moved <= 1.0)  # a huge finite image may have a finite gradient


# ---------------------------------------------------------------------- units, batches, types


@pytest.mark.parametrize("case", ["conv", "linear", "shared", "several draws"])
def test_a_units_images_are_averaged_before_clipping(case):
    net, loss = built(case)
    x, y = images(6)
    unit, held = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([2, 2, 1, 3, 3, 3])
    rows = loop(loss, net, x, y).double()
    mean = torch.stack([rows[unit == u].mean(0) for u in range(3)])
    for bound in (0.1, 1e6):
        wanted = (mean * (bound / mean.norm(dim=1, keepdim=True).clamp_min(bound))).sum(0)
        clipped = Clipped(loss, net, (x[0], y[0]))
        total = Total(clipped.size, bound, several=True)
        clipped.add(total, loss, net, (x, y), unit, held)
        assert float((total.sum - wanted).norm() / wanted.norm()) < 2e-3


@pytest.mark.parametrize("held", [(3,), (500,), (3, 1, 4, 2), (500, 7, 1), (1, 500)])
def test_a_units_mean_is_the_same_wherever_chunks_are_cut(held):
    """To the last bit, also of units that fill many chunks alone; only how units are added to others may round."""
    net, loss = built("linear")
    n, size = sum(held), sum(p.numel() for p in net.parameters())
    rows = torch.randn(n, size, generator=torch.Generator().manual_seed(0))
    unit = torch.repeat_interleave(torch.arange(len(held)), torch.tensor(held))
    images = torch.tensor(held)[unit]
    means = torch.stack([rows[unit == u].double().mean(0) for u in range(len(held))])
    wanted = (means * (0.9 / means.norm(dim=1, keepdim=True).clamp_min(0.9))).sum(0)
    seen = []
    for size_ in (1, 3, 8, 250, n):
        total = Total(size, 0.9, several=True)
        for i in range(0, n, size_):
            k = slice(i, i + size_)
            total.add_means(rows[k], unit[k], images[k])
        seen.append(total.sum)
        assert float((total.sum - wanted).norm()) < 1e-5
        assert float((total.sum - seen[0]).norm()) <= (1e-14 if len(held) > 1 else 0)


@pytest.mark.parametrize("case", CASES)
def test_physical_batches_of_one_give_the_same_sum(case):
    net, loss = built(case)
    x, y = images(5)
    clipped = Clipped(loss, net, (x[0], y[0]))
    together = summed(clipped, loss, net, x, y, 5, 0.5)
    single = sum(summed(clipped, loss, net, x[i : i + 1], y[i : i + 1], 1, 0.5) for i in range(5))
    assert float((together - single).norm() / together.norm()) < 1e-4


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_differs_from_float32_by_its_rounding(case):
    """Stated bound: 5 % of the sum's norm; a value has 8 bits, a layer adds its own rounding."""
    net, loss = built(case)
    if isinstance(net, nn.Module):
        net = net.to(memory_format=torch.channels_last)
    x, y = images(32)
    exact = summed(Clipped(loss, net, (x[0], y[0])), loss, net, x, y, 32, 1e6)
    with torch.autocast("cpu", torch.bfloat16):
        clipped = Clipped(loss, net, (x[0], y[0]))
        got = summed(clipped, loss, net, x, y, 32, 1e6)
    assert clipped.fast
    assert float((got - exact).norm() / exact.norm()) < 0.05


def test_draws_of_torchs_generator_are_the_same_for_all_records_and_follow_the_seed():
    net = nn.Linear(192, 1)
    loss = lambda f, x, y: (f(x.flatten()[None]) * torch.randn(1, 1)).sum()  # noqa: E731
    x, y = torch.ones(40, *SHAPE), torch.zeros(40, dtype=torch.int64)
    clipped = Clipped(loss, net, (x[0], y[0]))

    def drawn(seed, n):
        total = Total(clipped.size, 1e6, several=False, seed=seed)
        clipped.add(total, loss, net, (x[:n], y[:n]), torch.arange(n), torch.ones(n, dtype=torch.int64))
        return total.sum

    torch.manual_seed(4)
    state = torch.get_rng_state()
    a, b, c = drawn(1, 40), drawn(1, 40), drawn(2, 40)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)
    one = drawn(1, 1)
    assert float(one.norm()) > 0
    assert torch.allclose(a, 40 * one, rtol=1e-12)  # one draw of a common sign, whatever the number of records


def test_declared_draws_reach_the_record_that_they_belong_to():
    net = nn.Linear(192, 1)
    loss = lambda f, x, y, own: (f(x.flatten()[None]) * own["scale"]).sum()  # noqa: E731
    x, y, own = torch.ones(40, *SHAPE), torch.zeros(40, dtype=torch.int64), torch.arange(40.0)
    clipped = Clipped(loss, net, (x[0], y[0], own[0]), {"scale": ()})
    assert clipped.fast
    for used in (1, 2, 40):
        got = summed(clipped, loss, net, x, y, used, 1e6, own)
        assert torch.allclose(got, torch.full_like(got, float(own[:used].sum())))


# ---------------------------------------------------------------------- refused, or slower


def test_batch_normalisation_is_refused_and_the_replacement_named():
    for layer in (nn.BatchNorm2d(6), nn.SyncBatchNorm(6), nn.BatchNorm2d(6).eval()):
        with pytest.raises(ConfigError, match="use nn.GroupNorm"):
            Clipped(classify, nn.Sequential(nn.Conv2d(3, 6, 3), layer), images(1))
    with pytest.raises(ConfigError, match="track_running_stats=False"):
        Clipped(classify, nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), images(1))


def test_batch_normalisation_inside_a_loss_is_refused():
    net = classifier(nn.Conv2d(3, 6, 3))
    with pytest.raises(ConfigError, match="batch_norm in the loss"):
        loss = lambda f, x, y: F.batch_norm(f(torch.stack([x, -x])), None, None, training=True).sum()  # noqa: E731
        Clipped(loss, net, [v[0] for v in images(1)])


def test_a_buffer_that_changes_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(192, 4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.out(x.flatten(1))

    with pytest.raises(ConfigError, match="a buffer .calls. changes"):
        Clipped(classify, Counting(), [v[0] for v in images(1)])


def test_a_gradient_penalty_falls_back_to_the_general_path_and_says_so():
    net = classifier(nn.Conv2d(3, 4, 3), nn.SiLU())

    def penalised(f, x, y):
        slope = torch.func.grad(lambda v: f(v[None]).sum())(x)
        return classify(f, x, y) + (slope.square().sum().sqrt() - 1).square()

    def by_hand(f, x, y):
        x = x.clone().requires_grad_()
        slope = torch.autograd.grad(f(x[None]).sum(), x, create_graph=True)[0]
        return classify(f, x.detach(), y) + (slope.square().sum().sqrt() - 1).square()

    x, y = images(4)
    with pytest.warns(UserWarning, match="slower general path"):
        clipped = Clipped(penalised, net, (x[0], y[0]))
    got = summed(clipped, penalised, net, x, y, 4, 1e6)
    wanted = loop(by_hand, net, x, y).double().sum(0)
    assert not clipped.fast and float((got - wanted).norm() / wanted.norm()) < 1e-4


def test_a_wrong_rule_is_found_before_any_record_is_read(monkeypatch):
    from veilset.privacy.gradients import rules

    real = rules.Linear.backward
    monkeypatch.setattr(rules.Linear, "backward", lambda self, g, wanted: real(self, 1.01 * g, wanted))
    with pytest.warns(UserWarning, match="differ from the reference"):
        assert not Clipped(classify, nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), [v[0] for v in images(1)]).fast


@pytest.mark.parametrize("case", CASES)
def test_supported_networks_take_the_fast_path_without_a_warning(case):
    net, loss = built(case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Clipped(loss, net, [v[0] for v in images(1)]).fast


def test_unused_parameters_have_gradient_zero():
    net, loss = built("shared")
    x, y = images(N)
    clipped = Clipped(loss, net, (x[0], y[0]))
    got = clipped.split(summed(clipped, loss, net, x, y, N, 1.0), net)
    assert not got["unused.weight"].any() and got["mix.weight"].any()
    assert {k: v.shape for k, v in got.items()} == {k: p.shape for k, p in net.named_parameters()}


def test_a_record_that_a_neighbour_spoils_is_looked_at_again_and_counts_once(monkeypatch):
    """As on processors with matrix tiles, where what lies behind a row is multiplied by 0."""
    real = Clipped._sheet

    def leaky(self, *asked):
        sheet = real(self, *asked)
        sheet.explicit = {k: ([p + 0 * p.roll(-1, 0) for p in v], j) for k, (v, j) in sheet.explicit.items()}
        return sheet

    monkeypatch.setattr(Clipped, "_sheet", leaky)
    x, y = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0)) - 2.0, torch.zeros(6, dtype=torch.int64)
    x[2], x[5] = torch.nan, torch.inf
    loss, w = (lambda p, x, y: (p["w"] * x).sum() * 3), {"w": torch.zeros(1, 2, 2)}  # noqa: E731
    total = Total(4, 1.0, several=False)
    clipped = Clipped(loss, w, (x[0], y[0]))
    clipped.add(total, loss, w, (x, y), torch.arange(6), torch.ones(6))
    good = x[[0, 1, 3, 4]].double().flatten(1)
    assert torch.allclose(total.sum, (good / good.norm(dim=1, keepdim=True)).sum(0) * (1 - MARGIN), rtol=1e-3)
