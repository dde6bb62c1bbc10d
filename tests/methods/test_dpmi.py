"""DPMI: a code follows from its own image and from public data; what is private is asked of codes alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.audit.selftest.methods import SMALL
from veilset.core.errors import ConfigError, DataError
from veilset.data import partition
from veilset.data.public_set import open_public
from veilset.methods.inversion import dpmi, public_models
from veilset.methods.inversion.codes import Code, inverted
from veilset.methods.inversion.dpmi import DPMI, chosen
from veilset.privacy.features import Features
from veilset.privacy.private import InMemory, Opened, PrivateImages, from_arrays
from veilset.testing import INFO, watched

torch.set_num_threads(1)
TINY = SMALL["dpmi"]
WIDE = TINY | {"latent_dim": 20, "code_dim": 12, "public_hidden_dim": 24, "iterations": 8, "public_steps": 20}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(dpmi, "SHOWN", 128)
    dpmi.made.cache_clear()


def records(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random((n, *INFO.shape), np.float32), np.arange(n) % len(INFO.classes)


def seen(code: Code, x: torch.Tensor, order: list[int], together: int) -> torch.Tensor:
    """Codes of x, as the gate computes them: so many records at a time, in this order."""
    kept = Features(code, len(x), torch.zeros(x.shape[1:]), code.rows)
    out = torch.empty(len(x), *kept.blank.shape)
    for part in torch.tensor(order).split(together):
        out[part] = kept(part, x[part])
    return out


# ---------------------------------------------------------------------- inversion


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"latents": "encoder"},
        {"public_model": "wgan"},
        pytest.param({"public_model": "conv-ae"}, marks=pytest.mark.long),
    ],
)
def test_a_code_is_the_same_to_the_bit_alone_in_any_batch_and_at_any_place(how: dict[str, str]) -> None:
    code = DPMI(**WIDE | how).code(INFO)
    x = torch.from_numpy(records(24)[0])
    x[3], x[7:9] = 1.0, 0.0
    whole = seen(code, x, list(range(24)), 24)
    assert torch.equal(seen(code, x, list(range(24)), 1), whole)
    assert torch.equal(seen(code, x, list(range(23, -1, -1)), 7), whole)
    assert torch.equal(seen(code, x[5:6], [0], 1)[0], whole[5])
    assert len({v.numpy().tobytes() for v in whole}) == 23  # two images are equal, and no others


def test_codes_lie_within_a_public_radius() -> None:
    code = DPMI(**WIDE | {"reach": 0.2}).code(INFO)
    x = torch.cat([torch.from_numpy(records(20)[0]), torch.ones(1, *INFO.shape), -50 * torch.ones(1, *INFO.shape)])
    raw, u = torch.func.vmap(code.raw)(x), torch.func.vmap(code)(x)
    assert raw.norm(dim=1).max() <= 0.2 * math.sqrt(20) * (1 + 1e-5) and (raw.norm(dim=1) > 0.8).any()
    assert ((u - 0.5) * 7).flatten(1).norm(dim=1).max() <= 0.2 * math.sqrt(12) * (1 + 1e-5)
    far = code.images(u + 100, INFO.shape)  # nor do codes that noise made leave it
    assert far.shape == (22, *INFO.shape) and far.min() >= 0 and far.max() <= 1


def bowl(z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The error of a decoder that is the identity."""
    return (z - x).square().mean(), 2 * (z - x) / len(x)


def test_each_record_has_its_own_steps() -> None:
    """Among copies of itself, and among others that go on for longer, it ends at the same code."""
    x = torch.cat([torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.full((1, 6), 2.0)])
    look = torch.func.vmap(lambda v: inverted(bowl, v, torch.zeros(6), 200, 0.1, 30.0))
    got = look(x)
    for i, one in enumerate(x):
        assert torch.equal(look(one.expand(5, 6))[0], got[i])
    assert (got - x).abs().max() < 0.06


