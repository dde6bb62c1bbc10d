"""The kit over every built-in method, and over methods that break a rule each: the kit must catch those."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

import pytest
import torch

import veilset as vs
from veilset import testing as kit
from veilset.audit.selftest.methods import ALL, OTHERWISE, SMALL, worth_all
from veilset.core.errors import ConfigError, VeilsetError
from veilset.methods.catalogue import BUILT_IN, method_class


def maker(name: str):
    cls = method_class(name)
    known = {f.name for f in dataclasses.fields(cls.Config)}
    params = {k: v for k, v in SMALL.get(name, {}).items() if k in known}
    return lambda: cls(**params)


# Of the ways that the small parameters leave out; the first takes seconds each, and is asked of all methods below.
OF_OTHER_WAYS = [
    pytest.param(p, id=p.__name__, marks=marks)
    for p, marks in (
        (kit.contributions_are_bounded_and_nothing_else_is_learned, pytest.mark.long),
        (kit.plan_and_ledger_agree, ()),
    )
]


ALL_NEIGHBOURS = kit.neighbours
SHOWN = ("a white record of a rare class", "NaN", "a unit of five white images, two above the cap")


def some_neighbours():
    """A record that moves most, one that spoils what it touches, and a unit with too many images."""
    for d, others in ALL_NEIGHBOURS():
        if shown := {what: e for what, e in others.items() if what in SHOWN}:
            yield d, shown


@pytest.mark.parametrize("holds", kit.PROPERTIES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in(name, holds):
    try:
        make = maker(name)
    except ModuleNotFoundError as e:
        pytest.fail(f"{name} is in the catalogue but not there: {e}")
    with mock.patch.object(kit, "neighbours", some_neighbours):
        holds(make)


@pytest.mark.long
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_among_all_neighbours(name):
    kit.contributions_are_bounded_and_nothing_else_is_learned(maker(name))


def test_the_neighbours_that_are_shown_are_some_of_the_kits():
    assert [what for _, others in some_neighbours() for what in others] == list(SHOWN)


@pytest.mark.parametrize("holds", OF_OTHER_WAYS)
@pytest.mark.parametrize(
    ("name", "other"),
    [
        pytest.param(name, other, id="-".join([name, *map(str, [i] if i else [])]))
        for name, others in OTHERWISE.items()
        for i, other in enumerate(others)
    ],
)
def test_built_in_otherwise(name, other, holds):
    """Ways that the small parameters leave out; they ask, and compute, something else."""
    holds(lambda: method_class(name)(**SMALL[name] | other))


# ---------------------------------------------------------------------- a method that keeps all rules


@dataclass(frozen=True)
class Config:
    blur: float = vs.option(0.0, "how much of the mean of all classes is mixed into each", ge=0, le=1)
    loops: int = vs.option(2, "gradient steps that sharpen the means", ge=1, le=100)
    mode: str = vs.option("plain", "how images are drawn from a class mean", choices=("plain", "dither"))


class Good(vs.Synthesizer):
    """Class means by one sum, a public pull by subsampled gradients, a histogram by parts: every kind of question."""

    name = "good"
    Config = Config

    def _plan(self, info, privacy):
        return vs.Plan((
            vs.Release(name="mean", bound=4.0),
            vs.Release(name="step", verb="grad", sample_rate=0.5, steps=self.config.loops, weight=2.0),
            vs.Release(name="size", partition="class", weight=4.0),
        ))  # fmt: skip

    def _fit(self, gate, info, plan):
        mean = gate.sum("mean", lambda x, y: x, by_class=True) / (info.units / len(info.classes))
        w = {"w": mean.float() + 0.01 * torch.randn(mean.shape)}
        classes = torch.arange(len(info.classes))
        for _ in range(self.config.loops):
            g = gate.grad(
                "step", lambda p, x, y: ((classes == y).float() @ p["w"].flatten(1) - x.flatten()).square().sum(), w
            )
            w = {"w": w["w"] - 0.1 * g["w"]}
        size = torch.stack([gate.sum("size", lambda x, y: torch.ones(1), part=k) for k in range(len(info.classes))])
        return {"mean": w["w"], "size": size.float()}

    def _sample(self, state, info, labels):
        return state["mean"][labels] + 0.1 * torch.randn(len(labels), *info.shape)


@pytest.mark.parametrize("holds", kit.PROPERTIES, ids=lambda p: p.__name__)
def test_known_good(holds):
    holds(Good)


def test_the_kit_takes_a_class_and_parameters():
    vs.testing.check_synthesizer(Good, loops=1)


@pytest.mark.parametrize(
    ("method", "params", "word"),
    [
        ("dp-mrf", {}, "Did you mean 'dp-merf'"),
        (Good, {"lops": 1}, "good has no parameter 'lops'. Did you mean 'loops'"),
        (Good, {"loops": 0}, "loops = 0: must be >= 1"),
        (3, {}, "method = 3: must be a name in veilset.methods()"),
        (vs.Teacher, {}, "must be a name in veilset.methods()"),
    ],
)
def test_what_is_no_method_is_refused(method, params, word):
    with pytest.raises(ConfigError) as e:
        kit.check_synthesizer(method, **params)
    assert word in str(e.value) and "\n" not in str(e.value)


def test_it_says_which_property_does_not_hold():
    two = mock.patch.object(kit, "PROPERTIES", (kit.plan_and_ledger_agree, kit.nothing_private_is_kept))
    with two, pytest.raises(AssertionError, match="^KeepsTheGate: nothing private is kept: the model keeps a Gate at"):
        kit.check_synthesizer(KeepsTheGate)


def test_it_does_not_pass_because_python_drops_its_checks():
    code = "from veilset.testing import check_synthesizer; check_synthesizer('dp-moments')"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    assert done.returncode and "ModeError: check_synthesizer: Python runs with -O" in done.stderr


# ---------------------------------------------------------------------- methods that break one rule each


class LooksPastTheGate(Good):
    """Reads records outside the gate's verbs."""

    def _fit(self, gate, info, plan):
        state = super()._fit(gate, info, plan)
        return state | {"mean": state["mean"] + float(gate._reader._records.count) * 1e-3}


