"""GS-WGAN: what its hidden critics compute, and what it plans."""

from __future__ import annotations

import math

import pytest
import torch

import veilset as vs
from veilset.audit.selftest.coupled import INFO, shapes
from veilset.methods.gan import gs_wgan
from veilset.methods.gan.gs_wgan import GSWGAN
from veilset.methods.gan.hidden_critics import Adam, Critics
from veilset.networks.critics import MLPCritic
from veilset.networks.dct import low_frequencies
from veilset.networks.gan_generators import MLPGenerator
from veilset.privacy.enclave import Hidden
from veilset.privacy.gate import Gate

SMALL = {
    "shards": 3,
    "rows": 4,
    "steps": 6,
    "width": 4,
    "generator_width": 4,
    "warm_steps": 2,
    "critic_steps": 1,
    "batch_size": 4,
}


def shard(n: int = 9, place: int = 12) -> Hidden:
    torch.manual_seed(1)
    x, y = torch.rand(place, 1, 8, 8), torch.randint(5, (place,))
    x[n:], y[n:] = 0, 0
    return Hidden(x, y, torch.tensor(n), {})


def critics(**changes) -> Critics:
    torch.manual_seed(0)
    return Critics(MLPCritic((1, 8, 8), 5, (8, 8), basis=16), **{"rate": 1e-2, "penalty": 10.0, "batch": 6} | changes)


def test_adam_is_torchs():
    net = torch.nn.Linear(3, 2)
    weights = {k: p.detach().clone() for k, p in net.named_parameters()}
    ours, theirs = Adam(0.1), torch.optim.Adam(net.parameters(), 0.1, betas=(0.5, 0.9))
    for t in range(5):
        grads = {k: torch.sin(p.detach() * (t + 1)) + 0.1 for k, p in net.named_parameters()}
        for k, p in net.named_parameters():
            p.grad = grads[k].clone()
        weights = ours.step(weights, grads)
        theirs.step()
    for k, p in net.named_parameters():
        assert torch.allclose(weights[k], p.detach(), rtol=1e-5, atol=1e-6)


def test_the_loss_of_a_critic_is_that_of_wgan_gp():
    c, h = critics(), shard()
    net, fake, y = c._net, torch.rand(6, 1, 8, 8), h.y[:6]
    torch.manual_seed(5)
    got = c.loss(c.initial, h.x[:6], fake, y, 1.0)
    torch.manual_seed(5)
    between = (fake + torch.rand(6, 1, 1, 1) * (h.x[:6] - fake)).requires_grad_()

    def score(x):
        heads = net(x, y)
        return heads[:, 0] + heads[torch.arange(6), 1 + y]

    (slope,) = torch.autograd.grad(score(between).sum(), between)
    steep = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    own = score(h.x[:6])
    expected = score(fake).mean() - own.mean() + 1e-3 * own.square().mean() + 10 * steep
    assert float(got) == pytest.approx(float(expected), rel=1e-5)


def test_a_row_is_the_gradient_of_the_score_on_one_image_in_the_basis():
    c, h = critics(), shard()
    h.state.update(c.initial)
    x, y, waves = torch.rand(3, 1, 8, 8).requires_grad_(), torch.tensor([0, 3, 4]), low_frequencies((1, 8, 8), 16)
    heads = c._net(x, y)
    (slope,) = torch.autograd.grad((heads[:, 0] + heads[torch.arange(3), 1 + y]).sum(), x)
    rows = c.answered(h, torch.rand(5, 2, 1, 8, 8), x.detach(), y, 0, waves)
    assert torch.allclose(rows, slope.flatten(1) @ waves.T, atol=1e-6) and rows.shape == (3, 16)
    pixels = c.answered(h, torch.rand(5, 2, 1, 8, 8), x.detach(), y, 0, None)
    assert torch.allclose(pixels, slope.flatten(1), atol=1e-6)
    assert torch.allclose(rows @ waves, pixels, atol=1e-5), "the critic sees nothing outside the basis"


def test_a_critic_of_coordinates_is_that_of_the_images_low_frequencies():
    """The same weights, loss, steps and rows as of a critic that reduces images itself."""
    waves, pixels, h = low_frequencies((1, 8, 8), 16), critics(), shard()
    own = Critics(MLPCritic((1, 1, 16), 5, (8, 8)), 1e-2, 10.0, 6, waves)
    fakes, x, y = torch.rand(5, 2, 1, 8, 8), torch.rand(3, 1, 8, 8), torch.tensor([0, 3, 4])
    rows = []
    for c, basis in ((pixels, waves), (own, None)):
        h.state.update(pixels.initial)
        torch.manual_seed(2)
        rows.append(c.answered(h, c.seen(fakes), c.seen(x), y, 3, basis))
    assert torch.allclose(*rows, atol=1e-5) and rows[0].shape == (3, 16)