def test_a_record_that_has_stopped_does_not_go_on_with_others() -> None:
    """Its error would fall a little further out than its steps lead it; the other record goes on for long."""

    def cliff(z: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        there, flat = bowl(z, x), (z[0] < 1.48).float()
        return torch.where(x[0] > 0, flat, there[0]), torch.where(x[0] > 0, -1.0, there[1])

    look = torch.func.vmap(lambda v: inverted(cliff, v, torch.zeros(3), 400, 0.1, 30.0))
    got = look(torch.tensor([[1.0] * 3, [-9.0] * 3]))
    assert torch.equal(got[0], torch.zeros(3)) and got[1].max() < -8


def test_the_nearest_code_of_the_ball_is_found() -> None:
    start = torch.zeros(6)
    x = torch.cat([torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(1, 6)])
    x[0] *= 10
    got = torch.func.vmap(lambda v: inverted(bowl, v, start, 200, 0.1, 3.0))(x)
    assert torch.allclose(got, x * (3 / x.norm(dim=1, keepdim=True).clamp_min(3)), atol=0.06)
    assert torch.equal(got[4], start)
    nothing = torch.func.vmap(lambda v: inverted(bowl, v, start, 5, 0.1, 3.0))(torch.full((1, 6), math.nan))
    assert torch.equal(nothing[0], start)


def test_the_best_code_met_is_kept() -> None:
    """More iterations never give a worse one, and steps that are far too large do no harm."""
    decoder = DPMI(**WIDE).code(INFO).model.decoder
    x = torch.from_numpy(records(1)[0]).flatten()
    for rate in (0.1, 50.0):
        errors = [
            float(decoder.slope(inverted(decoder.slope, x, torch.zeros(20), 40 if rate > 1 else n, rate, 6.0), x)[0])
            for n in (1, 40)
        ]
        assert errors[1] <= float(decoder.slope(torch.zeros(20), x)[0]) and errors[1] <= errors[0]


def test_the_gradient_by_hand_is_autograds() -> None:
    decoder = public_models.Decoder(INFO.shape, 7, 9, conv=False)
    z, x = torch.randn(7), torch.rand(INFO.pixels)
    gradient, error = torch.func.grad_and_value(lambda v: (decoder(v[None])[0] - x).square().mean())(z)
    got = decoder.slope(z, x)
    assert torch.allclose(got[0], error) and torch.allclose(got[1], gradient, atol=1e-7)


def test_whitening_is_by_public_moments() -> None:
    code = DPMI(**WIDE).code(INFO)
    x, _ = open_public("dead-leaves").images(INFO.shape)
    few = x[torch.linspace(0, len(x) - 1, 128).long()].float() / 255
    w = torch.cat([torch.func.vmap(code.raw)(part) for part in few.split(32)])
    u = (w - code.mean) @ code.into.T
    assert u.mean(0).abs().max() < 1e-2 and (torch.cov(u.T) - torch.eye(12)).abs().max() < 2e-2
    assert torch.allclose(code.into @ code.back, torch.eye(12), atol=2e-3)


# ---------------------------------------------------------------------- what is public


def test_the_public_model_is_learned_before_records_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = public_models.learned
    monkeypatch.setattr(dpmi, "learned", lambda *how: order.append("learned") or real(*how))
    x, y = records()
    data = PrivateImages(INFO, lambda: order.append("opened") or Opened(InMemory(x), y))
    model = vs.make("dpmi", **TINY)
    assert order == []
    plan = model.plan(INFO, vs.Privacy(5.0))
    assert order == [] and [p.name for p in plan.public] == ["dead-leaves"]
    model.session(data, plan, seed=0)
    assert order == ["learned", "opened"]


@pytest.mark.parametrize("kind", ["ae", "wgan", "wgan-gp"])
def test_pre_training_that_was_interrupted_goes_on_to_the_same_model(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    how = {"latent": 4, "hidden": 5, "steps": 9, "batch": 8}
    images = open_public("dead-leaves")
    whole = public_models.learned(kind, images, INFO.shape, how).state_dict()
    (kept,) = (Path(public_models.public.cache("public-models"))).iterdir()
    before = kept.stat().st_mtime_ns
    torch.manual_seed(5)
    again = public_models.learned(kind, images, INFO.shape, how).state_dict()
    assert kept.stat().st_mtime_ns == before and all(torch.equal(whole[k], again[k]) for k in whole)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(public_models, "EVERY", 4)
    real, calls = public_models._descend, iter(range(1000))

    def descend(*args: object) -> None:
        if next(calls) == (7 if kind == "ae" else 30):
            raise KeyboardInterrupt
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(public_models, "_descend", descend)
    with pytest.raises(KeyboardInterrupt):
        public_models.learned(kind, images, INFO.shape, how)
    resumed = public_models.learned(kind, images, INFO.shape, how).state_dict()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    # Interrupted in the eighth step, it goes on after the fourth; a step of a GAN is four of an optimiser.
    assert next(calls) == (8 + 5 if kind == "ae" else 31 + 20)

    (kept,) = (Path(public_models.public.cache("public-models"))).iterdir()
    kept.write_bytes(kept.read_bytes()[:-20])
    made = public_models.learned(kind, images, INFO.shape, how).state_dict()
    assert all(torch.equal(whole[k], made[k]) for k in whole)


class _Whole:
    """Sixty records of ten classes, each image a constant."""

    def has_test(self) -> bool:
        return True

    def scan(self, info: vs.PublicInfo, split: str, faults: object, keep: bool, unit: object) -> Opened:
        x = np.arange(60, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
        return Opened(InMemory(x), (np.arange(60) % 10).astype(np.uint8))


def test_the_partition_is_disjoint_and_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "LABELLING", 20)
    whole = dataclasses.replace(INFO, classes=tuple("0123456789"), shape=(1, 2, 2))
    found = {}
    for name, digits in partition.DIGITS.items():
        part = partition.PartSource(name, _Whole(), whole)  # type: ignore[arg-type]
        info = dataclasses.replace(whole, classes=digits)
        opened = part.scan(info, "train", None)  # type: ignore[arg-type]
        x = np.empty((opened.records.count, 1, 2, 2), np.uint8)
        opened.records.read(np.arange(len(x)), x)
        found[name] = x[:, 0, 0, 0]
        assert [digits[k] for k in opened.labels] == [str(v % 10) for v in found[name]]
        test = part.scan(info, "test", None)  # type: ignore[arg-type]
        assert test.records.count == 6 * len(digits)
    assert sorted(np.concatenate(list(found.values()))) == list(range(60)) and len(found["mnist-labelling"]) == 20


def test_glyph_letters_hold_letters_and_another_hash() -> None:
    every, letters = open_public("glyphs"), open_public("glyph-letters")
    assert every.declaration.sha256 != letters.declaration.sha256 and letters.declaration.name == "glyph-letters"
    assert all(name.isalpha() for name in letters.images((1, 4, 4))[1])


# ---------------------------------------------------------------------- what is private


@pytest.mark.parametrize("private", [pytest.param("gan", marks=pytest.mark.long), "vae", "moments"])
def test_private_labels_are_not_used_where_a_classifier_labels(private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_models, "LABELLED", 1)
    info = dataclasses.replace(INFO, classes=tuple("01234"))
    x, y = records()
    states = []
    for labels in (y, y[::-1].copy(), y * 0):
        model = vs.make("dpmi", **TINY | {"private_model": private, "labelling": "digits"})
        with watched() as tape:
            model.fit(from_arrays(info, x, labels), vs.Privacy(math.inf), seed=0)
        assert tape.calls
        states.append(model.fitted()[0])
    assert all(torch.equal(states[0][k], other[k]) for other in states[1:] for k in states[0])
    drawn = model.sample(20, seed=0)
    assert drawn.x.shape == (20, *INFO.shape) and len(model.receipt_.facts["public"]) == 2


def test_the_six_names_of_the_paper_are_recipes() -> None:
    for name in ("wgan-gan", "wgan-vae", "ae-enc-gan", "ae-enc-vae", "ae-grad-gan", "ae-grad-vae"):
        c = vs.make("dpmi", recipe=name, public="dead-leaves").config
        assert c.public_model.startswith(name.split("-")[0]) and c.private_model == name.split("-")[-1]
        assert c.latents == ("encoder" if "enc" in name else "gradient")


def test_images_of_a_class_are_those_that_are_called_so_then_the_likeliest() -> None:
    logits = torch.tensor([[5.0, 0, 0], [0, 5, 0], [4, 0, 3], [0, 4, 1], [3, 0, 2]])
    assert chosen(logits, torch.tensor([0, 1, 2, 2])).tolist() == [0, 1, 2, 4]


def test_a_sum_of_features_is_the_sum_of_what_they_give() -> None:
    x, y = records()
    data = from_arrays(INFO, x, y)
    plan = vs.Plan((vs.Release(name="a", bound=1.0), vs.Release(name="b", bound=1.0)))
    gate = vs.Gate(data, plan.price(vs.Privacy(math.inf), INFO), seed=0)

    def half(v: torch.Tensor) -> torch.Tensor:
        return v.flatten()[:3] / 9

    a = gate.sum("a", lambda v, k: v * k, by_class=True, features=half)
    b = gate.sum("b", lambda v, k: half(v) * k, by_class=True)
    assert a.shape == (5, 3) and torch.allclose(a, b, atol=1e-4)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("params", "word"),
    [
        ({"public": None}, "public: dpmi starts from"),
        ({"public_model": "wgan", "latents": "encoder"}, "has no encoder"),
        ({"code_dim": 7}, "must be at most latent_dim"),
        ({"labelling": "dead-leaves", "public": "dead-leaves"}, "has no image of class '0'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(params: dict[str, object], word: str) -> None:
    model = vs.make("dpmi", **TINY | params)
    with pytest.raises(ConfigError, match=word) as e:
        model.fit(from_arrays(dataclasses.replace(INFO, classes=tuple("01234")), *records()), vs.Privacy(5.0), seed=0)
    assert "\n" not in str(e.value)


def test_public_sets_that_are_missing_or_of_another_ratio_are_refused() -> None:
    with pytest.raises(DataError, match="no such file"):
        vs.make("dpmi", **TINY | {"public": "nowhere"}).plan(INFO, vs.Privacy(5.0))
    wide = dataclasses.replace(INFO, shape=(1, 8, 16))
    with pytest.raises(DataError, match="another ratio"):
        vs.make("dpmi", **TINY | {"public": "digits"}).code(wide)
    colour = dataclasses.replace(INFO, shape=(3, 10, 10))
    assert vs.make("dpmi", **TINY | {"public": "digits"}).code(colour)(torch.rand(3, 10, 10)).shape == (1, 1, 4)


def test_few_public_images_are_refused() -> None:
    public = open_public("dead-leaves")
    few = dataclasses.replace(public, images=lambda shape: tuple(v[:15] for v in public.images(shape)))
    with pytest.raises(ConfigError, match="must be at least 16"):
        public_models.learned("ae", few, INFO.shape, {"latent": 4, "hidden": 5, "steps": 2, "batch": 8})
