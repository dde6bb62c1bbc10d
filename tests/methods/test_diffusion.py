"""dp-diffusion and dp-feta: what they plan, what they ask, and what central images are made of."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.types import PublicInfo
from veilset.learning.dp_sgd import cosine, loop_multiplier
from veilset.methods.diffusion.dp_diffusion import Denoiser, DPDiffusion
from veilset.methods.diffusion.dp_feta import DPFETA, Central, _around, _halved, _one_hot, _pooled, cleaned, turned
from veilset.privacy.accounting import Spent, claim
from veilset.privacy.private import from_arrays

INFO = PublicInfo(name="bars", classes=("a", "b", "c"), shape=(1, 9, 8), value_range=(0, 1), units=90)
MNIST = PublicInfo(name="digits", classes=tuple("0123456789"), shape=(1, 28, 28), units=60_000)
TINY = {"width": 8, "embedding_dim": 8, "steps": 2, "noise_multiplicity": 2, "sampling_steps": 2}
WARM = TINY | {"warm_steps": 2, "warm_batch_size": 4}


def bars(n: int = 90, classes: int = 2):
    """Private images with a bar at a place that the class says; class "c" has no member."""
    y = np.arange(n) % classes
    x = np.zeros((n, *INFO.shape), np.float32)
    for i, k in enumerate(y):
        x[i, 0, 2 + 3 * k : 4 + 3 * k] = 1
    return x, y


def private(**how):
    return from_arrays(INFO, *bars(**how))


def ledger(model) -> list[dict]:
    return [b for b in (json.loads(line)["body"] for line in model.ledger.splitlines()) if b["kind"] == "charge"]


# ---------------------------------------------------------------------- dp-diffusion


def test_published_noise():
    """q = 1/15, 4500 steps at (1, 1e-5): 16.72 by PLD (18.13 by the RDP that the authors' library uses)."""
    train = DPDiffusion(batch_size=4000, steps=4500).plan(MNIST, vs.Privacy(1.0)).releases[0]
    assert train.noise_multiplier == pytest.approx(16.72, rel=3e-3) and train.bound == 0.1


def test_paper_recipe_is_published_schedule():
    model = vs.make("dp-diffusion", recipe="paper")
    train = model._plan(MNIST, vs.Privacy(1.0)).releases[0]
    assert (train.steps, train.bound, model.config.noise_multiplicity) == (4500, 1.0, 32)
    assert train.sample_rate == 4096 / 60_000
    assert sum(p.numel() for p in Denoiser(model.config).network(MNIST, 0, 0).parameters()) > 900_000


@pytest.mark.parametrize(
    "how", [{}, {"network": "unet"}, {"parameterisation": "v", "shift": 1, "flip": True, "guidance_scale": 0.5}]
)
@pytest.mark.parametrize("sampler", ["ancestral", "churn"])
def test_fits_and_draws(how, sampler):
    model = DPDiffusion(**TINY, **how, sampler=sampler, batch_size=20).fit(private(), vs.Privacy(math.inf), seed=0)
    images = model.sample(6)
    assert images.x.shape == (6, *INFO.shape)
    assert torch.isfinite(model._sample(model._state, INFO, images.y)).all()


def test_samples_come_from_averaged_weights():
    """After one step an average that keeps 0.1 to 0.9 of the old lies between the old and the new weights."""
    fit = {
        a: DPDiffusion(**TINY | {"steps": 4}, ema_decay=a, batch_size=20)
        .fit(private(), vs.Privacy(math.inf), seed=0)
        ._state
        for a in (0.0, 0.9)
    }
    assert any(not torch.equal(fit[0.0][k], fit[0.9][k]) for k in fit[0.0])


def test_learns_without_noise():
    """Trained without noise, images carry the bar of their class."""
    how = {
        "width": 8,
        "embedding_dim": 16,
        "steps": 70,
        "noise_multiplicity": 2,
        "batch_size": 30,
        "lr": 0.02,
        "clip_norm": 1.0,
    }
    model = DPDiffusion(**how, sampling_steps=12).fit(private(), vs.Privacy(math.inf), seed=0)
    images = model.sample(20, classes=["a", "b"], seed=0)
    rows = images.x.float().mean((1, 3))
    first, second = rows[:, 2:4].mean(1), rows[:, 5:7].mean(1)
    assert ((first > second) == (images.y == 0)).float().mean() > 0.9


def test_learning_rate_rises_and_falls():
    rates = [cosine(t, 100) for t in range(100)]
    assert rates[0] < 0.06 and max(rates) > 0.9 and rates[-1] < 0.01


# ---------------------------------------------------------------------- dp-feta


def test_central_image_is_the_halved_class_sum_over_the_expected_count():
    x, y = bars(n=120)
    model = DPFETA(**WARM, warm_start="central", queries=1, query_sample_rate=1.0)
    asked = []

    class Spy:
        def sum(self, name, f, by_class):
            total = torch.zeros(3, 1, 5, 4, dtype=torch.float64)
            for image, label in zip(x, y, strict=True):
                one = f(torch.from_numpy(image), torch.tensor(label))
                assert float(one.norm()) <= bound * (1 + 1e-6)
                total[label] += one
            asked.append(total)
            return total

    plan = model.plan(INFO, vs.Privacy(math.inf))
    bound = plan["central"].bound
    state = Central(model.config).fit(Spy(), INFO, vs.Privacy(math.inf), {})
    images, labels = _around(state)(50)
    assert bound == math.sqrt(20) / 2 and images.shape == (50, 1, 9, 8) and set(labels.tolist()) <= {0, 1, 2}
    halved = torch.stack([_pooled(torch.from_numpy(x[y == k]).mean(0), (1, 5, 4)) for k in (0, 1)])
    wanted = 0.5 + (halved - 0.5) * (60 / 30)  # 60 members where 30 were declared: the divisor is the public one
    assert torch.allclose((0.5 + asked[0][:2] / 30).float(), wanted, atol=1e-6)
    assert not asked[0][2].any()  # a class without members is grey, and under noise it is noise


@pytest.mark.parametrize("warm", ["central", pytest.param("mode", marks=pytest.mark.long)])
def test_queries_and_their_rate_are_in_the_ledger(warm):
    model = DPFETA(**WARM, warm_start=warm, queries=3, query_sample_rate=0.2, batch_size=20)
    model.fit(private(), vs.Privacy(2.0), seed=0)
    first = [b for b in ledger(model) if b["release"] == warm]
    assert sum(b["steps"] for b in first) == 3 and {b["sample_rate"] for b in first} == {0.2}
    assert model.sample(3).x.shape == (3, *INFO.shape)


@pytest.mark.parametrize("entry", [0.5, 80.0])
def test_images_of_moments_enter_the_sampler(entry):
    """Half-way in, what is drawn hangs on the moments; from pure noise it does not."""
    model = DPFETA(**WARM, warm_start="moments", entry_sigma=entry, batch_size=20).fit(
        private(), vs.Privacy(math.inf), seed=0
    )
    before, y = dict(model._state), torch.tensor([0, 1])
    after = before | {"moments.mean": before["moments.mean"] + 1}
    torch.manual_seed(0)
    a = model._sample(before, INFO, y)
    torch.manual_seed(0)
    b = model._sample(after, INFO, y)
    assert torch.equal(a, b) == (entry == 80.0)


def test_one_hot_levels_keep_to_their_bound():
    x = torch.rand(3, 5, 4)
    for levels in (2, 16):
        hot = _one_hot(x, levels)
        assert float(hot.norm()) == pytest.approx(math.sqrt(60 * (1 - 1 / levels)), rel=1e-5)
        assert torch.equal(hot.argmax(0), (x * (levels - 1)).round().long())
    plan = DPFETA(warm_start="mode", grey_levels=16)._plan(INFO, vs.Privacy(1.0))
    assert plan["mode"].bound == pytest.approx(math.sqrt(20 * 15 / 16))


def test_shares_of_the_budget():
    """A share is a part of squared mu; both parts together cost what was asked."""
    plan = DPFETA(warm_start="moments", budget_share=0.5).plan(MNIST, vs.Privacy(1.0))
    small = [Spent(r.noise_multiplier, r.sample_rate, r.steps) for r in plan.releases if r.name != "train"]
    later = [Spent(r.noise_multiplier, r.sample_rate, r.steps) for r in plan.releases if r.name == "train"]
    first, second = claim(small, 1e-5).epsilon, claim(later, 1e-5).epsilon
    assert plan.claim().epsilon <= 1 + 1e-9
    assert abs(first - second) < 0.2 and first + second > 1.2


def test_published_multipliers_of_the_warm_up():
    """The paper's (5, 0.1, 5): its price, and that the split by the central limit comes close to it."""
    assert claim([Spent(5.0, 0.1, 5)], 1e-5).epsilon == pytest.approx(0.1646, rel=0.01)
    mu = 0.1 * math.sqrt(5 * math.expm1(1 / 25))
    assert loop_multiplier(mu, 0.1, 5) == pytest.approx(5.0) and loop_multiplier(0.5, 1.0, 4) == 4.0


def test_central_images_are_enlarged_cleaned_and_turned():
    small = torch.zeros(2, 1, *_halved(INFO.shape)[1:])
    small[0, 0, 2, 2] = 1  # a lone bright pixel is noise to the median
    small[1, 0, :, 2:] = 1
    x = cleaned(small, INFO.shape)
    assert x.shape == (2, *INFO.shape) and float(x[0].mean()) < 0.2 and float(x[1, 0, :, 6:].min()) > 0.9
    t = turned(x.expand(2, 1, 9, 8))
    assert t.shape == x.shape and float(t.min()) >= 0 and float(t.max()) <= 1
    assert cleaned(torch.rand(1, 3, 4, 4), (3, 8, 8)).shape == (1, 3, 8, 8)
