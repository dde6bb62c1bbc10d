"""The released images of one run: copies are found, a sound release is not accused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from veilset.audit import nearest
from veilset.core.types import Images
from veilset.privacy.accounting import Spent, gaussian_noise_multiplier
from veilset.runs import RunSpec, execute

EPSILON_1, EPSILON_10 = ([Spent(gaussian_noise_multiplier(e, 1e-5))] for e in (1.0, 10.0))


def blobs(n: int, seed: int) -> Images:
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (n, 1, 5, 5), generator=g).to(torch.uint8)
    return Images(x, torch.arange(n) % 2, ("a", "b"))


def joined(a: Images, b: Images) -> Images:
    return Images(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]), a.classes)


def test_copies_of_members_are_found_and_strangers_are_not() -> None:
    members, others, reference = blobs(400, 0), blobs(400, 1), blobs(400, 2)
    right, guesses = nearest.attack(joined(members, others), members, reference, seed=0)
    leaky = nearest.check(right, guesses, 400, EPSILON_1, 1e-5, "a test split")
    assert right == guesses and leaky.ok is False and "test split" in leaky.threat_model
    right, guesses = nearest.attack(joined(members, others), blobs(400, 3), reference, seed=0)
    sound = nearest.check(right, guesses, 400, EPSILON_1, 1e-5, "a test split")
    assert sound.ok is True and sound.lower_bound < 1.0


def test_a_claim_that_so_few_guesses_cannot_disprove_is_not_passed() -> None:
    found = nearest.check(40, 40, 400, EPSILON_10, 1e-5, "a test split")
    assert found.ok is None and found.lower_bound < 10.0 and "SAYS NOTHING" in found.verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nearest") / "run"
    execute(RunSpec(method="dp-moments", data="digits", epsilon=1.0, seed=0, allow_large_delta=True), out)
    return out


def test_a_research_run_is_attacked_with_its_test_split(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "GUESSED", 0.7)  # as few as 37 guesses could not disprove an epsilon of 1
    found = nearest.audit(run, candidates=150, images=500)
    assert found.claim == pytest.approx(1.0, rel=1e-3)
    assert "test split of digits" in found.threat_model
    assert found.ok is True
    members: list[Images] = []
    real = nearest.attack

    def leak(pair: Images, released: Images, reference: Images, seed: int) -> tuple[int, int]:
        members.append(pair[: len(pair) // 2])
        return real(pair, members[0], reference, seed)

    monkeypatch.setattr(nearest, "attack", leak)
    assert nearest.audit(run, candidates=150, images=500).ok is False
