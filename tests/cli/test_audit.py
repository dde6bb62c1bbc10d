"""`veilset audit`: what it prints, its exit status, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from veilset.audit.mechanism.audit import verbs
from veilset.privacy import noise

Run = Callable[..., Any]


def test_a_sound_run_passes_and_keeps_its_audit(veilset: Run, copy: Callable[[str], Path]) -> None:
    run = copy("run")
    done = veilset("audit", run, "--level", "canaries", "--json")
    facts = done.json
    assert done.status == 0 and facts["ok"] is True
    assert facts["claim"] == pytest.approx(2.0) and 0 < facts["lower_bound"] < 2.0
    assert facts["confidence"] == 0.95 and "attacker" in facts["threat_model"]
    assert (run / "private" / "audit.json").exists()


@pytest.mark.long
def test_a_run_is_audited_by_the_verbs_of_its_plan_and_as_a_whole(veilset: Run, made: Path) -> None:
    done = veilset("audit", made / "out", "--draws", 4, "--canaries", 40, "--json")
    assert done.status == 3
    assert [c["name"] for c in done.json["checks"]] == [v for v in verbs() if v.startswith("sum")] + ["canaries"]
    assert all(c["ok"] is None and c["claim"] == pytest.approx(2.0, rel=1e-3) for c in done.json["checks"])


def test_a_fault_ends_with_1_and_is_named(veilset: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = noise.Stream.noise
    monkeypatch.setattr(noise.Stream, "noise", lambda self, n, std: real(self, n, std / 2))
    done = veilset("audit", "tiny", "--level", "canaries", "--epsilon", 8, "--seed", 1)
    assert done.status == 1
    assert "FAULT: canaries" in done.out and "At least one claim is wrong" in done.out


def test_too_few_draws_end_with_3_and_say_so(veilset: Run) -> None:
    done = veilset("audit", "tiny", "--level", "canaries", "--canaries", 40, "--epsilon", 1, "--json")
    assert done.status == 3 and done.json["ok"] is None
    shown = veilset("audit", "tiny", "--level", "canaries", "--canaries", 40, "--epsilon", 1)
    assert shown.status == 3 and "SAYS NOTHING" in shown.out and "NO FAULT SHOWN" not in shown.out


def test_no_verdict_calls_a_small_bound_private(veilset: Run) -> None:
    done = veilset("audit", "tiny", "--level", "canaries", "--seed", 0)
    assert done.status == 0
    assert "no evidence of privacy" in done.out and "never that it is right" in done.out


def test_nearest_needs_a_research_run_and_says_where_outsiders_come_from(veilset: Run, copy: Any) -> None:
    veilset("audit", copy("run"), "--level", "nearest", "--json").refused("release mode")
    done = veilset("audit", copy("research"), "--level", "nearest", "--candidates", 150, "--json")
    assert done.status in (0, 3) and "test split of digits" in done.json["threat_model"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nonsense",), "method 'nonsense'"),
        (("gate", "--level", "mechanisms"), "Did you mean 'mechanism'?"),
        (("gate", "--level", "canaries"), "name a method or a run"),
        (("tiny", "--level", "nearest"), "research run"),
        (("gate", "--draws", "1"), "draws = 1"),
        (("gate", "--epsilon", "inf"), "epsilon = inf"),
        (("gate", "--epsilon", "-1"), "epsilon = -1"),
        (("gate", "--spread", "1"), "only a method has parameters"),
        (("tiny", "--spraed", "1"), "Did you mean 'spread'?"),
        (("tiny", "--level", "canaries", "--canaries", "5"), "canaries = 5"),
    ],
)
def test_bad_input_is_one_line(veilset: Run, words: tuple[str, ...], said: str) -> None:
    veilset("audit", *words, "--json").refused(said)


def test_a_run_brings_its_own_claim_and_must_verify(veilset: Run, copy: Any) -> None:
    run = copy("run")
    veilset("audit", run, "--epsilon", 1).refused("leave out --epsilon")
    (run / "model.safetensors").write_bytes(b"other")
    veilset("audit", run).refused("does not verify")


def test_a_run_without_privacy_has_no_claim(veilset: Run, copy: Any) -> None:
    assert veilset("audit", copy("public")).status != 0


def test_an_existing_file_is_not_overwritten(veilset: Run, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    out.write_text("mine")
    veilset("audit", "gate", "--out", out).refused("exists")
    assert out.read_text() == "mine"
