"""choosing: counts of bounded influence, their price, and the form that they name."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

import veilset as vs
from veilset.methods.moments import selection, taught_moments

INFO = vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 28, 28), units=60_000)


class Gate:
    """Answers with what it is told, and keeps the map."""

    def __init__(self, answer: list[float] | None = None):
        self.answer = answer

    def sum(self, name, f):
        assert name == "choice"
        self.f = f
        return torch.tensor(self.answer or [0.0] * 4, dtype=torch.float64)


def _bars(y: torch.Tensor) -> torch.Tensor:
    """Upright bars of class 0 and level ones of class 1, all in one place."""
    x = torch.zeros(len(y), 1, 28, 28)
    x[y == 0, :, 6:22, 12:16] = 1
    x[y == 1, :, 12:16, 6:22] = 1
    return (x + 0.1 * torch.rand_like(x)).clamp(0, 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(selection, "IMAGES", 400)


def _faint(y: torch.Tensor) -> torch.Tensor:
    return _bars(y) / 2


KINDS = (_bars, _faint)


def test_an_image_adds_zeros_and_ones_within_the_bound(monkeypatch) -> None:
    monkeypatch.setattr(selection, "EPOCHS", 1)  # whatever the networks have learned
    gate = Gate()
    selection.choose(gate, INFO, KINDS, "cpu")
    for x in (torch.rand(1, 28, 28), torch.zeros(1, 28, 28), torch.full((1, 28, 28), float("nan"))):
        for y in (0, 1):
            added = gate.f(x, torch.tensor(y))
            assert added.shape == (4,) and set(added.tolist()) <= {0.0, 1.0}
            assert float(added.norm()) <= selection.release(len(KINDS)).bound
    assert selection.release(2).bound == 2.0 and selection.release(1).bound == math.sqrt(2)


def test_networks_learn_and_are_the_same_alone_and_together() -> None:
    gate = Gate()
    selection.choose(gate, INFO, KINDS, "cpu")
    y = torch.arange(200) % 2
    x = _bars(y)
    right = torch.func.vmap(gate.f)(x, y)
    assert float(right.mean()) > 0.9
    assert torch.equal(right[:5], torch.stack([gate.f(*pair) for pair in zip(x[:5], y[:5], strict=True)]))


@pytest.mark.parametrize(
    ("percent", "taken"),
    [
        ((90, 80, 70, 60), (0, False)),
        ((80, 90, 70, 60), (0, True)),
        ((88, 87, 88.9, 80), (0, False)),  # the first kind is preferred
        ((88, 87, 89.1, 80), (1, False)),  # but not by more than the margin
        ((80, 70, 80, 90), (1, True)),
        ((90, 90, 90, 90), (0, False)),
    ],
)
def test_the_form_with_the_largest_count_is_taken(percent, taken, monkeypatch) -> None:
    monkeypatch.setattr(selection, "EPOCHS", 1)
    counts = [INFO.units * p / 100 for p in percent]
    assert selection.choose(Gate(counts), INFO, KINDS, "cpu") == taken


def test_images_are_moved_each_on_its_own() -> None:
    x = _bars(torch.zeros(20, dtype=torch.int64))
    far = selection.moved(x) - x
    assert float(far.abs().flatten(1).mean(1).min()) > 0.005
    assert float((far[0] - far[1]).abs().mean()) > 0.005
    assert float(selection.moved(x).min()) >= 0 and float(selection.moved(x).max()) <= 1


@pytest.mark.parametrize(
    ("epsilon", "noise", "part"), [(1.0, 0.00125, 0.012), pytest.param(10.0, 0.001, 0.005, marks=pytest.mark.long)]
)
def test_the_noise_of_a_count_is_small_beside_the_units(epsilon: float, noise: float, part: float) -> None:
    """By the plan's own price: the part is no more than it needs, and about a hundredth at most."""
    privacy = vs.Privacy(epsilon)
    plan = vs.make("taught-moments").plan(INFO, privacy)
    row = plan["choice"]
    assert row.noise_multiplier * row.bound / INFO.units == pytest.approx(noise, rel=0.15)
    rows = {r["name"]: r["epsilon_share"] for r in plan.to_json()["releases"]}
    assert rows["choice"] < part and not plan.warnings
    without = vs.make("taught-moments", selection=False).plan(INFO, privacy)
    assert plan["linear"].noise_multiplier == pytest.approx(without["linear"].noise_multiplier, rel=0.01)


