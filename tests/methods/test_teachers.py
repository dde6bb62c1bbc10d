"""The second registry, and its teacher on the built-in digits."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError, ModeError
from veilset.methods.base import Teacher
from veilset.methods.teachers import TEACHERS, dp_scatter, make_teacher, open_teacher, teacher_class, teachers
from veilset.networks import scattering


@pytest.mark.parametrize("name", TEACHERS)
def test_registry_tells_the_truth(name: str) -> None:
    cls = teacher_class(name)
    assert issubclass(cls, Teacher) and cls.name == name
    assert teachers()[name] == TEACHERS[name].summary and not TEACHERS[name].summary.endswith(".")


def test_teachers_and_methods_are_apart() -> None:
    assert not set(teachers()) & set(vs.methods())
    with pytest.raises(ConfigError, match=r"dp-moments is a synthesizer, which draws images .*use veilset\.make$"):
        make_teacher("dp-moments")
    with pytest.raises(ConfigError, match="'dp-scater' is unknown. Did you mean 'dp-scatter'.*Known: dp-scatter$"):
        make_teacher("dp-scater")
    with pytest.raises(ConfigError, match="make_teacher"):
        vs.make("dp-scatter")
    with pytest.raises(ConfigError, match="no recipe"):
        make_teacher("dp-scatter", recipe="paper")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A teacher of the digits, fitted once, and the folder it was saved in."""
    teacher = make_teacher("dp-scatter").fit(vs.load("digits").train, vs.Privacy(8.0))
    return teacher, teacher.save(tmp_path_factory.mktemp("teacher") / "t")


@pytest.mark.long
def test_it_learns_the_digits(taught) -> None:
    test = vs.load("digits").test
    labels, probabilities = taught[0].predict(test.x), taught[0].predict_proba(test.x)
    assert float((labels == test.y).float().mean()) > 0.85
    assert labels.dtype == torch.int64 and probabilities.dtype == torch.float32
    assert probabilities.shape == (len(test), 10) and torch.equal(labels, probabilities.argmax(1))
    assert torch.allclose(probabilities.sum(1), torch.ones(len(test)), atol=1e-5)


def test_a_saved_teacher_verifies_and_predicts_the_same(taught) -> None:
    teacher, folder = taught
    got = vs.verify(folder)
    assert got.ok and got.release, str(got)
    x = vs.load("digits").test.x[:50]
    again = open_teacher(folder)
    assert torch.equal(again.predict_proba(x), teacher.predict_proba(x)) and again.receipt_.epsilon <= 8.0 * (1 + 1e-9)
    with pytest.raises(ConfigError, match="teacher"):
        vs.open_model(folder)


def test_nothing_to_classify_is_no_error(taught) -> None:
    none = torch.zeros(0, 1, 8, 8, dtype=torch.uint8)
    labels, probabilities = taught[0].predict(none), taught[0].predict_proba(none)
    assert labels.shape == (0,) and probabilities.shape == (0, 10)


@pytest.mark.parametrize(
    ("units", "epsilon", "alone", "taught"),
    [
        (60_000, 1.0, 14, 8),
        *(pytest.param(*row, marks=pytest.mark.long) for row in ((60_000, 10.0, 44, 27), (50_000, 10.0, 37, 23))),
        (1_437, 1.0, 1, 1),
    ],
)
def test_the_rate_is_the_one_the_docs_name(units: int, epsilon: float, alone: int, taught: int) -> None:
    side = 28 if units > 5_000 else 8
    info = vs.PublicInfo(name="set", classes=tuple("0123456789"), shape=(1, side, side), units=units)
    plans = [
        make_teacher("dp-scatter").plan(info, vs.Privacy(epsilon)),
        vs.make("taught-moments").plan(info, vs.Privacy(epsilon)),
    ]
    assert [round(dp_scatter.rate_of(plan["linear"], info, 0.9)) for plan in plans] == [alone, taught]


