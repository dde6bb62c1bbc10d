"""dp-cvae, vae-gm and au-gm: what they ask, what they learn, and what they must not depend on."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError, ModeError
from veilset.methods.latent import autoencoders, common, density
from veilset.methods.latent.au_gm import AUGM
from veilset.methods.latent.dp_cvae import DPCVAE
from veilset.methods.latent.vae_gm import VAEGM
from veilset.privacy.private import from_arrays

torch.set_num_threads(1)
INFO = vs.PublicInfo(name="bars", classes=("a", "b", "c"), shape=(1, 8, 8), value_range=(0.0, 1.0), units=300)
TINY = {"latent_dim": 3, "basis_size": 8, "hidden_dim": 6, "steps": 3}
PLAIN = autoencoders.PLAIN_VAE | {"latent_dim": 3, "hidden_dim": 6, "steps": 3}
FREE = vs.Privacy(math.inf)
ALL = [DPCVAE, VAEGM, AUGM]


def bars(info=INFO, n=None, seed=0):
    """A bright bar per class, at a height that varies a little."""
    g = np.random.default_rng(seed)
    n = n or info.units
    y = np.arange(n) % len(info.classes)
    x = 0.1 * g.random((n, *info.shape)).astype(np.float32)
    for i, k in enumerate(y):
        x[i, :, 2 * k : 2 * k + 2, : 4 + g.integers(0, 4)] += 0.8
    return x, y


def hidden(x, y, info=INFO):
    return from_arrays(info, x, y)


# ---------------------------------------------------------------------- what is planned


@pytest.mark.parametrize("cls", ALL)
def test_the_budget_is_shared_out_as_announced(cls):
    info = dataclasses.replace(INFO, units=60_000)
    for epsilon in (1.0,):
        plan = cls(batch_size=1000, steps=400, n_components=3).plan(info, vs.Privacy(epsilon))
        got = {r.name: share for r, (share, _) in zip(plan.releases, plan.shares(), strict=True)}
        for name, wanted in common.SHARES.items():
            assert wanted / 2 < got[name] < wanted * 2, (epsilon, got)


def test_the_published_schedule():
    info = dataclasses.replace(INFO, units=60_000, shape=(1, 28, 28))
    model = vs.make("dp-cvae", recipe="paper")
    plan = model._plan(info, vs.Privacy(10.0))
    (only,) = plan.releases
    assert (only.verb, only.bound, only.sample_rate) == ("grad", 1.0, 128 / 60_000)
    assert only.steps == round(300 * 60_000 / 128)
    net = autoencoders.network(model.config, info, autoencoders.Frame(torch.zeros(3, 784)), classes=3)
    widths = [(m.in_features, m.out_features) for m in net.modules() if isinstance(m, torch.nn.Linear)]
    assert widths == [(784 + 3, 256), (256, 2 * 2), (2 + 3, 256), (256, 784)]


def test_epsilon_of_a_partition_is_that_of_one_class():
    noise = []
    for classes in (("a",), tuple("abcdefghij")):
        info = dataclasses.replace(INFO, classes=classes, units=10_000)
        plan = VAEGM(**PLAIN | {"steps": 50}).plan(info, vs.Privacy(1.0))
        noise.append(plan["gradient"].noise_multiplier)
    assert noise[0] == noise[1]


@pytest.mark.parametrize("name", ["dp-cvae", "vae-gm", "au-gm"])
def test_the_plain_recipes_fit(name):
    info, x, y = digits()
    model = vs.make(name, recipe="paper", epochs=None, steps=2, hidden_dim=5)
    asked = [r.name for r in model._plan(info, vs.Privacy(5.0)).releases]
    assert asked == ["gradient"]
    assert model.fit(hidden(x, y, info), vs.Privacy(5.0), seed=0).sample(10, seed=0).x.shape == (10, 1, 8, 8)


@pytest.mark.parametrize("cls", ALL)
def test_defaults_are_functions_of_declared_facts(cls):
    for units in (1, 50, 1437, 60_000, 2_000_000):
        batch, steps = autoencoders.schedule(cls().config, dataclasses.replace(INFO, units=units), FREE)
        assert 1 <= batch <= units and steps >= 1


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ConfigError, match="basis = 'principal': convolutions"):
        DPCVAE(network="conv")._plan(INFO, vs.Privacy(1.0))
    with pytest.raises(ConfigError, match="sides"):
        narrow = dataclasses.replace(INFO, shape=(1, 1, 9))
        DPCVAE(network="conv", basis="pixels")._plan(narrow, vs.Privacy(1.0))
    with pytest.raises(ConfigError, match="steps and epochs"):
        DPCVAE(steps=3, epochs=1.0)._plan(INFO, vs.Privacy(1.0))


# ---------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    "how",
    [
        {},
        pytest.param({"likelihood": "bernoulli", "basis": "cosine"}, marks=pytest.mark.long),
        pytest.param({"network": "conv", "basis": "pixels"}, marks=pytest.mark.long),
    ],
)
def test_classes_are_told_apart_without_noise(cls, how):
    x, y = bars()
    how = {"latent_dim": 4, "basis_size": 20, "hidden_dim": 8, "steps": 25, "batch_size": 100} | how
    if cls is AUGM and how.get("basis"):  # it is not told the class, so it starts from nothing
        how |= {"steps": 80, "lr": 0.03}
    images = cls(**how).fit(hidden(x, y), FREE, seed=0).sample(60, seed=0)
    centres = torch.stack([torch.from_numpy(x[y == k]).mean(0).flatten() for k in range(3)])
    nearest = torch.cdist(images.x.flatten(1) / 255, centres).argmin(1)
    assert (nearest == images.y).float().mean() > 0.9


def test_gradients_alone_learn_too():
    x, y = bars()
    how = PLAIN | {"steps": 150, "batch_size": 100, "lr": 0.02, "hidden_dim": 16}
    images = DPCVAE(**how).fit(hidden(x, y), FREE, seed=0).sample(60, seed=0)
    centres = torch.stack([torch.from_numpy(x[y == k]).mean(0).flatten() for k in range(3)])
    assert (torch.cdist(images.x.flatten(1) / 255, centres).argmin(1) == images.y).float().mean() > 0.9


@pytest.mark.parametrize("cls", [DPCVAE, *(pytest.param(cls, marks=pytest.mark.long) for cls in (VAEGM, AUGM))])
@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 7, 11)], ids=str)
@pytest.mark.parametrize("conv", [False, True])
def test_colour_and_odd_sides(cls, shape, conv):
    info = dataclasses.replace(INFO, shape=shape, units=12)
    how = {"network": "conv", "basis": "pixels"} if conv else {}
    model = cls(**TINY | {"steps": 1} | how).fit(hidden(*bars(info), info), vs.Privacy(5.0), seed=0)
    assert model.sample(4, seed=0).x.shape == (4, *shape)


def test_one_class_more_codes_than_directions_and_several_draws():
    info = dataclasses.replace(INFO, classes=("a",), units=20)
    for cls in ALL:
        how = TINY | {"latent_dim": 9, "basis_size": 5} | ({"latent_samples": 4} if cls is not AUGM else {})
        cls(**how).fit(hidden(*bars(info), info), vs.Privacy(5.0), seed=0).sample(3)


def test_drawn_pixels_follow_the_likelihood():
    x, y = bars()
    black = DPCVAE(**PLAIN, sample_pixels=True).fit(hidden(x, y), FREE, seed=0).sample(20, seed=0)
    assert set(black.x.unique().tolist()) == {0, 255}
    clean, rough = (
        DPCVAE(**TINY, sample_pixels=d).fit(hidden(x, y), FREE, seed=0).sample(50, seed=0) for d in (False, True)
    )
    away = (rough.x.float() - clean.x.float()).std() / 255
    assert 0.05 < float(away) < 0.25  # codes differ as well, and clamping takes half of it


def test_moments_of_codes_are_right_when_nothing_is_noised():
    x, y = bars()
    how = TINY | {"kl_weight": 5.0, "n_components": 1}
    state = DPCVAE(**how).fit(hidden(x, y), FREE, seed=0)._state
    c = DPCVAE(**how).config
    own = {k: v for k, v in state.items() if k not in density.NAMES}
    net = autoencoders.network(c, INFO, autoencoders.Frame.like(own, logits=False), classes=3)
    net.load_state_dict(own)
    mean, log_variance = net.encode(torch.from_numpy(x), torch.from_numpy(y))
    for k in range(3):
        here = torch.from_numpy(y == k)
        torch.testing.assert_close(state["mean"][k, 0], mean[here].mean(0).detach(), atol=0.05, rtol=0.05)
        wanted = mean[here].T.cov(correction=0) + torch.diag(log_variance[here].exp().mean(0))
        torch.testing.assert_close(state["root"][k, 0] @ state["root"][k, 0].T, wanted.detach(), atol=0.05, rtol=0.1)


def test_cells_find_the_two_kinds_of_a_class():
    """A class of two far apart kinds: one Gaussian puts codes between them, four do not."""
    info = dataclasses.replace(INFO, classes=("a",), units=400)
    x, _ = bars(dataclasses.replace(INFO, classes=("a", "b")), 400)
    between = []
    for cells in (1, 4):
        model = DPCVAE(**TINY | {"n_components": cells}).fit(hidden(x, np.zeros(400, np.int64), info), FREE, seed=0)
        drawn = model.sample(100, seed=0).x.float() / 255
        top, low = drawn[:, 0, 0:2, :4].mean((1, 2)), drawn[:, 0, 2:4, :4].mean((1, 2))
        between.append(float(((top - low).abs() < 0.4).float().mean()))
    assert between[1] < 0.1 < between[0]


@pytest.mark.parametrize("cls", [pytest.param(DPCVAE, marks=pytest.mark.long), VAEGM, AUGM])
def test_an_interrupted_fit_goes_on_to_the_same_model(cls, tmp_path, monkeypatch):
    x, y = bars()
    whole = cls(**TINY).fit(hidden(x, y), vs.Privacy(5.0), seed=0)._state
    real, taken = autoencoders.descend, []

    def dies(*given):
        taken.append(1)
        if len(taken) == (5 if cls is VAEGM else 2):  # in the second class's loop, or in the only one
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(autoencoders, "descend", dies)
    with pytest.raises(KeyboardInterrupt):
        cls(**TINY).fit(hidden(x, y), vs.Privacy(5.0), seed=0, folder=tmp_path)
    monkeypatch.setattr(autoencoders, "descend", real)
    again = cls(**TINY).fit(hidden(x, y), vs.Privacy(5.0), seed=0, folder=tmp_path)._state
    assert whole.keys() == again.keys() and all(torch.equal(v, again[k]) for k, v in whole.items())


# ---------------------------------------------------------------------- vae-gm: classes are a partition


def test_a_record_reaches_the_networks_of_its_class_only():
    """Plain form: nothing is shared, so removing one image changes one class; moving it changes exactly two."""
    x, y = bars(n=30)
    moved = y.copy()
    moved[0] = 1  # from class 0
    models = [
        VAEGM(**PLAIN | {"batch_size": 300}).fit(hidden(*d), vs.Privacy(5.0), seed=0)._state
        for d in ((x, y), (x[1:], y[1:]), (x, moved))
    ]
    changed = [
        {
            k
            for k in range(3)
            if any(not torch.equal(v, other[n]) for n, v in models[0].items() if n.startswith(f"{k}."))
        }
        for other in models[1:]
    ]
    assert changed == [{0}, {0, 1}]


def test_gradients_of_a_class_are_divided_by_its_expected_batch():
    """Full batches without noise: K classes with N / K images each learn what one class of N / K learns alone."""
    x, y = bars()
    how = PLAIN | {"batch_size": 300, "clip_norm": 1e-3, "ema_decay": 0.0}
    three = VAEGM(**how).fit(hidden(x, y), FREE, seed=0)._state
    info = dataclasses.replace(INFO, classes=("a",), units=100)
    one = VAEGM(**how | {"batch_size": 100}).fit(hidden(x[y == 0], y[y == 0], info), FREE, seed=0)._state
    for name in one:
        if "weight" in name:
            assert torch.nn.functional.cosine_similarity(one[name].flatten(), three[name].flatten(), 0) > 0.9


# ---------------------------------------------------------------------- au-gm: the encoder


def test_anybody_can_encode():
    model = AUGM(**TINY)
    with pytest.raises(ModeError, match="not fitted"):
        model.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    model.fit(hidden(*bars()), vs.Privacy(5.0), seed=0)
    images = model.sample(7, seed=0).x
    codes = model.encode(images)
    assert codes.shape == (7, 3) and codes.dtype == torch.float32 and float(codes.abs().max()) <= 1
    assert not codes.requires_grad and torch.allclose(codes[2:3], model.encode(images[2:3]), atol=1e-5)
    for wrong in (images.float(), images[:, :, :4], images[0]):
        with pytest.raises(ConfigError, match="must be uint8"):
            model.encode(wrong)


def digits(units=100):
    info = dataclasses.replace(INFO, classes=tuple("0123456789"), units=units)
    return info, *bars(dataclasses.replace(info, classes=("a", "b", "c")), units)


def test_with_public_codes_private_labels_are_not_used():
    info, x, y = digits()
    how = TINY | {"latent_prior": "public"}
    a, b = (AUGM(**how).fit(hidden(x, labels, info), vs.Privacy(5.0), seed=0) for labels in (y, np.full(len(y), 7)))
    assert a._state.keys() == b._state.keys() and all(torch.equal(v, b._state[k]) for k, v in a._state.items())
    assert [r.name for r in a.plan(info, vs.Privacy(5.0)).releases] == ["mean", "spread", "gradient"]
    assert a.sample(10).y.tolist() != []


def test_public_codes_need_public_images_of_every_class():
    with pytest.raises(ConfigError, match="has no image of class 'a'"):
        AUGM(latent_prior="public").plan(INFO, vs.Privacy(1.0))
