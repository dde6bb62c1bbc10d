"""The mechanism audit finds faults that are planted in the gate, and none in the gate as it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from veilset.audit.mechanism import audit
from veilset.audit.mechanism.neighbours import catalogue
from veilset.audit.verdict import Audit, Check
from veilset.core.errors import ConfigError
from veilset.privacy import bounding, gate, noise
from veilset.privacy.bounding import Bounded
from veilset.privacy.gradients import clipped
from veilset.privacy.sampling import Units

pytestmark = pytest.mark.usefixtures("remembered_prices")  # the same, whatever is done to the gate


def attack(verb: str, draws: int = 200, epsilon: float = 4.0) -> Check:
    return audit.audit(verb, epsilon=epsilon, draws=draws, seed=3)


@pytest.mark.parametrize(
    "verb",
    [pytest.param(v, marks=pytest.mark.long if v in ("sum-sampled", "sum-steps") else ()) for v in audit.verbs()],
)
def test_the_gate_as_it_is_shows_no_fault(verb: str) -> None:
    found = audit.audit(verb, epsilon=4.0, draws=60, seed=1)
    assert found.findings == ()
    assert found.claim == pytest.approx(4.0, rel=1e-3) and found.lower_bound < 4.0


@pytest.mark.parametrize(("verb", "least"), [("sum", 2.5), ("grad-sampled", 0.4)])
def test_the_bound_comes_near_the_claim(verb: str, least: float) -> None:
    assert least < attack(verb, 600).lower_bound < 4.0


def test_release_mode_is_audited_too_and_differs_each_time() -> None:
    plan_draws = [audit.audit("sum", draws=60).to_json()["roc"] for _ in range(2)]
    assert plan_draws[0] != plan_draws[1]


def test_the_same_seed_finds_the_same() -> None:
    assert attack("grad-sampled", 50) == attack("grad-sampled", 50)


def test_torchs_generator_is_left_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    attack("grad", 10)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("verb", ["sum", "sum-sampled", "grad-steps"])
def test_too_few_draws_say_so(verb: str) -> None:
    found = audit.audit(verb, epsilon=4.0, draws=20, seed=0)
    assert found.ok is None and "too few" in found.verdict
    assert Audit([found]).ok is None and "CHECKS SAY NOTHING" in str(Audit([found]))


@pytest.mark.parametrize(("verb", "draws"), [("nonsense", 10), ("sum", 1)])
def test_bad_arguments_are_one_line(verb: str, draws: int) -> None:
    with pytest.raises(ConfigError) as e:
        audit.audit(verb, draws=draws)
    assert "\n" not in str(e.value)


# ---------------------------------------------------------------------- planted faults


def halved_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Stream.noise
    monkeypatch.setattr(noise.Stream, "noise", lambda self, n, std: real(self, n, std / 2))


def no_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(v: torch.Tensor, bound: float, weight: torch.Tensor | float = 1.0) -> torch.Tensor:
        return v.to(torch.float64) * weight

    monkeypatch.setattr(bounding, "clip", keep)
    monkeypatch.setattr(clipped, "clip", keep)


def same_noise_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Keys.stream
    monkeypatch.setattr(noise.Keys, "stream", lambda self, purpose: real(noise.Keys(0), purpose))


def same_noise_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Keys.stream
    monkeypatch.setattr(noise.Keys, "stream", lambda self, purpose: real(
        self, purpose if purpose.startswith("sample") else "noise"))  # fmt: skip


def everybody_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Units, "sample", lambda self, rate, stream, part=None: np.arange(self.count))


def empty_batch_has_no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.Gate._noised

    def skip(self, exact: Bounded, release, purpose: str) -> torch.Tensor:
        return real(self, exact, release, purpose) if exact.value.any() else exact.value

    monkeypatch.setattr(gate.Gate, "_noised", skip)


def one_normal_for_all_coordinates(monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Stream.noise
    monkeypatch.setattr(noise.Stream, "noise", lambda self, n, std: np.full(n, real(self, 1, std)[0]))


def partition_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Units.sample

    def every_part(self, rate, stream, part=None):
        return real(self, rate, stream, None)

    monkeypatch.setattr(Units, "sample", every_part)


def noise_forgets_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.Gate._noised

    def bare(self, exact: Bounded, release, purpose: str) -> torch.Tensor:
        return real(self, Bounded(exact.value, exact.sensitivity / release.bound), release, purpose)

    monkeypatch.setattr(gate.Gate, "_noised", bare)


def nothing_is_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(self, release, part, steps) -> None:
        self._taken[release.name, part] = self._taken.get((release.name, part), 0) + 1

    monkeypatch.setattr(gate.Gate, "_charge", skip)


def one_step_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = gate.Gate._affordable

    def generous(self, release, part):
        done = self._taken.get((release.name, part), 0)
        return done if done == release.steps else real(self, release, part)

    monkeypatch.setattr(gate.Gate, "_affordable", generous)


@pytest.mark.parametrize(
    ("fault", "verb", "draws"),
    [
        (halved_noise, "sum", 200),
        (halved_noise, "grad", 200),
        pytest.param(halved_noise, "grad-sampled", 1000, marks=pytest.mark.long),
        (no_clipping, "sum", 150),
        (no_clipping, "grad-patient", 150),
        (same_noise_every_run, "sum", 60),
        (same_noise_every_run, "grad", 60),
        (same_noise_every_step, "grad-steps", 60),
        (everybody_is_sampled, "grad-sampled", 500),
        (empty_batch_has_no_noise, "grad-sampled", 60),
        (one_normal_for_all_coordinates, "sum", 200),
        pytest.param(partition_by_image, "sum-partition", 1000, marks=pytest.mark.long),
        (noise_forgets_the_bound, "grad", 200),
        (nothing_is_charged, "sum", 60),
        (one_step_too_many, "sum-steps", 60),
    ],
    ids=lambda x: getattr(x, "__name__", str(x)),
)
def test_a_planted_fault_is_found(fault, verb: str, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    found = attack(verb, draws, 4.0 if "sampled" in verb or "steps" in verb else 10.0)
    assert found.ok is False, found
    assert found.verdict.startswith("FAULT")


# ---------------------------------------------------------------------- the pairs themselves


@pytest.mark.parametrize("verb", audit.verbs())
def test_the_record_moves_a_noiseless_answer_by_the_whole_bound(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the pair would not be the worst case, and half of a fault could hide."""
    monkeypatch.setattr(noise.Stream, "noise", lambda self, n, std: np.zeros(n, np.int64))
    monkeypatch.setattr(Units, "sample", lambda self, rate, stream, part=None: _all(self, part))
    pair = catalogue()[verb]
    plan = audit.priced(pair, 4.0, 1e-5)
    without, with_ = (audit.collect(pair, plan, present, 1, 0)[0][0] for present in (False, True))
    assert np.allclose(without, 0.0, atol=5e-3)
    moved = (with_ - without) * plan.releases[0].noise_multiplier
    assert moved[0, 0] == pytest.approx(1.0 if pair.signal else 0.0, abs=2e-3)
    assert np.linalg.norm(moved[0]) <= 1.0 + 1e-6


def _all(units: Units, part: int | None) -> np.ndarray:
    everyone = np.arange(units.count)
    return everyone if part is None else everyone[units.part == part]