def test_at_this_rate_noise_alone_moves_a_logit_by_eight_at_most() -> None:
    info, momentum = vs.load("digits").info, 0.9
    release = make_teacher("dp-scatter").plan(info, vs.Privacy(1.0))["linear"]
    weight = torch.nn.Parameter(torch.zeros(500, scattering.size(info.shape)))
    sgd = torch.optim.SGD([weight], dp_scatter.rate_of(release, info, momentum), momentum=momentum)
    noise = release.noise_multiplier * release.bound / (release.sample_rate * info.units)
    generator = torch.Generator().manual_seed(0)
    for _ in range(release.steps):
        weight.grad = noise * torch.randn(weight.shape, generator=generator)
        sgd.step()
    x = torch.rand(50, *info.shape, generator=generator)
    z = scattering.features(x)
    largest = torch.nn.functional.normalize(z) * math.sqrt(z.shape[1])
    deviation, real = (float((z @ weight.detach().T).square().mean().sqrt()) for z in (largest, z))
    assert real < deviation
    assert 0.9 < deviation / dp_scatter.NOISE < 1.02  # a little less, for the last steps still move on


def test_without_noise_the_rate_is_the_fastest_and_a_given_one_is_taken() -> None:
    data = vs.load("digits")
    plan = make_teacher("dp-scatter", steps=1).plan(data.info, vs.Privacy(math.inf))
    assert dp_scatter.rate_of(plan["linear"], data.info, 0.9) == dp_scatter.FASTEST
    one, two = (
        make_teacher("dp-scatter", steps=1, **rate).fit(data.train, vs.Privacy(math.inf), seed=0)._state["weight"]
        for rate in ({}, {"lr": 2 * dp_scatter.FASTEST})
    )
    assert torch.allclose(two, 2 * one)


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 28, 28, dtype=torch.uint8), np.zeros((2, 1, 8, 8), np.uint8), None]
)
@pytest.mark.parametrize("ask", ["predict", "predict_proba"])
def test_what_is_no_such_image_is_refused(taught, ask, x) -> None:
    with pytest.raises(ConfigError, match="must be uint8 images"):
        getattr(taught[0], ask)(x)


def test_an_unfitted_teacher_predicts_nothing() -> None:
    with pytest.raises(ModeError, match="not fitted"):
        make_teacher("dp-scatter").predict(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))


def test_what_is_planned_is_what_the_ledger_says(taught) -> None:
    teacher, _ = taught
    info = teacher.info_
    release = dp_scatter.release(teacher.config, info, 8.0)
    lines = [json.loads(line)["body"] for line in teacher.ledger.splitlines()]
    charges = [b for b in lines if b["kind"] == "charge"]
    assert {b["release"] for b in charges} == {"linear"} and sum(b["steps"] for b in charges) == release.steps
    assert {b["sample_rate"] for b in charges} == {release.sample_rate} and release.bound == 0.1


def test_the_gradient_at_the_gate_is_that_of_the_cross_entropy() -> None:
    """Without noise and clipping, one step of the gate is one step of full-batch softmax regression."""
    data = vs.load("digits")
    teacher = make_teacher("dp-scatter", batch_size=10**6, steps=1, clip_norm=1e6, lr=1.0).fit(
        data.train, vs.Privacy(math.inf), seed=0
    )
    x = _raw(data)
    z = scattering.features(x.x.float() / 255).half().float()
    error = torch.full((len(z), 10), 0.1)
    error[torch.arange(len(z)), x.y] -= 1
    wanted = -(error.T @ z) / data.info.units
    assert torch.allclose(teacher._state["weight"], wanted, atol=1e-4)


def _raw(data) -> vs.Images:
    plan = vs.Plan((vs.Release(name="none"),)).price(vs.Privacy(math.inf), data.info)
    return vs.Gate(data.train, plan, seed=0).inspect("compare with a direct computation")
