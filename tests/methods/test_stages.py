"""Compose: one budget divided among stages. Staged and Single: what a method of stages plans, keeps and draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError
from veilset.methods.catalogue import BUILT_IN, TEACHERS, method_class
from veilset.methods.moments.taught_moments import TaughtMoments
from veilset.methods.stages import Compose, Part, Single, Stage, Staged, learned_by, named
from veilset.methods.teachers import teacher_class
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.private import from_arrays
from veilset.privacy.public_data import PublicData

INFO = vs.PublicInfo(name="x", classes=("a", "b"), shape=(1, 4, 4), value_range=(0.0, 1.0), units=40)
LARGER = replace(INFO, shape=(1, 8, 8))
BUDGET = vs.Privacy(2.0, 1e-4)
MU = 1 / gaussian_noise_multiplier(BUDGET.epsilon, BUDGET.delta)


class Sums(Stage):
    """Sums of ones, each asked as often as it says; keeps what it was given."""

    def __init__(self, **steps: int):
        self.steps, self.budgets = steps, []

    def plan(self, info, budget):
        self.budgets.append(budget)
        return vs.Plan(tuple(vs.Release(name=k, steps=n) for k, n in self.steps.items()), 2.0, 5.0, warnings=("told",))

    def fit(self, gate, info, budget, earlier):
        answers = [gate.sum(k, lambda x, y: torch.ones(1)) for k, n in self.steps.items() for _ in range(n)]
        return {"answers": torch.cat([torch.zeros(0), *answers]), "before": torch.tensor(len(earlier))}

    def draw(self, state, info, labels):
        return labels.float().view(-1, 1, 1, 1).expand(-1, *info.shape) / 2


def spent(plan: vs.Plan) -> dict[str, float]:
    """The part of the squared mu of the whole that each release costs, all being sums over every unit."""
    priced = plan.price(BUDGET, INFO)
    return {r.name: r.steps / r.noise_multiplier**2 / MU**2 for r in priced.releases}


def test_parts_cost_their_shares_however_they_are_given() -> None:
    whole = Compose({
        "first": Part(Sums(a=1, b=3), {"a": 0.1, "b": 0.2}),
        "rest": Part(Sums(c=2)),
        "free": Part(Sums(), {}),
        "last": Part(Sums(d=1, e=4), 0.3),
    })  # fmt: skip
    assert whole.shares == pytest.approx({"first": 0.3, "rest": 0.4, "free": 0, "last": 0.3})
    plan = whole.plan(INFO, BUDGET)
    got = spent(plan)
    wanted = {"first-a": 0.1, "first-b": 0.2, "rest-c": 0.4, "last-d": 0.06, "last-e": 0.24}
    assert got == pytest.approx(wanted, rel=1e-6)
    assert plan["rest-c"].weight == 1 and plan.seconds == 8 and plan.memory_mb == 5 and plan.warnings == ("told",) * 4


@pytest.mark.parametrize("shares", [(0.5, 0.5), (None, None), (1.0, None), (0.0, None), ({"a": 0.6, "b": 0.4}, None)])
def test_shares_that_are_no_parts_of_one_budget_are_refused(shares) -> None:
    with pytest.raises(ConfigError, match="each stage but one needs a share above 0, together below 1"):
        Compose({str(i): Part(Sums(a=1, b=1), s) for i, s in enumerate(shares)})


def test_what_is_held_beside_the_stages_and_what_they_do_not_know_enters_the_plan() -> None:
    plan = Compose({"one": Part(Sums(a=1))}, memory_mb=7, warnings=["left out"]).plan(INFO, BUDGET)
    assert plan.memory_mb == 12 and plan.warnings == ("told", "left out")


def test_public_data_of_the_parts_are_public_data_of_the_whole_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    letters, drawings = (
        PublicData(name=name, sha256=64 * "a", images=10, licence="CC0", declared_by="the owner")
        for name in ("letters", "drawings")
    )
    parts = {"one": Part(Sums(a=1), 0.5), "two": Part(Sums(a=1), 0.2), "three": Part(Sums(a=1))}
    for part, public in zip(parts.values(), ((letters,), (letters, drawings), ()), strict=True):
        plan = replace(part.stage.plan(INFO, BUDGET), public=public)
        monkeypatch.setattr(part.stage, "plan", lambda *_, plan=plan: plan)
    assert Compose(parts).plan(INFO, BUDGET).public == (letters, drawings)


def test_the_only_stage_has_the_budget_itself_and_others_have_less() -> None:
    alone, first, second = Sums(a=1), Sums(a=1), Sums(a=1)
    Compose({"only": Part(alone)}).plan(INFO, BUDGET)
    Compose({"first": Part(first, 0.25), "second": Part(second)}).plan(INFO, BUDGET)
    assert alone.budgets == [BUDGET]
    assert 0 < first.budgets[0].epsilon < second.budgets[0].epsilon < BUDGET.epsilon


class Two(Staged, vs.Synthesizer):
    """Two stages that ask alike."""

    name = "two"

    def _stages(self, info, privacy):
        return Compose({"one": Part(Sums(a=2), 0.5), "other": Part(Sums(a=1))})

    def _sample(self, state, info, labels):
        return Sums().draw(learned_by("one", state), info, labels)


class Only(Single):
    """One stage."""

    name = "only"

    def _stage(self):
        return Sums(a=2)


def private() -> vs.PrivateImages:
    return from_arrays(INFO, np.zeros((40, *INFO.shape), np.float32), np.arange(40) % 2)


def test_a_method_of_stages_keeps_all_by_stage_and_name() -> None:
    model = Two().fit(private(), vs.Privacy(math.inf), seed=0)
    state = model.fitted()[0]
    assert {k: v.round().tolist() for k, v in state.items()} == {  # what is added is clipped a hair below its bound
        "one.answers": [40, 40], "one.before": 0, "other.answers": [40], "other.before": 1
    }  # fmt: skip
    assert torch.equal(learned_by("other", state)["answers"], state["other.answers"])
    assert named({k: learned_by(k, state) for k in ("one", "other")}).keys() == state.keys()


def test_a_method_of_one_stage_has_its_names_and_draws_what_it_draws() -> None:
    model = Only().fit(private(), vs.Privacy(math.inf), seed=0)
    assert [r.name for r in model.plan(INFO, BUDGET).releases] == ["a"]
    assert model.fitted()[0].keys() == {"answers", "before"}
    images = model.sample(4, seed=0)
    assert images.x.flatten(1)[:, 0].tolist() == [128 * y for y in images.y.tolist()]


def test_a_stage_that_draws_nothing_says_so() -> None:
    class Silent(Stage):
        plan = Sums.plan
        fit = Sums.fit

    with pytest.raises(NotImplementedError, match="Silent draws no images"):
        Silent().draw({}, INFO, torch.zeros(1))


@pytest.mark.parametrize("name", [*BUILT_IN, *TEACHERS])
def test_every_method_is_made_of_stages_and_divides_no_budget_itself(name: str) -> None:
    cls = method_class(name) if name in BUILT_IN else teacher_class(name)
    assert issubclass(cls, Staged) and cls._fit is Staged._fit
    parts = cls()._stages(LARGER, BUDGET).parts
    assert parts and all(isinstance(part.stage, Stage) for part in parts.values())


def test_what_can_be_asked_for_is_looked_at_once_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    real, looked = TaughtMoments._parts, []

    def counted(self, info, privacy):
        looked.append(1)
        return real(self, info, privacy)

    monkeypatch.setattr(TaughtMoments, "_parts", counted)
    vs.make("taught-moments").unpriced(LARGER, BUDGET)
    assert len(looked) == 1
