"""Autoencoder networks: shapes, isolation of records, the linear start, and the frame that is public."""

from __future__ import annotations

import pytest
import torch

from veilset.networks.dct import low_frequencies
from veilset.networks.vae import VAE, Frame, widths

torch.set_num_threads(1)
SHAPES = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8), (1, 7, 11), (3, 5, 4), (1, 2, 3)]


def frame(shape, classes=3, size=0, logits=True, centre=0.4):
    pixels = shape[0] * shape[1] * shape[2]
    basis = low_frequencies(shape, size) if size else None
    return Frame(torch.full((classes, pixels), centre), basis, None, logits)


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape_and_channels(shape, conv):
    net = VAE(shape, 3, 4, frame(shape), hidden=6, conv=conv)
    x, y = torch.rand(5, *shape), torch.tensor([0, 1, 2, 0, 1])
    mean, log_variance = net.encode(x, y)
    assert mean.shape == log_variance.shape == (5, 4)
    image = net.decode(mean, y)
    assert image.shape == x.shape and float(image.detach().min()) >= 0 and float(image.detach().max()) <= 1
    got, wanted, *_ = net(x[:1], y[:1], torch.randn(2, 4))
    assert got.shape == (2, x[0].numel()) and torch.equal(wanted, x[:1].flatten(1))


def test_channels_double_once_a_halving():
    assert widths((1, 28, 28), 32) == (16, 32) and widths((3, 32, 32), 32) == (16, 32)
    assert widths((3, 64, 64), 32) == (8, 16, 32) and widths((1, 2, 2), 1) == (1,)


@pytest.mark.parametrize("conv", [False, True])
def test_records_do_not_see_each_other(conv):
    """Failure row 21: what is computed of one record is the same whoever its neighbours are."""
    shape = (1, 12, 12)
    net = VAE(shape, 3, 4, frame(shape), hidden=6, conv=conv)
    x, y = torch.rand(6, *shape), torch.arange(6) % 3
    other = torch.cat([x[:3], 1 - x[3:]])
    for a, b in zip(net.encode(x, y), net.encode(other, y), strict=True):
        torch.testing.assert_close(a[:3], b[:3], rtol=0, atol=0)
        assert not torch.equal(a[3:], b[3:])


def test_the_linear_start_reconstructs_what_the_first_directions_hold():
    shape = (1, 8, 8)
    public = Frame(torch.full((2, 64), 0.5), low_frequencies(shape, 20), torch.ones(20), logits=False)
    net = VAE(shape, 2, 20, public, hidden=4, linear=0.01)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    smooth = 0.5 + torch.randn(7, 20) @ public.basis * 0.1
    y = torch.zeros(7, dtype=torch.int64)
    mean, _ = net.encode(smooth.unflatten(1, shape), y)
    torch.testing.assert_close(net.decode(mean, y).flatten(1), smooth, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("latent", "size"), [(3, 8), (8, 8), (12, 8)])
@pytest.mark.parametrize("variational", [False, True])
def test_a_linear_start_with_more_or_fewer_codes_than_directions(latent, size, variational):
    shape = (1, 8, 8)
    public = frame(shape, 2, size, logits=False)
    net = VAE(shape, 2, latent, public, hidden=4, linear=0.2, variational=variational)
    y = torch.zeros(3, dtype=torch.int64)
    mean, log_variance = net.encode(torch.rand(3, *shape), y)
    assert mean.shape == (3, latent) and bool(torch.isfinite(net.decode(mean, y)).all())
    assert variational or (float(mean.detach().abs().max()) <= 1 and bool((log_variance == -torch.inf).all()))


def test_in_coordinates_the_squared_error_is_that_of_the_images():
    shape = (1, 8, 8)
    for size in (0, 64):  # the pixels, and a basis that leaves nothing out
        net = VAE(shape, 2, 3, frame(shape, 2, size, logits=False), hidden=4)
        x, y = torch.rand(1, *shape), torch.tensor([1])
        e = torch.zeros(1, 3)
        got, wanted, mean, _ = net(x, y, e)
        image = net.decode(mean, y)
        torch.testing.assert_close((got - wanted).square().sum(), (image - x).square().sum(), rtol=1e-4, atol=1e-5)


def test_a_frame_is_found_again_in_a_state_dict():
    shape = (1, 8, 8)
    for size in (0, 10):
        net = VAE(shape, 3, 4, frame(shape, 3, size), hidden=5)
        again = VAE(shape, 3, 4, Frame.like(net.state_dict()), hidden=5)
        again.load_state_dict(net.state_dict())
        x, y = torch.rand(2, *shape), torch.tensor([2, 0])
        torch.testing.assert_close(again.encode(x, y)[0], net.encode(x, y)[0], rtol=0, atol=0)


def test_without_centres_the_decoder_starts_from_grey():
    public = frame((1, 4, 4), centre=0.0)
    net = VAE((1, 4, 4), 3, 2, public, hidden=4)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    assert torch.equal(net.decode(torch.zeros(1, 2), torch.tensor([0])), torch.full((1, 1, 4, 4), 0.5))


def test_a_class_alone_has_its_own_centre():
    public = Frame(torch.rand(3, 16), None, None, logits=True)
    assert torch.equal(public.of(2).centre[0], public.centre[2])


def test_black_pixels_of_a_centre_stay_black():
    centre = torch.zeros(2, 16)
    centre[:, 5] = 1.0
    net = VAE((1, 4, 4), 2, 2, Frame(centre, None, None, logits=True), hidden=4)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    image = net.decode(torch.zeros(1, 2), torch.tensor([1])).detach().flatten()
    assert float(image[5]) > 0.97 and float(image[torch.arange(16) != 5].max()) < 0.03
