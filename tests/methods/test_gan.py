"""dp-gan and dp-cgan: what is asked, signs, label privacy of generated images, schedule, recipes, other shapes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.data.load import load
from veilset.methods.catalogue import make
from veilset.methods.gan.common import (
    PAIR,
    RATIOS,
    CriticSchedule,
    FakePart,
    Fakes,
    Snapshots,
    clamp,
    low,
    mixture,
    pair_loss,
    record_loss,
)
from veilset.networks.critics import ConvCritic, MLPCritic, score, weight_clip_bound
from veilset.networks.gan_generators import DeconvGenerator, MLPGenerator
from veilset.privacy.draws import drawn
from veilset.privacy.gradients import Clipped, Total
from veilset.privacy.noise import Stream
from veilset.privacy.private import from_arrays
from veilset.privacy.spec import Privacy

GAN = {"width": 8, "generator_width": 4, "steps": 3, "batch_size": 10, "generator_batch_size": 10, "latent_dim": 3}
CGAN = {"width": 8, "generator_width": 4, "steps": 3, "batch_size": 10, "latent_dim": 3}


def data(shape=(1, 8, 8), classes=3, n=40):
    info = PublicInfo(name="t", classes=tuple("abcdefgh"[:classes]), shape=shape, value_range=(0.0, 1.0), units=n)
    g = np.random.default_rng(0)
    return info, from_arrays(info, g.random((n, *shape), np.float32), g.integers(0, classes, n))


CASES = [
    ("dp-gan", GAN | {"critic": "conv", "width": 2}),
    ("dp-gan", GAN | {"loss": "hinge", "fakes": "public", "adaptive": True, "generator": "mlp"}),
    ("dp-gan", GAN | {"loss": "wasserstein", "sensitivity": "weight-clip", "labels": "input"}
     | {"critic_class_weight": 0.0, "fakes": "public", "optimizer": "rmsprop", "activation": "tempered-sigmoid"}),
    ("dp-cgan", CGAN | {"architecture": "advanced", "width": 2, "norm": "group"}),
    ("dp-cgan", CGAN | {"labels": "input", "optimizer": "sgd", "fakes": "paired", "generator_norm": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "params"), CASES)
@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 16, 16)])
def test_variants_fit_any_shape(name, params, shape):
    info, private = data(shape)
    model = make(name, **params).fit(private, Privacy(math.inf), seed=0)
    images = model.sample(7, seed=1)
    assert images.x.shape == (7, *shape) and float(images.x.float().std()) > 0


@pytest.mark.parametrize(("name", "params"), [("dp-gan", GAN), pytest.param("dp-cgan", CGAN, marks=pytest.mark.long)])
def test_every_critic_step_is_planned_and_generator_steps_cost_nothing(name, params):
    info, private = data()
    plan = make(name, **params).plan(info, Privacy(2.0, 1e-5))
    (release,) = plan.releases
    assert (release.verb, release.steps, release.sample_rate) == ("grad", 3, 10 / 40)
    more = make(name, **params | {"critic_steps": 3}).plan(info, Privacy(2.0, 1e-5))
    assert more.releases == plan.releases


@pytest.mark.parametrize("name", ["dp-gan", "dp-cgan"])
def test_recipes_can_be_planned(name):
    info = PublicInfo(name="t", classes=tuple("0123456789"), shape=(1, 28, 28), units=60000)
    from veilset.methods.catalogue import method_class

    for recipe in method_class(name).recipes:
        model = make(name, recipe=recipe)
        (release,) = model._plan(info, Privacy(10.0, 1e-5)).releases
        assert release.steps == model.config.steps > 1000


def test_weight_clip_uses_the_bound_that_holds_and_refuses_what_it_does_not_cover():
    info, private = data()
    params = GAN | {"sensitivity": "weight-clip", "labels": "input", "critic_class_weight": 0.0, "fakes": "public"}
    model = make("dp-gan", **params)
    (release,) = model._plan(info, Privacy(2.0)).releases
    assert release.bound == weight_clip_bound([64 + 3, 8, 1], 0.01, "leaky-relu")
    for field, value in {"critic": "conv", "fakes": "paired", "basis": 16}.items():
        with pytest.raises(ConfigError, match=field):
            make("dp-gan", **params | {field: value})._plan(info, Privacy(2.0))
    with pytest.raises(ConfigError, match="critic_class_weight"):
        make("dp-gan", labels="input", critic_class_weight=0.5)._plan(info, Privacy(2.0))
    net = MLPCritic((1, 8, 8), 3, (8,))
    clamp(net, 0.01)
    assert max(float(p.detach().abs().max()) for p in net.parameters()) <= 0.01


def one_step(loss, critic, x, y, draws=None, rate=0.1):
    """A plain step of the critic on these records, without noise or clipping."""
    own = [drawn(how, len(x), Stream(bytes(32))) for how in (draws or {}).values()]
    got = Clipped(loss, critic, (x[0], y[0], *(v[0] for v in own)), draws)
    total = Total(got.size, 1e9, several=False)
    got.add(total, loss, critic, (x, y, *own), torch.arange(len(x)), torch.ones(len(x)))
    grads = got.split(total.sum / len(x), critic)
    with torch.no_grad():
        for name, p in critic.named_parameters():
            p -= rate * grads[name]


@pytest.mark.parametrize("kind", ["logistic", "wasserstein", "hinge"])
@pytest.mark.parametrize("paired", [False, True])
def test_the_critic_learns_the_right_sign(kind, paired):
    """Scores of real images rise; scores of generated ones fall."""
    torch.manual_seed(0)
    critic, fakes = ConvCritic((1, 8, 8), 3, 4), Fakes(3, 5, (1, 8, 8), "cpu")
    fakes.renew(DeconvGenerator((1, 8, 8), 3, 2, 4))
    x, y = torch.rand(16, 1, 8, 8).round(), torch.arange(16) % 3

    def gap():
        with torch.no_grad():
            real, made = score(critic(x, y), y), score(critic(fakes.x.flatten(0, 1), fakes.y), fakes.y)
        return float(real.mean() - made.mean())

    before = gap()
    if paired:
        one_step(pair_loss(kind, fakes, 0.0), critic, x, y, PAIR)
    else:
        grads = {name: torch.zeros_like(p) for name, p in critic.named_parameters()}
        FakePart(kind, critic, 1e9, (1, 8, 8), "cpu").add(grads, critic, fakes.x.flatten(0, 1), fakes.y)
        one_step(record_loss(kind, 0.0), critic, x, y)
        with torch.no_grad():
            for name, p in critic.named_parameters():
                p -= 0.1 * grads[name]
    assert gap() > before


def test_the_generated_part_is_the_mean_of_clipped_gradients():
    torch.manual_seed(0)
    critic, x, y = MLPCritic((1, 4, 4), 3, (5,)), torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    grads = {name: torch.zeros_like(p) for name, p in critic.named_parameters()}
    FakePart("logistic", critic, 0.3, (1, 4, 4), "cpu").add(grads, critic, x, y)
    wanted = [torch.zeros_like(p) for p in critic.parameters()]
    for i in range(6):
        loss = torch.nn.functional.softplus(score(critic(x[i : i + 1], y[i : i + 1]), y[i : i + 1])).sum()
        own = torch.autograd.grad(loss, list(critic.parameters()))
        scale = min(1.0, 0.3 / float(torch.cat([g.flatten() for g in own]).norm())) / 6
        wanted = [w + scale * g for w, g in zip(wanted, own, strict=True)]
    for g, w in zip(grads.values(), wanted, strict=True):
        assert torch.allclose(g, w, rtol=3e-3, atol=1e-5)  # clipping keeps a margin of 1e-3


def test_generated_labels_come_from_the_uniform_prior():
    fakes = Fakes(4, 3, (1, 2, 2), "cpu")
    torch.manual_seed(0)
    _, y = fakes.draw(4000)
    assert int(y.bincount().min()) > 850 and int(y.bincount().max()) < 1150


def test_pace_counts_and_raises_its_ratio_when_the_critic_fails():
    steady = CriticSchedule(3, None, 1)
    assert [steady.due() for _ in range(7)] == [False, False, True, False, False, True, False]
    fakes = Fakes(2, 4, (1, 4, 4), "cpu")
    fooled = MLPCritic((1, 4, 4), 2, (3,))
    torch.nn.init.constant_(fooled.layers[-1].bias, 100.0)  # takes every generated image for real
    schedule = CriticSchedule(1, 0.6, 2)
    for _ in range(400):
        schedule.judge(fooled, fakes)
    assert schedule.now["ratio"] == RATIOS[-1]
    again = CriticSchedule(1, 0.6, 2)
    again.load_state_dict(schedule.state_dict())
    assert again.now == schedule.now
    torch.nn.init.constant_(fooled.layers[-1].bias, -100.0)
    keen = CriticSchedule(1, 0.6, 2)
    for _ in range(50):
        keen.judge(fooled, fakes)
    assert keen.now["ratio"] == 1


def test_copies_come_from_the_second_half_and_all_are_drawn_from():
    net = MLPGenerator((1, 4, 4), 2, 3, (5,), norm=False)
    snapshots = Snapshots(3, 12)
    for t in range(12):
        torch.nn.init.constant_(net.layers[-1].bias, float(t))
        torch.nn.init.zeros_(net.layers[-1].weight)
        snapshots.take(t, net)
    state = snapshots.settled(net, 4)
    assert [float(state[f"{i}/layers.2.bias"][0]) for i in range(3)] == [11.0, 9.0, 7.0]
    again = Snapshots(3, 12)
    again.load_state_dict(snapshots.state_dict())
    assert again.kept.keys() == snapshots.kept.keys()
    x = mixture(net, state, torch.arange(300) % 2).amax((1, 2, 3)).logit()
    assert [80 < int((x.round() == v).sum()) < 120 for v in (11, 9, 7)] == [True] * 3


def test_more_copies_than_steps_and_the_size_of_the_basis():
    snapshots, net = Snapshots(5, 2), MLPGenerator((1, 4, 4), 2, 3, (5,))
    for t in range(2):
        snapshots.take(t, net)
    assert mixture(net, snapshots.settled(net, 4), torch.zeros(3, dtype=torch.int64)).shape == (3, 1, 4, 4)
    sizes = [low(PublicInfo(name="t", classes=("a", "b"), shape=s, units=9), None) for s in [(1, 28, 28), (3, 64, 64)]]
    assert sizes == [196, 1024]


@pytest.mark.parametrize(("name", "params"), [("dp-gan", GAN | {"adaptive": True}), ("dp-cgan", CGAN)])
def test_an_interrupted_run_goes_on_to_the_same_model(name, params, tmp_path, monkeypatch):
    from veilset.methods.gan import common

    info, private = data()
    whole = make(name, **params).fit(private, Privacy(2.0), seed=0)
    real, calls = common.Fakes.renew, []

    def cut(self, generator):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, generator)

    monkeypatch.setattr(common.Fakes, "renew", cut)
    with pytest.raises(KeyboardInterrupt):
        make(name, **params).fit(private, Privacy(2.0), seed=0, folder=tmp_path)
    monkeypatch.setattr(common.Fakes, "renew", real)
    again = make(name, **params).fit(private, Privacy(2.0), seed=0, folder=tmp_path)
    assert all(torch.equal(v, again._state[k]) for k, v in whole._state.items())


@pytest.mark.long
def test_pairs_stay_on_the_fast_path_in_bfloat16(recwarn: pytest.WarningsRecorder) -> None:
    """A unit that rounding turns on or off moves a row's gradient by a third, and is no wrong rule."""
    with torch.autocast("cpu", torch.bfloat16):
        make("dp-gan", steps=1, snapshots=1).fit(load("digits").train, Privacy(10.0, 1e-4), seed=0)
    assert not [str(w.message) for w in recwarn if "slower" in str(w.message)]
