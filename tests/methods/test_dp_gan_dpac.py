"""DP-GAN-DPAC: what its classifiers compute, what each ablation leaves out, and what gs-wgan is a case of."""

from __future__ import annotations

import math

import pytest
import torch
from torch.func import functional_call

import veilset as vs
from veilset.audit.selftest.coupled import INFO, shapes
from veilset.methods.gan import dp_gan_dpac
from veilset.methods.gan.common import Fakes
from veilset.methods.gan.dp_gan_dpac import OWN, Classifiers, Config, margin
from veilset.methods.gan.hidden_critics import Critics
from veilset.networks.critics import MLPCritic
from veilset.privacy.enclave import Hidden
from veilset.privacy.gate import Gate

SMALL = {
    "shards": 3, "rows": 5, "group_size": 2, "steps": 6, "width": 4, "warm_steps": 2, "critic_steps": 1,
    "batch_size": 4,
}  # fmt: skip
BOTH = ("gs-wgan", "dp-gan-dpac")


def fitted(name="dp-gan-dpac", data=None, **changes):
    own = {"classifier_steps": 2} if name == "dp-gan-dpac" else {}
    model = vs.make(name, **SMALL | own | changes)
    return model.fit((data or shapes(60)).hide(), vs.Privacy(math.inf), seed=0)


def game(model):
    return {k: v for k, v in model.fitted()[0].items() if k.startswith("game.")}


def shard(n: int = 9, place: int = 12, **state) -> Hidden:
    torch.manual_seed(1)
    return Hidden(torch.rand(place, 1, 8, 8), torch.randint(5, (place,)), torch.tensor(n), state)


def classifiers(**changes) -> Classifiers:
    torch.manual_seed(0)
    fakes = Fakes(5, 2, (1, 8, 8), "cpu")
    fakes.x = torch.rand(5, 2, 1, 8, 8)
    config = Config(**{"batch_size": 6, "classifier_steps": 4, "lr": 1e-2, "mechanism": "round-robin"} | changes)
    return Classifiers(MLPCritic((1, 8, 8), 5, (8, 8), basis=16), config, fakes)


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def test_the_margin_of_one_hot_logits():
    y = torch.tensor([0, 3])
    assert margin(torch.eye(10)[[0, 0]], y).tolist() == [1.0, pytest.approx(-1 / 9)]
    assert margin(torch.tensor([[2.0, 5.0]]), torch.tensor([1])).tolist() == [3.0]