class DividesByTheRealCount(Good):
    """A realised class size as the denominator."""

    def _fit(self, gate, info, plan):
        state = super()._fit(gate, info, plan)
        return state | {"mean": state["mean"] / max(1, (gate._reader._labels == 0).sum())}


class KeepsRecords(Good):
    """The raw data stays on the object."""

    def _fit(self, gate, info, plan):
        self.kept = gate._reader._labels.copy()
        return super()._fit(gate, info, plan)


class KeepsTheGate(Good):
    """The gate stays on the object, in a closure."""

    def _fit(self, gate, info, plan):
        self.later = lambda: gate
        return super()._fit(gate, info, plan)


class StopsByTheData(Good):
    """The number of questions depends on records."""

    def _fit(self, gate, info, plan):
        state = super()._fit(gate, info, plan)
        if gate._reader.units.count > 60:
            gate._taken.clear()
            gate.sum("mean", lambda x, y: x, by_class=True)
        return state


class BranchesInsideTheMap(Good):
    """Python control flow on a record's value."""

    def _fit(self, gate, info, plan):
        gate.sum("mean", lambda x, y: x if x.sum() > 3 else -x)
        return {}


class AsksWhatWasNotPlanned(Good):
    """One question more than the plan."""

    def _fit(self, gate, info, plan):
        gate.sum("variance", lambda x, y: x.square())
        return super()._fit(gate, info, plan)


class AsksTwice(Good):
    """The same question again."""

    def _fit(self, gate, info, plan):
        gate.sum("mean", lambda x, y: x, by_class=True)
        return super()._fit(gate, info, plan)


class AsksLess(Good):
    """Plans, and pays for, more than it asks; or the other way round by a loop that is one short."""

    def _fit(self, gate, info, plan):
        mean = gate.sum("mean", lambda x, y: x, by_class=True)
        return {"mean": mean.float()}


class ForgetsTheBound(Good):
    """Swaps the gate's plan for one with a larger bound."""

    def _fit(self, gate, info, plan):
        wide = tuple(dataclasses.replace(r, bound=100 * r.bound) for r in plan.releases)
        gate.plan = dataclasses.replace(plan, releases=wide)
        return super()._fit(gate, info, plan)


class Overspends(Good):
    """Swaps the gate's plan for one with half the noise."""

    def _fit(self, gate, info, plan):
        quiet = tuple(dataclasses.replace(r, noise_multiplier=r.noise_multiplier / 2) for r in plan.releases)
        gate.plan = dataclasses.replace(plan, releases=quiet)
        return super()._fit(gate, info, plan)


