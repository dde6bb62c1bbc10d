"""An interrupted fit goes on from the answers that it has paid for, and asks the same questions again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import veilset as vs
from veilset.privacy.reading import Reader

Run = Callable[..., Any]


@pytest.fixture
def interrupted(veilset: Run, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A release-mode fit whose question holds torch randomness, stopped by ctrl-c after its answer, then resumed."""
    asked: list[torch.Tensor] = []

    def fit(self: Any, gate: Any, info: Any, plan: Any) -> Any:
        features = torch.randn(info.pixels, info.pixels)
        asked.append(features)
        total = gate.sum("mean", lambda x, y: (features @ x.flatten()).reshape(x.shape) / 100, by_class=True)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return {"mean": total.float()}

    monkeypatch.setattr(tiny, "_fit", fit)
    reads = []
    real = Reader.chunks
    monkeypatch.setattr(Reader, "chunks", lambda self, *a: reads.append(1) or real(self, *a))
    command = ("fit", "tiny", "--data", "digits", "--epsilon", "2", "--out", tmp_path / "run", "--json")
    first = veilset(*command)
    before, read = (tmp_path / "run" / "ledger.jsonl").read_bytes(), len(reads)
    second = veilset(*command, "--resume")
    return {"first": first, "second": second, "before": before, "asked": asked, "read": read, "reads": len(reads)}


def test_ctrl_c_is_one_line_that_says_how_to_go_on(interrupted: dict[str, Any]) -> None:
    first = interrupted["first"]
    assert first.status == 130 and first.out == "" and "--resume" in first.err and "Traceback" not in first.err


def test_a_resumed_run_charges_and_reads_nothing_twice(interrupted: dict[str, Any], tmp_path: Path) -> None:
    assert interrupted["second"].status == 0
    after = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    assert after.startswith(interrupted["before"]) and after.count(b'"kind":"charge"') == 1
    assert interrupted["reads"] == interrupted["read"]
    assert vs.verify(tmp_path / "run").release


def test_a_resumed_run_asks_the_same_question(interrupted: dict[str, Any]) -> None:
    first, second = interrupted["asked"]
    assert torch.equal(first, second), "the kept answer belongs to other random features"
