"""One run with canaries: near the claim from below in sound runs, above what is admitted in faulty ones."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from veilset.audit import canaries
from veilset.audit.verdict import Check
from veilset.core.errors import ConfigError
from veilset.core.types import PublicInfo
from veilset.privacy import gate, noise
from veilset.privacy.plan import Plan, Release
from veilset.privacy.sampling import Units
from veilset.privacy.spec import Privacy

INFO = PublicInfo(name="small", classes=("a", "b", "c"), shape=(1, 3, 3), value_range=(-1.0, 3.0), units=1000)
PATIENTS = PublicInfo(name="patients", classes=("a", "b"), shape=(1, 2, 2), units=1000, max_images_per_unit=2)
PLANS = {
    "sum": (Release(name="s", bound=2.0),),
    "grad": (Release(name="g", verb="grad", sample_rate=0.2, steps=10),),
    "both, by class": (
        Release(name="s", partition="class", weight=2.0),
        Release(name="g", verb="grad", sample_rate=0.2, steps=5, bound=0.3),
    ),
}


@cache
def plan(name: str, epsilon: float = 4.0, info: PublicInfo = INFO) -> Plan:
    return Plan(PLANS[name]).price(Privacy(epsilon), info)


def attack(name: str, **options) -> Check:
    return canaries.audit(plan(name, **options), canaries=1000, seed=2)


@pytest.mark.parametrize("name", ["sum", *(pytest.param(n, marks=pytest.mark.long) for n in PLANS if n != "sum")])
def test_a_sound_run_shows_no_fault_and_some_of_its_epsilon(name: str) -> None:
    found = attack(name)
    assert found.ok, found
    assert 0.3 < found.lower_bound < found.claim == pytest.approx(4.0, rel=1e-3)


def test_units_of_several_images_are_canaries_too() -> None:
    found = attack("sum", info=PATIENTS)
    assert found.ok and found.lower_bound > 0.3


def halved_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Stream.noise
    monkeypatch.setattr(noise.Stream, "noise", lambda self, n, std: real(self, n, std / 2))


def everybody_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Units, "sample", lambda self, rate, stream, part=None: np.arange(self.count))


def same_noise_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Keys.stream
    monkeypatch.setattr(
        noise.Keys, "stream", lambda self, purpose: real(self, purpose if purpose.startswith("sample") else "noise")
    )


def nothing_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(self, release, part, steps) -> None:
        self._taken[release.name, part] = self._taken.get((release.name, part), 0) + 1

    monkeypatch.setattr(gate.Gate, "_charge", skip)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (halved_noise, "sum"),
        pytest.param(halved_noise, "grad", marks=pytest.mark.long),
        (everybody_every_step, "grad"),
        (same_noise_every_step, "grad"),
        (nothing_is_charged, "sum"),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_a_planted_fault_is_found(fault, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(name)
    fault(monkeypatch)
    assert attack(name).ok is False


def test_ordinary_records_train_the_network_and_canaries_do_not() -> None:
    net, _ = canaries._learner(INFO, 5)
    params = dict(net.named_parameters())
    ordinary, marked = torch.full(INFO.shape, 0.4), torch.full(INFO.shape, 0.4)
    marked.view(-1)[:3] = torch.tensor([1.0, 0.0, 3 / 255])
    label = torch.tensor(1)
    grads = [
        torch.autograd.grad(canaries._loss(net, x, label), list(params.values()), allow_unused=True)
        for x in (ordinary, marked)
    ]
    names = list(params)
    where = names.index("marks.weight")
    assert not grads[0][where].any() and any(g.any() for i, g in enumerate(grads[0]) if i != where)
    assert grads[1][where].nonzero().tolist() == [[0, 3]]
    assert not any(g is not None and g.any() for i, g in enumerate(grads[1]) if i != where)


@pytest.mark.parametrize("number", [10, 20_000])
def test_a_number_of_canaries_out_of_range_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match="canaries"):
        canaries.audit(plan("sum"), canaries=number)


def test_few_canaries_say_so() -> None:
    found = canaries.audit(plan("sum", epsilon=1.0), canaries=30, seed=0)
    assert found.ok is None and "too few" in found.verdict


def test_a_plan_without_noise_has_no_claim() -> None:
    with pytest.raises(ConfigError, match="infinite"):
        canaries.audit(Plan(PLANS["sum"]).price(Privacy(float("inf")), INFO))