class UnplannedPlan(Good):
    """A plan that differs from call to call."""

    def _plan(self, info, privacy):
        return vs.Plan(
            (vs.Release(name="mean", bound=4.0 + random.random()), *super()._plan(info, privacy).releases[1:])
        )


class RollsItsOwnDice(Good):
    """Randomness that no seed repeats."""

    def _fit(self, gate, info, plan):
        state = super()._fit(gate, info, plan)
        return state | {"mean": state["mean"] + random.random()}


class IgnoresTheNoise(Good):
    """A model that does not depend on the run at all passes for private, but repeats in release mode."""

    def _fit(self, gate, info, plan):
        state = super()._fit(gate, info, plan)
        return {k: torch.zeros_like(v) for k, v in state.items()}


class LearnsOnTheObject(Good):
    """What it learned is on the object and not in the state, so a saved model is another one."""

    def _fit(self, gate, info, plan):
        self.offset = float(gate.sum("mean", lambda x, y: x, by_class=True).mean())
        g = gate.grad("step", lambda p, x, y: (p["w"] - x).square().sum(), {"w": torch.zeros(info.shape)})
        gate.grad("step", lambda p, x, y: (p["w"] - x).square().sum(), g)
        size = torch.stack([gate.sum("size", lambda x, y: torch.ones(1), part=k) for k in range(len(info.classes))])
        return {"mean": torch.rand(len(info.classes), *info.shape), "size": size.float()}

    def _sample(self, state, info, labels):
        return super()._sample(state, info, labels) + 0.3 + abs(getattr(self, "offset", 0.0)) % 0.2


class ForgetsItsState(Good):
    """Its loop is not given what its body changes, so an interruption loses it without a word."""

    def _fit(self, gate, info, plan):
        total, w = gate.sum("mean", lambda x, y: x, by_class=True), torch.zeros(info.shape)
        for _ in gate.loop("step", {}):
            w = w - 0.1 * gate.grad("step", lambda p, x, y: (p["w"] - x).square().sum(), {"w": w})["w"]
        size = torch.stack([gate.sum("size", lambda x, y: torch.ones(1), part=k) for k in range(len(info.classes))])
        return {"mean": total.float() / info.units + w, "size": size.float()}


class WrongShape(Good):
    """Images of another shape."""

    def _sample(self, state, info, labels):
        return super()._sample(state, info, labels)[:, :, 1:]


@dataclass(frozen=True)
class Silent:
    loops: int = vs.option(2, "loops")
    blur: float = vs.option(0.5, "how much of the mean is mixed in, without limits")


class SaysNothing(Good):
    """Parameters without docs or ranges."""

    Config = Silent


BAD = {
    LooksPastTheGate: "outside the gate",
    DividesByTheRealCount: "outside the gate",
    KeepsRecords: "keeps something that depends on the data",
    KeepsTheGate: "keeps a Gate",
    StopsByTheData: "questions asked depend on the data",
    BranchesInsideTheMap: "vmap",
    AsksWhatWasNotPlanned: "was not planned",
    AsksTwice: "planned 1 time",
    AsksLess: "charged 0",
    ForgetsTheBound: "planned bound|outside the gate|allowed",
    Overspends: "allowed|as planned",
    UnplannedPlan: "not the one announced|planned|keeps something",
    RollsItsOwnDice: "outside the gate|one seed differ",
    IgnoresTheNoise: "same model",
    LearnsOnTheObject: "draws other images|keeps something",
    ForgetsItsState: "a resumed fit differs",
    WrongShape: "must return floats",
    SaysNothing: "doc says too little|without a range",
}


@pytest.mark.parametrize("bad", BAD, ids=lambda c: c.__name__)
def test_known_bad(bad):
    """The property that it breaks fails, or the gate itself refuses."""
    with pytest.raises((AssertionError, VeilsetError, RuntimeError), match=BAD[bad]):
        kit.check_synthesizer(bad)


@pytest.mark.parametrize("holds", OF_OTHER_WAYS)
def test_taught_moments_with_all_of_its_releases(holds) -> None:
    """The kit's sets are so small that the plan would leave histograms and the choice out."""
    with worth_all():
        names = [r.name for r in vs.make("taught-moments", **ALL).plan(kit.INFO, kit.BUDGET).releases]
        assert {"detail", "choice"} <= set(names)
        holds(lambda: method_class("taught-moments")(**ALL))
