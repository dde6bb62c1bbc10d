"""The perceptron denoiser: codes and back, isolation of records, its clipped gradient, and what it can express."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from veilset.networks.dct import low_frequencies, steepness
from veilset.networks.diffusion import DATA, EDM, denoise, errors, record_draws, record_loss, spread
from veilset.networks.perceptron import Perceptron
from veilset.privacy.draws import drawn
from veilset.privacy.gradients import Clipped
from veilset.privacy.noise import Stream


def small(shape=(1, 8, 8), **how) -> Perceptron:
    """A small network whose zero layers are filled, so that everything reaches the output."""
    torch.manual_seed(0)
    net = Perceptron(shape, 3, **{"frequencies": 20, "width": 8, "embedding": 8, **how})
    for p in net.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)
    return net


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 48), (1, 7, 5), (1, 1, 1)])
def test_codes_and_back(shape):
    """Decoding a code gives the image's low frequencies, so encoding it again gives the code."""
    net = Perceptron(shape, 3, frequencies=30)
    x = torch.randn(4, *shape)
    z = net.encode(x)
    assert z.shape == (4, min(30, math.prod(shape)), 1, 1) and net.decode(z).shape == x.shape
    assert torch.allclose(net.encode(net.decode(z)), z, atol=1e-4)
    assert net(z, torch.randn(4), torch.randint(0, 4, (4,))).shape == z.shape


def test_all_frequencies_are_the_image():
    net, x = Perceptron((3, 6, 5), 2, frequencies=1000), torch.randn(3, 3, 6, 5)
    assert torch.allclose(net.decode(net.encode(x)), x, atol=1e-5)


def test_units_are_those_of_pixels():
    """Images whose deviations fall as guessed, with pixels of deviation s_d, have codes of deviation s_d."""
    shape, size = (1, 16, 16), 64
    falling = steepness(shape, size).rsqrt()
    falling *= math.sqrt(256 / falling.square().sum()) * DATA
    x = (torch.randn(4000, size) * falling @ low_frequencies(shape, size)).unflatten(1, shape)
    assert x.square().mean().sqrt() == pytest.approx(DATA, rel=0.05)
    assert torch.allclose(Perceptron(shape, 2, size).encode(x).flatten(1).std(0), torch.tensor(DATA), rtol=0.1)


def test_one_record_reaches_no_other():
    net = small(blocks=1)
    z, time, y = torch.randn(5, 20, 1, 1), torch.randn(5), torch.randint(0, 4, (5,))
    before = net(z, time, y)
    z[2], time[2], y[2] = 9.0, 1.0, 3
    after = net(z, time, y)
    assert torch.allclose(before[[0, 1, 3, 4]], after[[0, 1, 3, 4]]) and not torch.allclose(before[2], after[2])


@pytest.mark.parametrize("blocks", [0, 2])
def test_gradients_take_the_fast_path(blocks):
    net = small(blocks=blocks)

    def loss(f, x, y, own):
        return record_loss(f, EDM(), x, y, own, 3, 3, 0.1, encode=net.encode)

    draws = record_draws((20, 1, 1), 3, 0.1)
    own = [drawn(how, 1, Stream(bytes(32)))[0] for how in draws.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Clipped(loss, net, (torch.zeros(1, 8, 8), torch.zeros((), dtype=torch.int64), *own), draws).fast


def test_copies_are_encoded_once_and_drawn_apart():
    net, seen = small(), []
    own = {k: drawn(how, 1, Stream(bytes(32)))[0] for k, how in record_draws((20, 1, 1), 5, 0.0).items()}
    record_loss(
        lambda z, t, y: seen.append((z, t)) or net(z, t, y), EDM(), torch.rand(1, 8, 8), torch.tensor(1), own, 5, 3,
        0.0, encode=net.encode,
    )  # fmt: skip
    (z, t), *rest = seen
    assert not rest and z.shape == (5, 20, 1, 1) and len(t.unique()) == 5


def test_gates_denoise_gaussians_that_differ_by_class():
    """Two classes that vary along different directions: trained briefly, their denoisers are different matrices."""
    torch.manual_seed(0)
    net, kind = Perceptron((1, 4, 4), 2, frequencies=16, width=32), EDM(0.0, 1.0)
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    along = torch.zeros(2, 16, 1, 1)
    along[0, :8], along[1, 8:] = 1, 1
    for _ in range(300):
        y = torch.randint(0, 2, (256,))
        x, noise = torch.randn(2, 256, 16, 1, 1)
        loss = errors(net, kind, along[y] * x, y, kind.levels(spread(torch.rand(256))), noise).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    y, one = torch.arange(2), torch.ones(2, 16, 1, 1)
    with torch.no_grad():
        kept = denoise(net, kind, one, torch.full((2,), 1.0), y)
    inside, outside = (kept * along[y]).sum() / 16, (kept * (1 - along[y])).sum() / 16
    assert float(inside) == pytest.approx(0.5, abs=0.12) and float(outside) == pytest.approx(0.0, abs=0.12)
