"""choosing: counts of bounded influence, their price, and the step that they name."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
import torch

import veilset as vs
from veilset.methods import choosing

INFO = vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 28, 28), units=60_000)


class Gate:
    """Answers with what it is told, and keeps the map."""

    def __init__(self, answer: list[float] | None = None):
        self.answer = answer

    def sum(self, name, f):
        assert name == "choice"
        self.f = f
        return torch.tensor(self.answer or [0.0] * len(choosing.STEPS), dtype=torch.float64)


def _bars(y: torch.Tensor) -> torch.Tensor:
    """Upright bars of class 0 and level ones of class 1, all in one place."""
    x = torch.zeros(len(y), 1, 28, 28)
    x[y == 0, :, 6:22, 12:16] = 1
    x[y == 1, :, 12:16, 6:22] = 1
    return (x + 0.1 * torch.rand_like(x)).clamp(0, 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(choosing, "IMAGES", 400)


def test_an_image_adds_zeros_and_ones_within_the_bound() -> None:
    gate = Gate()
    choosing.choose(gate, INFO, _bars)
    for x in (torch.rand(1, 28, 28), torch.zeros(1, 28, 28), torch.full((1, 28, 28), float("nan"))):
        for y in (0, 1):
            added = gate.f(x, torch.tensor(y))
            assert added.shape == (len(choosing.STEPS),) and set(added.tolist()) <= {0.0, 1.0}
            assert float(added.norm()) <= choosing.release().bound
    assert choosing.release().bound == math.sqrt(len(choosing.STEPS))


def test_networks_learn_and_are_the_same_alone_and_together() -> None:
    gate = Gate()
    choosing.choose(gate, INFO, _bars)
    y = torch.arange(200) % 2
    x = _bars(y)
    right = torch.func.vmap(gate.f)(x, y)
    assert float(right.mean()) > 0.9
    assert torch.equal(right[:5], torch.stack([gate.f(*pair) for pair in zip(x[:5], y[:5], strict=True)]))


@pytest.mark.parametrize("best", range(len(choosing.STEPS)))
def test_the_step_with_the_largest_count_is_taken(best: int, monkeypatch) -> None:
    monkeypatch.setattr(choosing, "EPOCHS", 1)
    counts = [float(i == best) for i in range(len(choosing.STEPS))]
    assert choosing.choose(Gate(counts), INFO, _bars) == choosing.STEPS[best]


def test_the_first_step_moves_nothing_and_the_others_do() -> None:
    x = _bars(torch.tensor([0, 1]))
    assert torch.equal(choosing.moved(x, choosing.STEPS[0]), x)
    far = [float((choosing.moved(x, s) - x).abs().mean()) for s in choosing.STEPS[1:]]
    assert min(far) > 0.01
    assert float(choosing.moved(x, 2.0).min()) >= 0 and float(choosing.moved(x, 2.0).max()) <= 1


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_the_noise_of_a_count_is_small_beside_the_units(epsilon: float) -> None:
    """By the plan's own price: the part is no more than it needs."""
    privacy = vs.Privacy(epsilon)
    plan = vs.make("taught-moments", choose=True).plan(INFO, privacy)
    row = plan["choice"]
    assert row.noise_multiplier * row.bound / INFO.units == pytest.approx(choosing.COARSE, rel=0.15)
    rows = {r["name"]: r["epsilon_share"] for r in plan.to_json()["releases"]}
    assert rows["choice"] < 0.005 and not plan.warnings
    without = vs.make("taught-moments").plan(INFO, privacy)
    assert plan["linear"].noise_multiplier == pytest.approx(without["linear"].noise_multiplier, rel=0.01)


def test_too_few_units_leave_it_out_and_the_plan_says_so() -> None:
    privacy = vs.Privacy(1.0)
    least = choosing.least(privacy)
    few, enough = (replace(INFO, units=math.ceil(least) + more) for more in (-2, 1))
    assert choosing.share(enough, privacy) == pytest.approx(choosing.MOST, rel=0.01)
    plan = vs.make("taught-moments", choose=True).plan(few, privacy)
    assert "choice" not in {r.name for r in plan.releases}
    (said,) = plan.warnings
    assert re.search(rf"'choice' is left out, .* about \d+00 units, and {few.units} are declared", said)
    assert "choice" in {r.name for r in vs.make("taught-moments", choose=True).plan(enough, privacy).releases}


def test_a_fit_keeps_the_step_and_moves_what_it_releases(monkeypatch) -> None:
    monkeypatch.setattr(choosing, "EPOCHS", 1)
    monkeypatch.setattr(choosing, "STEPS", (1.0,))
    data = vs.load("digits").train
    model = vs.make("taught-moments", choose=True).fit(data, vs.Privacy(float("inf")), seed=0)
    assert float(model._state["choice.step"]) == 1.0
    images = model.sample(200, seed=0)
    plain = {k: v for k, v in model._state.items() if k != "choice.step"}
    monkeypatch.setattr(model, "_state", plain)
    still = model.sample(200, seed=0)
    assert torch.equal(images.y, still.y)
    apart = (images.x.float() - still.x.float()).abs().flatten(1).mean(1)
    assert float((apart > 2).float().mean()) > 0.9, "each image is moved, after it was labelled"
