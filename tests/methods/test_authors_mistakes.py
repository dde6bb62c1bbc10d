"""What an author of a method gets wrong first is said in one line that names it."""

from __future__ import annotations

import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError, VeilsetError
from veilset.methods.stages import Compose, Part, Stage, Staged, learned_by

torch.set_num_threads(1)
DATA = vs.load("digits")


class Mean(Stage):
    def plan(self, info, budget):
        return vs.Plan((vs.Release(name="pixels", bound=4.0),), seconds=1.0, memory_mb=100.0)

    def fit(self, gate, info, budget, earlier):
        return {"mean": gate.sum("pixels", lambda x, y: x, by_class=True).float() / 180}


class Good(Staged, vs.Synthesizer):
    """Class means."""

    name = "good"

    def _stages(self, info, privacy):
        return Compose({"mean": Part(Mean())})

    def _sample(self, state, info, labels):
        return learned_by("mean", state)["mean"][labels]


def of(**functions):
    return type("Mine", (Good,), functions)


def stage(**functions):
    made = type("Ours", (Mean,), functions)()
    return of(_stages=lambda self, info, privacy: Compose({"mean": Part(made)}))


def used(cls) -> None:
    cls().fit(DATA.train, vs.Privacy(1.0), seed=0).sample(20)


PLANNED = {
    "_stages returned a dict": of(_stages=lambda self, info, privacy: {"mean": Part(Mean())}),
    "stage 'mean': must be Part": of(_stages=lambda self, info, privacy: Compose({"mean": Mean()})),
    "stage 'mean': must be Part(stage)": of(_stages=lambda self, info, privacy: Compose({"mean": Part(Mean)})),
    "each stage but one needs a share": of(_stages=lambda *_: Compose({"a": Part(Mean()), "b": Part(Mean())})),
    "stage 'mean': plan returned a NoneType": stage(plan=lambda self, info, budget: None),
    "stage 'mean': plan returned a Release": stage(plan=lambda self, info, budget: vs.Release(name="a")),
    "must be a tuple of veilset.Release": stage(plan=lambda self, info, budget: vs.Plan(vs.Release(name="a"))),
    "letters, digits, - and _": of(_stages=lambda *_: Compose({"my mean": Part(Mean())})),
    "has no name": of(name=None),
}
FITTED = {
    "stage 'mean': fit returned a NoneType": stage(fit=lambda *_: None),
    "stage 'mean': fit returned a Tensor": stage(fit=lambda *_: torch.zeros(1)),
    "returned 'mean' as a list": stage(fit=lambda *_: {"mean": [1.0]}),
    "the map returned a float": stage(fit=lambda self, gate, *_: {"m": gate.sum("pixels", lambda x, y: 1.0)}),
    "stage 'meen': nothing was learned": stage(fit=lambda self, gate, info, budget, earlier: earlier["meen"]),
    "Did you mean 'mean'": of(_sample=lambda self, state, info, labels: learned_by("meen", state)["mean"]),
    "_sample returned a NoneType": of(_sample=lambda *_: None),
    "_sample returned torch.float32 [20, 2]": of(_sample=lambda *_: torch.zeros(20, 2)),
}


def test_the_method_without_a_mistake_works() -> None:
    used(Good)


@pytest.mark.parametrize("said", PLANNED)
def test_a_mistake_in_a_plan_is_named_before_anything_is_asked(said: str) -> None:
    with pytest.raises(VeilsetError) as e:
        PLANNED[said]().plan(DATA.info, vs.Privacy(1.0))
    assert said in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("said", FITTED)
def test_a_mistake_in_what_is_learned_or_drawn_is_named(said: str) -> None:
    with pytest.raises(ConfigError) as e:
        used(FITTED[said])
    assert said in str(e.value) and "\n" not in str(e.value)