def test_what_a_classifier_pays():
    """Minus the mean margin, with the drift and the gradient penalty of critics, at the images themselves."""
    c, h = classifiers(), shard()
    x, y = h.x[:6].requires_grad_(), h.y[:6]
    logits = functional_call(c._net, c.initial, (x, y))[:, 1:]
    own = logits[torch.arange(6), y]
    score = own - (logits.sum(1) - own) / 4
    (slope,) = torch.autograd.grad(score.sum(), x, retain_graph=True)
    steep = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    expected = -score.mean() + 1e-3 * score.square().mean() + 10 * steep
    assert float(c.paid(c.initial, x, y).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert float(c.paid(c.initial, x, y, 0.0)) == 0


def test_weight_0_is_gs_wgan_bit_for_bit_and_another_weight_is_not():
    ours = game(fitted("gs-wgan"))
    assert same(ours, game(fitted(classifier_weight=0.0)))
    late = {"classifier_from": 0.99}
    assert same(ours, game(fitted(**late))) and not same(ours, game(fitted()))


def test_one_matrix_of_the_planned_rows_leaves_a_step_before_and_after_the_classifier_joins(monkeypatch):
    asked = []
    pull = Gate.pull

    def counted(self, name, f):
        asked.append(tuple(pull(self, name, f).shape))
        return torch.zeros(asked[-1])

    monkeypatch.setattr(Gate, "pull", counted)
    fitted(classifier_from=0.5)
    assert asked == [(5, 16)] * 6


def test_the_rows_are_the_weighted_sum_of_critic_and_classifier():
    config = Config(**SMALL | {"classifier_weight": 0.25, "classifier_steps": 2, "basis": 16})
    stage = dp_gan_dpac.DualPurpose(config)
    torch.manual_seed(0)
    waves, fakes = stage._waves(INFO), Fakes(5, 2, INFO.shape, "cpu")
    critics = Critics(stage.network(INFO), 1e-2, 10.0, 4, waves)
    x, y = torch.rand(5, 1, 8, 8), torch.arange(5)
    torch.manual_seed(3)
    got = stage._asked(INFO, critics, fakes)(x, y, 0.0)
    torch.manual_seed(3)
    own = Classifiers(stage._classifier(INFO), config, fakes, waves)
    ready = own.ready()
    torch.manual_seed(4)
    rows = got(shard(**critics.initial))
    torch.manual_seed(4)
    h = shard(**critics.initial)
    critic = critics.answered(h, critics.seen(fakes.x), critics.seen(x), y, 1, None)
    other = own.slopes(own.taught(h, ready), own.seen(x), y, None)
    assert torch.allclose(rows, 0.75 * critic + 0.25 * other, atol=1e-6) and rows.shape == (5, 16)


def test_each_ablation_changes_its_phase_alone():
    full, h = classifiers(), shard()
    after_fakes, blind = full.ready(), classifiers(g2r=False)
    assert not same(after_fakes, full.initial) and same(blind.ready(), blind.initial)

    def taught(c, h):
        torch.manual_seed(2)
        return c.taught(h, c.ready())

    whole = taught(full, h)
    assert not same(whole, after_fakes)
    assert same(taught(classifiers(r2g=False), h), after_fakes), "no record is looked at"
    other = Hidden(1 - h.x, h.y, h.count, {})
    assert not same(taught(blind, h), taught(blind, other)) and not same(whole, taught(full, other))
    mixed = classifiers(sequential=False)
    assert same(mixed.ready(), mixed.initial) and not same(taught(mixed, h), whole)
    assert not same(taught(mixed, h), taught(blind, h)), "both kinds of images in each step"


def test_an_empty_shard_teaches_nothing():
    c = classifiers()
    assert same(c.taught(shard(0), ready := c.ready()), ready)


def test_a_classifier_that_is_kept_goes_on_from_where_its_shard_left_it():
    c, h = classifiers(fresh=False), shard()
    first = c.taught(h, None)
    assert same({OWN + k: v for k, v in first.items()}, h.state)
    assert not same(c.taught(h, None), first)
    assert not same(c.taught(Hidden(h.x, h.y, h.count, {OWN + k: v for k, v in first.items()}), None), first)


def test_a_classifier_is_kept_in_turn_only():
    info = vs.PublicInfo(name="n", classes=("a", "b"), shape=(1, 8, 8), units=6000)
    with pytest.raises(vs.VeilsetError, match="fresh = False with mechanism = 'secret-shards'"):
        vs.make("dp-gan-dpac", fresh=False).unpriced(info, vs.Privacy(1.0))
    assert vs.make("dp-gan-dpac", fresh=False, mechanism="round-robin").unpriced(info, vs.Privacy(1.0))


def test_the_generator_starts_as_the_moments_and_is_moved_by_answers_alone():
    still = fitted(generator_lr=0.0)
    assert all(float(v.abs().max()) == 0 for k, v in game(still).items() if k.endswith("shift"))
    assert any(float(v.abs().max()) > 0 for k, v in game(fitted()).items() if k.endswith("shift"))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", ["one shard", "more shards than units", "one class"])
def test_odd_shards(name, kind):
    data = shapes(20)
    if kind == "one class":
        data.y[:] = 2
    shards = {"one shard": 1, "more shards than units": 50}.get(kind, 3)
    model = vs.make(name, **SMALL | {"shards": shards, "critic_steps": 1})
    model.fit(data.hide(), vs.Privacy(math.inf), seed=0)
    assert all(v.isfinite().all() for v in model.fitted()[0].values())


@pytest.mark.parametrize("name", BOTH)
def test_killed_between_training_and_the_first_answer(name, tmp_path, monkeypatch):
    """The models are taken up again, and the run ends as one that was not killed."""

    def fit(folder):
        return vs.make(name, **SMALL).fit(shapes(40).hide(), vs.Privacy(math.inf), seed=0, folder=folder)

    whole = fit(tmp_path / "whole")
    trained = []
    train = Critics.warmed
    monkeypatch.setattr(Critics, "warmed", lambda *a, **k: trained.append(1) or train(*a, **k))
    with monkeypatch.context() as m:

        def killed(*_, **__):
            raise KeyboardInterrupt

        m.setattr(Gate, "pull", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "stopped")
    count = len(trained)
    again = fit(tmp_path / "stopped")
    assert len(trained) == count > 0, "trained once"
    assert same(game(again), game(whole))


@pytest.mark.parametrize("name", BOTH)
def test_the_published_configuration_is_priced(name):
    info = vs.PublicInfo(name="n", classes=tuple("0123456789"), shape=(1, 28, 28), units=60_000)
    model = vs.make(name, recipe="paper")
    (release,) = model.unpriced(info, vs.Privacy(10.0)).releases
    assert dict(release.facts) == {"shards": 1000, "rows": 32, "columns": 784} and release.steps == 20_000
    stage = model._game()
    assert sum(p.numel() for p in stage.network(info).parameters()) == 1_071_105
    images = stage._generator(info)(torch.randn(2, 10), torch.tensor([0, 1]))
    assert images.shape == (2, 1, 28, 28) and 0 <= images.min() < images.max() <= 1


@pytest.mark.parametrize("name", BOTH)
def test_the_published_configuration_runs_a_step(name):
    small = {"shards": 2, "steps": 2, "warm_steps": 1, "width": 4, "generator_width": 4}
    small |= {"classifier_from": 0.0, "classifier_steps": 1} if name == "dp-gan-dpac" else {}
    model = vs.make(name, recipe="paper", **small)
    model.fit(shapes(20).hide(), vs.Privacy(math.inf), seed=0)
    assert model.sample(4, seed=0).x.shape == (4, 1, 8, 8)
