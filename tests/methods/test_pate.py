"""The PATE family: what teachers compute and say, what is made of their votes, and what is planned."""

from __future__ import annotations

import math

import pytest
import torch

import veilset as vs
from veilset.audit.selftest.coupled import INFO, shapes
from veilset.audit.selftest.methods import SMALL
from veilset.methods.catalogue import method_class
from veilset.methods.gan import datalens, g_pate, pate_gan
from veilset.methods.gan.voters import Game, Voters
from veilset.networks.critics import MLPCritic
from veilset.networks.dct import low_frequencies
from veilset.networks.gan_generators import MLPGenerator
from veilset.privacy.enclave import Hidden
from veilset.privacy.gate import Gate

FAMILY = ("pate-gan", "g-pate", "datalens")
MNIST = vs.PublicInfo(name="n", classes=tuple("0123456789"), shape=(1, 28, 28), units=60_000)


def shard(n: int = 9, room: int = 12) -> Hidden:
    torch.manual_seed(1)
    x, y = torch.rand(room, 1, 8, 8), torch.randint(5, (room,))
    x[n:], y[n:] = 0, 0
    return Hidden(x, y, torch.tensor(n), {})


def voters() -> Voters:
    torch.manual_seed(0)
    return Voters(MLPCritic((1, 1, 16), 5, (8,)), (1, 1, 16), low_frequencies((1, 8, 8), 16), 1e-2, 6)


# ---------------------------------------------------------------------- teachers


def test_a_teacher_learns_to_tell_its_shard_from_what_is_generated():
    v, fakes = voters(), torch.zeros(5, 2, 16)
    own = v.made(shard())
    v.learn(own, fakes, 60)
    real = v.scores(own, own["x"][:9], own["y"][:9])
    assert float(real.mean() - v.scores(own, fakes[:, 0], torch.arange(5)).mean()) > 1
    empty, filled = v.made(shard(0)), v.made(shard(0))
    filled["x"] = filled["x"] + 1  # what stands in the blanks of an empty shard
    for one in (empty, filled):
        torch.manual_seed(0)
        v.learn(one, fakes, 3)
    assert all(torch.equal(empty[k], filled[k]) for k in empty if k != "x"), "blanks teach nothing"


def test_teachers_in_one_pass_are_those_of_a_loop():
    v, fakes = voters(), torch.rand(5, 2, 16)
    many = [v.made(shard(n)) for n in (9, 4, 0)]

    def taught(own):
        own = dict(own)
        v.learn(own, fakes, 5)
        return own

    torch.manual_seed(3)
    whole = torch.func.vmap(taught, randomness="same")({k: torch.stack([m[k] for m in many]) for k in many[0]})
    for i, own in enumerate(many):
        torch.manual_seed(3)
        one = taught(own)
        assert all(torch.allclose(whole[k][i].float(), one[k].float(), atol=1e-5) for k in one)


def test_a_slope_is_the_gradient_of_the_score_of_one_image():
    v = voters()
    own, x, y = v.made(shard()), torch.rand(3, 16).requires_grad_(), torch.tensor([0, 3, 4])
    (expected,) = torch.autograd.grad(v.scores(own, x, y).sum(), x)
    assert torch.allclose(v.slopes(own, x.detach(), y), expected)


# ---------------------------------------------------------------------- what is said, and made of it


def test_g_pate_says_on_which_side_the_slope_lies_and_moves_images_there():
    stage = g_pate.Directions(g_pate.Config(images=3, directions=4, basis=16))
    v = voters()
    own, x, y = v.made(shard()), torch.rand(3, 16), torch.tensor([0, 3, 4])
    x, axes = stage.asked(x, INFO)
    assert torch.allclose(axes.mT @ axes, torch.eye(4).expand(3, 4, 4), atol=1e-5)
    said = stage.voted(v, own, x, y, axes).argmax(1).view(3, 4)
    along = torch.einsum("bd,bdm->bm", v.slopes(own, x, y), axes)
    assert torch.equal(said == 1, along > 0)
    fine = g_pate.Directions(g_pate.Config(images=3, directions=4, basis=16, bins=5))
    unit = along / v.slopes(own, x, y).norm(dim=1, keepdim=True) * 2
    which = fine.voted(v, own, x, y, axes).argmax(1).view(3, 4)
    assert torch.equal(which, ((unit.clamp(-0.9999, 0.9999) + 1) / 0.4).long())


def moved(stage, counts, images=3):
    """Where a step that is given these shares of votes would move images."""
    game, told = Game(None, None, None, None, {}), []
    game.x, game.public = torch.zeros(images, 16), torch.eye(16)[:, :4].expand(images, 16, 4)
    game.moved = lambda direction, length, steps: told.append((direction, length))
    stage.teach(game, counts, 0)
    return told[0]


def test_what_is_read_from_noisy_counts():
    shares = torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.5, 0.5], [0.45, 0.55]]).repeat(3, 1)
    mean, length = moved(g_pate.Directions(g_pate.Config(images=3, directions=4, basis=16)), shares)
    assert torch.allclose(mean[0, :4], torch.tensor([0.8, -0.2, 0.0, 0.1])) and length == 3.0 and not mean[:, 4:].any()
    paper = g_pate.Config(images=3, directions=4, basis=16, decode="largest", threshold=0.5001)
    largest, _ = moved(g_pate.Directions(paper), shares)
    assert largest[0, :4].tolist() == [1.0, -1.0, 0.0, 1.0]
    counts = torch.tensor([[0.4, -0.1, 0.2, -0.3]])
    signs, _ = moved(datalens.Signs(datalens.Config(threshold=0.2)), counts, 1)
    assert signs.tolist() == [[1.0, 0.0, 1.0, -1.0]]
    assert torch.equal(moved(datalens.Signs(datalens.Config()), counts, 1)[0], counts)