def test_a_critic_learns_to_tell_its_shard_from_what_is_generated_and_an_empty_one_learns_nothing_of_blanks():
    c = critics()
    fakes = torch.zeros(5, 2, 1, 8, 8)
    h = shard()
    h.state.update(c.initial)
    c.answered(h, fakes, fakes[:, 0], torch.arange(5), 60, None)
    gap = c.scores(h.state, h.x[:9], h.y[:9]).mean() - c.scores(h.state, torch.zeros(9, 1, 8, 8), h.y[:9]).mean()
    assert float(gap) > 0.5
    empty, filled = shard(0), shard(0)
    filled.x[:] = 1  # what stands in the blanks is weighted by 0, but for the gradient penalty's middle
    for one in (empty, filled):
        one.state.update(c.initial)
        torch.manual_seed(0)
        none = Critics(c._net, 1e-2, 0.0, 6)
        none.answered(one, fakes, fakes[:, 0], torch.arange(5), 3, None)
    assert all(torch.equal(empty.state[k], filled.state[k]) for k in c.initial)


def test_critics_in_one_vectorised_pass_are_those_of_a_loop():
    c = critics()
    pupil = MLPGenerator((1, 8, 8), 5, 3, (8,), norm=False, basis=16)
    many = [shard(n) for n in (9, 4, 0)]

    def made(x, y, n):
        h = Hidden(x, y, n, {})
        return c.warmed(h, pupil, 7)

    inputs = [torch.stack([getattr(h, k) for h in many]) for k in ("x", "y", "count")]
    torch.manual_seed(3)
    whole = torch.func.vmap(made, randomness="same")(*inputs)
    for i, h in enumerate(many):
        torch.manual_seed(3)
        one = c.warmed(h, pupil, 7)
        assert all(torch.allclose(whole[k][i], one[k], atol=1e-4) for k in one)


def test_without_noise_the_generator_descends_along_the_critics_gradient(monkeypatch):
    """Oracle: noise 0 and a bound that clips nothing give the ordinary generator gradient, row by row."""
    asked = []
    pull, backward = Gate.pull, torch.Tensor.backward
    monkeypatch.setattr(Gate, "pull", lambda self, name, f: asked.append(pull(self, name, f)) or asked[-1])
    given = []
    monkeypatch.setattr(torch.Tensor, "backward", lambda self, g: given.append(g.clone()) or backward(self, g))
    GSWGAN(**SMALL | {"clip_norm": 1e3, "basis": 16, "start_share": 0.0, "group_size": 16}).fit(
        shapes(60).hide(), vs.Privacy(math.inf), seed=0
    )
    waves = low_frequencies(INFO.shape, 16)
    assert len(asked) == len(given) == 6
    for rows, g in zip(asked, given, strict=True):
        each = (rows.float() @ waves).repeat_interleave(16, 0)  # a group of images has one row
        assert torch.allclose(g.flatten(1), -each / 64, atol=1e-6), "ascends the score, mean over images"


@pytest.mark.parametrize(
    ("changes", "shards", "steps"),
    [
        ({}, 250, 1000),
        ({"start_share": 0.0}, 1000, 8000),
        ({"shards": 250, "steps": 3000}, 250, 3000),
        ({"mechanism": "round-robin"}, 250, 250),
        ({"mechanism": "round-robin", "shards": 100, "steps": 250}, 100, 200),
        ({"mechanism": "round-robin", "shards": 100, "steps": 7}, 100, 100),
    ],
)
def test_the_plan(changes, shards, steps):
    info = vs.PublicInfo(name="n", classes=tuple("0123456789"), shape=(1, 28, 28), units=60_000)
    (release,) = gs_wgan.Sanitised(gs_wgan.Config(**changes)).plan(info, vs.Privacy(1.0)).releases
    assert dict(release.facts) == {"shards": shards, "rows": 10, "columns": 196 if "start_share" in changes else 64}
    assert (release.steps, release.sample_rate, release.bound) == (steps, 1 / shards, 0.3)


def test_twice_as_many_rows_ask_for_more_noise_on_each():
    info = vs.PublicInfo(name="n", classes=("a", "b"), shape=(1, 8, 8), units=6000)
    noise = []
    for rows in (4, 8):
        plan = GSWGAN(shards=50, steps=100, rows=rows, start_share=0.0).plan(info, vs.Privacy(2.0))
        r = plan.releases[0]
        noise.append((r.noise_multiplier, r.noise_multiplier * 2 * math.sqrt(rows)))
    assert noise[0][0] == noise[1][0] and noise[1][1] == pytest.approx(noise[0][1] * math.sqrt(2))
