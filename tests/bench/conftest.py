"""A suite whose cells take no time, and a plug-in method that any process of a test can find."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.runner import suite

SOURCE = f"{suite.ROOT}:{suite.ROOT / 'src'}"
FAKE = """
import os, signal
from benchmarks.runner.suite import Cell, once

OPTIONS, ELSEWHERE = ("seeds",), ("other",)

def cells(quick, seeds=2):
    return [Cell(f"a.seed{s}", "add", {"x": s}) for s in range(seeds)] + [Cell("z", os.environ["KIND"], {}, alone=True)]

def add(x): return {"sum": x + 1} | (once({"for": "all"}, token)[1] if "TOKENS" in os.environ else {})
def token(): return {}, {"token": os.urandom(8).hex()}
def fine(): return {"sum": 0}
def fail(): raise RuntimeError("no luck today")
def nan(): return {"sum": float("nan")}
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def words(result): return f"sum {result['sum']}"
def summary(done, wanted): return {"rows": {c.name: r["sum"] for c, r in done}, "wanted": len(wanted)}
def render(result): return f"## fake\\n\\n{len(result['rows'])} of {result['wanted']}\\n"
def pages(result): return {"fake.md": f"{len(result['rows'])} rows\\n"}
"""
PLUGIN = '''
import torch
import veilset as vs

class Plug(vs.Synthesizer):
    """Class means."""

    name = "plug"

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean", bound=4.0),), seconds=0.1, memory_mb=200.0)

    def _fit(self, gate, info, plan):
        total = gate.sum("mean", lambda x, y: x - 0.5, by_class=True)
        return {"mean": (total / (info.units / len(info.classes)) + 0.5).float()}

    def _sample(self, state, info, labels):
        return state["mean"][labels] + 0.1 * torch.rand(len(labels), *info.shape)
'''


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Register the suite `fake`; call it with the kind of its last cell: fine, fail, nan or killed."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "fake_suite.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.delitem(sys.modules, "fake_suite", raising=False)  # of another test, in another folder
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'code'}:{SOURCE}")
    monkeypatch.setitem(suite.SUITES, "fake", "fake_suite")
    monkeypatch.setenv("KIND", "fine")
    return lambda kind: monkeypatch.setenv("KIND", kind)


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install a plug-in method for this process and those it starts."""
    home = tmp_path / "plugin"
    (home / "plug-1.dist-info").mkdir(parents=True)
    (home / "plug_method.py").write_text(PLUGIN)
    (home / "plug-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (home / "plug-1.dist-info" / "entry_points.txt").write_text("[veilset.methods]\nplug = plug_method:Plug\n")
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("PYTHONPATH", f"{home}:{SOURCE}")
    return "plug"
