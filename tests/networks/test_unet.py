"""The U-Net and what diffusion makes of it: shapes, isolation of records, parameterisations, loss and samplers."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from veilset.networks.diffusion import (
    DATA,
    EDM,
    Velocity,
    denoise,
    draw,
    errors,
    guided,
    moved,
    record_draws,
    record_loss,
    spread,
    time_grid,
)
from veilset.networks.unet import UNet
from veilset.privacy.draws import drawn
from veilset.privacy.gradients import Clipped
from veilset.privacy.noise import Stream

KINDS = (EDM(), Velocity())


def small(shape=(1, 8, 8), **how) -> UNet:
    """A small network whose zero layers are filled, so that everything reaches the output."""
    torch.manual_seed(0)
    net = UNet(shape, 3, **{"width": 8, "embedding": 8, **how})
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net


def inputs(n: int, shape=(1, 8, 8)):
    return torch.randn(n, *shape), torch.randn(n), torch.randint(0, 4, (n,))


def draws_of(records: int, *how) -> dict[str, torch.Tensor]:
    """What so many records draw for `record_loss`."""
    stream = Stream(bytes(32))
    return {k: drawn(v, records, stream) for k, v in record_draws((1, 8, 8), *how).items()}


# ---------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 7, 5), (1, 1, 1)])
@pytest.mark.parametrize(
    "how", [{}, {"kind": "group", "attention": (1,), "blocks": 2}, {"patch": 4}, {"maps": 2, "across": 8}]
)
def test_every_shape_keeps_its_shape(shape, how):
    assert small(shape, **how)(*inputs(2, shape)).shape == (2, *shape)


def test_a_new_network_returns_zero():
    assert not UNet((1, 8, 8), 3, width=8)(*inputs(4)).any()


@pytest.mark.parametrize("kind", ["whole", "group"])
def test_one_record_reaches_no_other(kind):
    net, (x, time, y) = small(kind=kind, attention=(1,)), inputs(5)
    before = net(x, time, y)
    x[2], time[2], y[2] = 9.0, 1.0, 3
    after = net(x, time, y)
    rest = [0, 1, 3, 4]
    assert torch.equal(before[rest], after[rest]) and not torch.equal(before[2], after[2])


def test_class_and_noise_level_reach_the_output():
    net, (x, time, y) = small(), inputs(2)
    y = torch.zeros_like(y)
    plain = net(x, time, y)
    assert not torch.allclose(plain, net(x, time, y + 3)) and not torch.allclose(plain, net(x, time + 1, y))


@pytest.mark.parametrize("how", [{}, {"kind": "group", "attention": (1,)}, {"maps": 2, "across": 8}])
def test_gradients_take_the_fast_path(how):
    net = small(**how)

    def loss(net, x, y, own):
        return record_loss(net, EDM(), x, y, own, 3, 3, 0.1, 1, True)

    draws = record_draws((1, 8, 8), 3, 0.1, 1, True)
    own = [v[0] for v in draws_of(1, 3, 0.1, 1, True).values()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Clipped(loss, net, (torch.zeros(1, 8, 8), torch.zeros((), dtype=torch.int64), *own), draws).fast


# ---------------------------------------------------------------------- parameterisations


def test_edm_is_the_published_table():
    s = torch.tensor([0.002, 0.3, 1.0, 80.0])
    k, total = EDM().scales(s), s**2 + DATA**2
    assert torch.allclose(k.skip, DATA**2 / total) and torch.allclose(k.out, s * DATA / total.sqrt())
    assert torch.allclose(k.into, total.rsqrt()) and torch.allclose(k.time, s.log() / 4)
    assert torch.allclose(k.weight, total / (s * DATA) ** 2)


def test_velocity_is_the_published_table():
    s = torch.tensor([0.002, 0.3, 1.0, 80.0])
    k, one = Velocity().scales(s), 1 + s**2
    assert torch.allclose(k.skip, 1 / one) and torch.allclose(k.out, s / one.sqrt())
    assert torch.allclose(k.into, one.rsqrt()) and torch.allclose(k.weight, one / s**2)
    assert torch.allclose(k.time, 2 / math.pi * one.rsqrt().acos(), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_on_the_network_is_one(kind):
    k = kind.scales(torch.tensor([0.002, 0.3, 1.0, 80.0]))
    assert torch.allclose(k.weight * k.out**2, torch.ones(4))


def test_noise_levels_have_the_published_distributions():
    torch.manual_seed(0)
    u = spread(torch.rand(100_000))
    edm, v = EDM().levels(u).log(), Velocity().levels(u)
    assert abs(float(edm.mean()) + 1.2) < 0.02 and abs(float(edm.std()) - 1.2) < 0.02
    snr = -2 * v.log()
    assert -9.001 < float(snr.min()) < -8.9 and 12.5 < float(snr.max()) < 13.001
    angle = v.atan()
    assert abs(float(angle.mean() - (angle.min() + angle.max()) / 2)) < 0.01


def test_levels_of_a_record_cover_and_each_is_uniform():
    u = torch.stack([spread(torch.rand(4, generator=torch.Generator().manual_seed(k))) for k in range(2000)])
    assert (u.mul(4).long() == torch.arange(4)).all()
    assert torch.allclose((u * 4 % 1).mean(0), torch.full((4,), 0.5), atol=0.03)
    assert float(spread(torch.zeros(3)).min()) > 0 and float(spread(torch.ones(3)).max()) < 1


@pytest.mark.parametrize("kind", KINDS)
def test_denoiser_at_its_ends(kind):
    x, y = torch.randn(3, 1, 8, 8), torch.zeros(3, dtype=torch.int64)
    tiny = torch.full((3,), 1e-4)
    assert torch.allclose(denoise(small(), kind, x, tiny, y), x, atol=1e-2)
    s = torch.tensor([0.1, 1.0, 10.0])
    blank = denoise(lambda x, t, y: torch.zeros_like(x), kind, x, s, y)
    assert torch.allclose(blank, kind.scales(s).skip[:, None, None, None] * x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_network_has_no_loss(kind):
    x, y, s = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.int64), torch.tensor([0.1, 0.5, 1, 2, 5, 20])

    def perfect(scaled, time, y):
        k = kind.scales(s)
        noisy = scaled / k.into[:, None, None, None]
        return (x - k.skip[:, None, None, None] * noisy) / k.out[:, None, None, None]

    noise = torch.randn(6, 1, 8, 8)
    assert float(errors(perfect, kind, x, y, s, noise).max()) < 1e-6
    assert float(errors(lambda x, t, y: torch.zeros_like(x), kind, x, y, s, noise).min()) > 0.1


# ---------------------------------------------------------------------- the loss of one record


def test_copies_are_averaged_and_share_one_label():
    seen = []

    def net(x, time, y):
        seen.append((x, time, y))
        return torch.zeros_like(x)

    torch.manual_seed(0)
    image, label = torch.rand(1, 8, 8), torch.tensor(2)
    own = draws_of(40, 5, 0.5)
    for i in range(40):
        record_loss(net, EDM(), image, label, {k: v[i] for k, v in own.items()}, 5, 3, 0.5)
    labels = torch.stack([y for _, _, y in seen])
    assert (labels == labels[:, :1]).all() and set(labels[:, 0].tolist()) == {2, 3}
    x, time, _ = seen[0]
    assert x.shape == (5, 1, 8, 8) and len(time.unique()) == 5
    own = {k: v[0] for k, v in draws_of(1, 1, 0.0).items()}
    one, again = (record_loss(net, EDM(), image, label, own, 1, 3, 0.0) for _ in range(2))
    s = EDM().levels(spread(own["level"]))
    assert torch.equal(one, errors(net, EDM(), 2 * image[None] - 1, label[None], s, own["noise"])[0])
    assert torch.equal(one, again)  # all that it draws was declared


def test_moved_images_are_shifts_of_the_image():
    own = {k: v[0] for k, v in draws_of(1, 200, 0.0, 1, True).items()}
    x = torch.zeros(200, 1, 6, 5)
    x[:, 0, 3, 2] = 1
    places = moved(x, 1, False, own).flatten(1).argmax(1)
    assert {divmod(int(p), 5) for p in places} == {(i, j) for i in (2, 3, 4) for j in (1, 2, 3)}
    x[:, 0, 3, 2], x[:, 0, 3, 0] = 0, 1
    assert {int(p) % 5 for p in moved(x, 0, True, own).flatten(1).argmax(1)} == {0, 4}
    assert torch.equal(moved(x, 0, False, {}), x)


# ---------------------------------------------------------------------- samplers


def test_time_grid_has_its_ends():
    t = time_grid(18)
    assert t[0] == pytest.approx(80) and t[-1] == pytest.approx(0.002) and len(t) == 18
    assert all(a > b for a, b in zip(t, t[1:], strict=False)) and time_grid(1) == [80.0]


@pytest.mark.parametrize(
    ("sampler", "steps"), [("ddim", 400), ("ancestral", 800), ("churn", 40), ("churn-10", 60), ("stochastic", 1000)]
)
def test_samplers_recover_a_gaussian(sampler, steps):
    """Pixels N(0.2, 0.5^2) and their exact denoiser: mean and variance within 2 %."""
    torch.manual_seed(0)
    s2 = 0.25

    def exact(x, t):
        return 0.2 + s2 / (s2 + t * t) * (x - 0.2)

    name, _, churn = sampler.partition("-")
    times = time_grid(steps)
    x = draw(exact, times[0] * torch.randn(200, 1, 16, 16), times, name, float(churn or 0), 0.05, 50)
    assert abs(float(x.mean()) - 0.2) < 0.01 and abs(float(x.var()) / s2 - 1) < 0.02


def test_guidance_leans_away_from_no_class():
    def net(x, time, y):
        return y.float()[:, None, None, None].expand_as(x)

    y, x, kind = torch.tensor([0, 1]), torch.zeros(2, 1, 2, 2), EDM()
    plain, strong = (guided(net, kind, y, 3, w)(x, 1.0) for w in (0.0, 1.0))
    none = guided(net, kind, torch.tensor([3, 3]), 3, 0.0)(x, 1.0)
    assert torch.allclose(strong, 2 * plain - none)
    assert torch.equal(guided(net, kind, y, 3, 1.0, rows=1)(x, 1.0), strong)
