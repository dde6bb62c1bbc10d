"""dp-condense: what random networks see of the private images, its bound and noise, and the images made to it."""

from __future__ import annotations

import math

import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError
from veilset.methods.condensation.dp_condense import View, _pace
from veilset.methods.moments.dp_moments import DPMoments
from veilset.networks.embeddings import Embeddings
from veilset.privacy.accounting import gaussian_noise_multiplier

INFO = vs.load("digits").info


def look(networks: int = 3, moved: bool = True, dtype: torch.dtype = torch.float32) -> Embeddings:
    torch.manual_seed(0)
    return Embeddings(INFO.shape, networks, 4, moved, dtype)


def test_an_embedding_has_norm_one_and_is_of_its_image_alone() -> None:
    x = torch.rand(6, *INFO.shape)
    for dtype in (torch.float32, torch.bfloat16):
        e = look(dtype=dtype)(1, x)
        assert torch.allclose(e.norm(dim=1), torch.ones(6), atol=1e-5)
    net, other = look(), x.clone()
    other[3] = 1 - other[3]
    assert torch.equal(net(0, x)[[0, 1, 2, 4, 5]], net(0, other)[[0, 1, 2, 4, 5]])
    alone = torch.func.vmap(lambda v: net(2, v[None])[0])(x)
    assert torch.allclose(alone, net(2, x), atol=1e-5)
    assert not torch.allclose(net(0, x), net(1, x), atol=0.1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 5, 9)])
def test_images_of_every_shape_have_embeddings_of_the_size_it_says(shape) -> None:
    e = Embeddings(shape, 2, 4, True, torch.float32)
    assert e(0, torch.rand(3, *shape)).shape == (3, e.size)


def test_a_flat_image_has_a_finite_embedding() -> None:
    assert torch.isfinite(look()(0, torch.zeros(2, *INFO.shape))).all()


@pytest.mark.parametrize("reference", [True, False])
def test_the_target_without_noise_is_the_mean_embedding(reference: bool) -> None:
    torch.manual_seed(1)
    drawn, x = (torch.rand(4, n, *INFO.shape) for n in (20, 5))
    view = View(look(), 0.7 * drawn if reference else None)
    view.bound *= 10
    sums = torch.stack([torch.stack([view.whole(v, torch.tensor(k)) for v in x[k]]).mean(0) for k in range(4)])
    means = torch.stack([view.look(i, x.flatten(0, 1)).unflatten(0, (4, 5)).mean(1) for i in range(3)])
    assert torch.allclose(view.target(sums, 0.0), means, atol=1e-4)


def test_most_drawn_images_are_within_the_bound() -> None:
    torch.manual_seed(1)
    drawn = torch.rand(4, 50, *INFO.shape)
    view = View(look(), drawn)
    norms = torch.stack([view.whole(v, torch.tensor(k)).norm() for k in range(4) for v in drawn[k]])
    assert 0.85 < float((norms <= 1 + 1e-5).float().mean()) < 0.95


def test_what_is_only_noise_moves_no_target() -> None:
    torch.manual_seed(1)
    view = View(look(40), torch.rand(10, 20, *INFO.shape))
    noise = 0.3 * torch.randn(10, 40 * view.look.size)
    kept = (view.target(noise, 0.3) - view.means).norm() / (noise * view.bound).norm()
    assert float(kept) < 0.2
    assert float((view.target(noise, 0.0) - view.means).norm()) == pytest.approx(
        float((noise * view.bound).norm()), rel=1e-4
    )


def test_shares_of_the_budget_are_those_that_are_asked_for() -> None:
    privacy = vs.Privacy(1.0, 1e-5)
    plan = vs.make("dp-condense", budget_share=0.3).plan(INFO, privacy)
    one = gaussian_noise_multiplier(1.0, 1e-5)
    spent = {r.name: r.steps * (one / r.noise_multiplier) ** 2 for r in plan.releases}
    assert sum(spent.values()) == pytest.approx(1, rel=1e-3)
    assert spent["embedding"] == pytest.approx(0.7, rel=1e-3)
    alone = {r.name for r in DPMoments().plan(INFO, privacy).releases}
    assert alone <= set(spent) - {"embedding"}


def test_the_published_schedule_is_planned_and_charged_sum_by_sum() -> None:
    model = vs.make("dp-condense", start="noise", sums=3, group_size=10, networks=1, width=4, steps=2, per_class=2)
    rate = 10 / (INFO.units / len(INFO.classes))
    plan = model.plan(INFO, vs.Privacy(5.0))
    assert [(r.name, r.steps, r.sample_rate) for r in plan.releases] == [("embedding", 3, pytest.approx(rate))]
    model.fit(vs.load("digits").train, vs.Privacy(5.0), seed=0)
    ledger = model.ledger.decode()
    assert ledger.count('"release":"embedding"') == 3


def test_a_class_cannot_get_more_images_than_it_is_declared_to_have() -> None:
    many = math.ceil(INFO.units / len(INFO.classes)) + 1
    with pytest.raises(ConfigError, match=f"per_class = {many}: must be at most"):
        vs.make("dp-condense", per_class=many).plan(INFO, vs.Privacy(1.0))


def test_fine_waves_change_less_than_coarse_ones() -> None:
    pace = _pace(8, 12, 0.3)
    assert pace.shape == (8, 12) and float(pace.square().mean()) == pytest.approx(1, rel=1e-5)
    assert float(pace[0, 0]) > 2 * float(pace[4, 0]) and float(pace[0, 6]) == pytest.approx(float(pace[4, 0]))
    assert torch.allclose(_pace(8, 12, 1e6), torch.ones(8, 12), atol=1e-4)


def accuracy(images, test) -> float:
    x, y = images.x.flatten(1).float(), images.y
    near = torch.cdist(test.x.flatten(1).float(), x).argmin(1)
    return float((y[near] == test.y).float().mean())


@pytest.mark.long
def test_noise_turns_into_digits_and_labels_stay() -> None:
    data = vs.load("digits")
    params = {"start": "noise", "per_class": 5, "width": 16, "lr": 0.05}
    before, after = (
        vs.make("dp-condense", steps=n, **params).fit(data.train, vs.Privacy(math.inf), seed=0).sample(50)
        for n in (1, 200)
    )
    assert after.y.bincount().tolist() == [5] * 10
    assert accuracy(before, data.test) < 0.4
    assert accuracy(after, data.test) > 0.75


def test_the_plan_counts_the_memory_of_the_axes() -> None:
    """A square matrix per network, which outgrows everything else in wide ones."""
    info = vs.load("mnist").info
    few, many = (vs.make("dp-condense", width=256, networks=n).plan(info, vs.Privacy(1.0)).memory_mb for n in (10, 60))
    assert many - few == pytest.approx(50 * (2 * 256 * 9) ** 2 * 4e-6)