def test_a_generator_learns_to_make_its_images_further_along():
    torch.manual_seed(0)
    net = MLPGenerator((1, 8, 8), 5, 3, (32,), norm=False, basis=16)
    game = Game(net, torch.optim.Adam(net.parameters(), 1e-2), voters(), low_frequencies((1, 8, 8), 16), {})
    game.drawn(10, 5, 0)
    before, direction = game.voters.seen(game.x), torch.randn(10, 16)
    game.moved(direction, 0.5, 60)
    after = game.voters.seen(net(game.z, game.y).detach())
    wanted = direction * 0.5 / direction.norm(dim=1).mean()
    assert float((after - before - wanted).norm()) < 0.5 * float(wanted.norm())


def test_a_student_learns_the_shares_it_is_told_and_the_generator_follows():
    torch.manual_seed(0)
    stage = pate_gan.Counts(pate_gan.Config(basis=16, student_steps=300, generator_steps=40, generator_lr=1e-2))
    net = MLPGenerator((1, 8, 8), 5, 3, (16,), norm=False, basis=16)
    extra = stage.extra(INFO)
    game = Game(net, torch.optim.Adam(net.parameters(), 1e-2), voters(), low_frequencies((1, 8, 8), 16), extra)
    game.x_asked, game.y = torch.randn(200, 16) * 4, torch.arange(200) % 5
    shares = (game.x_asked[:, 0] > 0).float()  # bright images are taken for records
    asked, labels = game.x_asked, game.y
    game.drawn(50, 5, 0)
    before = float(game.voters.seen(game.x)[:, 0].mean())
    game.x_asked, game.y = asked, labels
    stage.teach(game, shares[:, None], 0)
    found = stage._score(extra["student"], asked, labels).sigmoid()
    assert float(((found > 0.5) == (shares > 0.5)).float().mean()) > 0.95
    game.drawn(50, 5, 0)
    assert float(game.voters.seen(game.x)[:, 0].mean()) > before + 0.1
    kept = extra["told"]
    for _ in range(40):
        kept.add(torch.ones(100, 16), torch.zeros(100, dtype=torch.int64), torch.ones(100))
    assert len(kept.state_dict()["y"]) == 3000 and bool((kept.draw(50)[0] == 1).all()), "the latest"


def test_half_of_what_pate_gan_asks_about_is_as_generated():
    x, _ = pate_gan.Counts(pate_gan.Config(jitter=1.0)).asked(torch.zeros(10, 16), INFO)
    assert not x[::2].any() and x[1::2].abs().sum(1).min() > 0
    v = voters()
    own, y = v.made(shard()), torch.arange(10) % 5
    soft, hard = (pate_gan.Counts(pate_gan.Config(votes=k)).voted(v, own, x, y, None) for k in ("soft", "hard"))
    assert torch.equal(hard, (soft > 0.5).float()) and soft.shape == (10, 1) and float(soft.min()) > 0


# ---------------------------------------------------------------------- plans and recipes


@pytest.mark.parametrize(
    ("name", "facts", "squared"),
    [
        ("pate-gan", {"kind": "count", "rows": 100, "columns": 1, "entries": 1}, 100),
        ("g-pate", {"kind": "one-hot", "rows": 500, "columns": 2, "entries": 1}, 2 * 500),
        ("datalens", {"kind": "signs", "rows": 50, "columns": 136, "entries": 20}, 4 * 20 * 50),
    ],
)
def test_the_plan(name, facts, squared):
    plan = vs.make(name).plan(MNIST, vs.Privacy(10.0))
    mean, votes = plan.releases
    assert dict(votes.facts) == facts | {"shards": 300} and (votes.steps, votes.verb) == (60, "vote")
    assert 9.99 < plan.claim().epsilon <= 10.0 and plan.claim().accountant == "exact Gaussian"
    share = 1 / mean.noise_multiplier**2 / (1 / mean.noise_multiplier**2 + 60 / votes.noise_multiplier**2)
    assert share == pytest.approx(0.1, rel=1e-6)
    from veilset.privacy.mechanisms import of

    assert of(votes).factor(votes) ** 2 == pytest.approx(squared)
    alone = vs.make(name, start="none").plan(MNIST, vs.Privacy(10.0))
    assert [r.name for r in alone.releases] == ["votes"]


@pytest.mark.parametrize("name", FAMILY)
def test_the_published_recipe_is_priced_and_runs_for_a_step(name):
    cls = method_class(name)
    plan = vs.make(name, recipe="paper").plan(MNIST, vs.Privacy(10.0))
    (votes,) = plan.releases
    assert plan.claim().epsilon <= 10.0 and dict(votes.facts)["shards"] == cls.recipes["paper"]["shards"]
    small = {"shards": 6, "steps": 1, "width": 8, "generator_width": 8, "images": 4}
    model = vs.make(name, recipe="paper", **small).fit(shapes(60).hide(), vs.Privacy(10.0), seed=0)
    assert model.sample(5, seed=0).x.shape == (5, *INFO.shape)


@pytest.mark.parametrize("name", FAMILY)
def test_votes_are_asked_about_public_things_alone(name, monkeypatch):
    """Without noise, and with a shard of one class, or none: every share lies where votes may."""
    shares, vote = [], Gate.vote
    monkeypatch.setattr(Gate, "vote", lambda self, *a, **k: shares.append(vote(self, *a, **k)) or shares[-1])
    vs.make(name, **SMALL[name] | {"shards": 40}).fit(shapes(30).hide(), vs.Privacy(math.inf), seed=0)
    for counts in shares:
        assert counts.isfinite().all() and float(counts.abs().max()) <= 40
        if name == "g-pate":
            assert (counts.sum(1) == 40).all()