def test_fewer_units_get_coarser_counts_for_a_hundredth_of_the_budget_and_then_more_of_it() -> None:
    privacy = vs.Privacy(1.0)
    units = 1_000_000, 60_000, 16_000, 8_000
    many, some, few, least = (selection.share(replace(INFO, units=n), privacy, 2) for n in units)
    assert many < some == few == selection.CHEAP < least
    noise = [1 / (n * math.sqrt(part)) for n, part in ((units[0], many), (units[3], least))]  # but for one factor
    assert noise[1] / noise[0] == pytest.approx(selection.COARSE / selection.FINE)


def test_too_few_units_leave_it_out_and_the_plan_says_so() -> None:
    privacy = vs.Privacy(1.0)
    least = selection.least(privacy, 1)
    few, enough = (replace(INFO, units=math.ceil(least) + more) for more in (-2, 1))
    assert selection.share(enough, privacy, 1) == pytest.approx(selection.MOST, rel=0.01)
    plan = vs.make("taught-moments", texture=False).plan(few, privacy)
    assert "choice" not in {r.name for r in plan.releases}
    (said,) = plan.warnings
    assert re.search(rf"'choice' is left out, .* about \d+00 units, and {few.units} are declared", said)
    plan = vs.make("taught-moments", texture=False).plan(enough, privacy)
    assert plan["choice"].bound == math.sqrt(2)


def _fitted(monkeypatch, counts: tuple[float, ...]) -> vs.methods.Synthesizer:
    """A model of the digits whose choice is answered by these counts in place of its own."""
    monkeypatch.setattr(selection, "EPOCHS", 1)
    monkeypatch.setattr(taught_moments, "TRIED", 50)
    asked = vs.Gate.sum

    def told(gate, name, f, **how):
        answer = asked(gate, name, f, **how)
        return torch.tensor(counts, dtype=torch.float64) if name == "choice" else answer

    monkeypatch.setattr(vs.Gate, "sum", told)
    return vs.make("taught-moments", steps=20).fit(vs.load("digits").train, vs.Privacy(float("inf")), seed=0)


@pytest.mark.long
def test_a_fit_moves_what_it_releases_if_that_is_chosen(monkeypatch) -> None:
    model = _fitted(monkeypatch, (0, 1000, 0, 0))
    assert bool(model._state["choice.moved"]) and "detail.curves" in model._state
    assert model.notes() == ("draws with fine detail, each augmented",)
    images = model.sample(200, seed=0)
    plain = {k: v for k, v in model._state.items() if k != "choice.moved"}
    monkeypatch.setattr(model, "_state", plain)
    still = model.sample(200, seed=0)
    assert torch.equal(images.y, still.y)
    apart = (images.x.float() - still.x.float()).abs().flatten(1).mean(1)
    assert float((apart > 2).float().mean()) > 0.9, "each image is moved, after it was labelled"


@pytest.mark.long
def test_a_fit_releases_draws_as_they_are_if_that_is_chosen(monkeypatch) -> None:
    model = _fitted(monkeypatch, (0, 0, 1000, 0))
    assert not bool(model._state["choice.moved"]) and "detail.curves" not in model._state
    assert model.notes() == ("draws without fine detail, not augmented",)


@pytest.mark.long
def test_the_networks_that_choose_learn_from_drawn_images_alone(monkeypatch) -> None:
    real, seen = selection._taught, []
    monkeypatch.setattr(selection, "_taught", lambda net, x, y: seen.append(len(x)) or real(net, x, y))
    model = _fitted(monkeypatch, (1000, 0, 0, 0))
    classes, info = len(model.info_.classes), model.info_
    drawn = classes * math.ceil(selection._images(info) / classes)
    assert seen and set(seen) == {drawn}
