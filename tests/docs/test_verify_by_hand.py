"""The verifier of docs/verify-by-hand.md, as it is printed, on a release and on tampered ones."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.privacy.private import from_arrays

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "verify-by-hand.md"
torch.set_num_threads(1)


class Mean(vs.Synthesizer):
    """One sum."""

    name = "mean-by-hand"

    def _plan(self, info: Any, privacy: Any) -> Any:
        return vs.Plan((vs.Release(name="mean", bound=4.0),))

    def _fit(self, gate: Any, info: Any, plan: Any) -> Any:
        return {"mean": gate.sum("mean", lambda x, y: x, by_class=True).float() / info.units}

    def _sample(self, state: Any, info: Any, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    path = tmp_path_factory.mktemp("by-hand") / "by_hand.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    info = vs.PublicInfo(name="kräuter \u202e", classes=("a", "b"), shape=(1, 4, 4), units=60)
    x = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    model = Mean().fit(from_arrays(info, x, np.arange(60, dtype=np.uint8) % 2), vs.Privacy(1.0))
    return model.write_samples(model.sample(12), tmp_path_factory.mktemp("released") / "release")


def run(program: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # nothing of ours can be imported
    command = [sys.executable, "-I", "-S", str(program), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=plain)


def test_it_is_thirty_lines_of_plain_python(program: Path) -> None:
    code = program.read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 30
    used = {a.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Import) for a in n.names}
    assert used <= set(sys.stdlib_module_names) and not re.search(r"^from|veilset", code, re.M)


def test_it_accepts_what_verify_accepts(program: Path, release: Path, tmp_path: Path) -> None:
    assert vs.verify(release).ok
    done = run(program, release)
    head = json.loads((release / "receipt.json").read_text())["ledger_head"]
    assert done.returncode == 0 and done.stderr == "" and head in done.stdout
    (tmp_path / "link").symlink_to(release)  # the folder itself may be named by a link
    assert run(program, tmp_path / "link").returncode == 0


def _lines(folder: Path, change: Any) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def _receipt(folder: Path, **changes: Any) -> None:
    path = folder / "receipt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _linked(folder: Path) -> None:
    shutil.move(folder / "labels.csv", folder.parent / "elsewhere.csv")
    (folder / "labels.csv").symlink_to(folder.parent / "elsewhere.csv")


def first(folder: Path) -> Path:
    return min((folder / "images").rglob("*.png"))


TAMPERED = {
    "a picture changed": lambda f: first(f).write_bytes(b"x"),
    "a picture gone": lambda f: first(f).unlink(),
    "a file added": lambda f: (f / "images" / "extra.png").write_bytes(b"x"),
    "a private part": lambda f: ((f / "private").mkdir(), (f / "private" / "metrics.json").write_text("{}")),
    "a link": _linked,
    "a line edited": lambda f: _lines(f, lambda ls: [ls[0], ls[1].replace(b'"steps":1', b'"steps":0'), ls[2]]),
    "a line dropped": lambda f: _lines(f, lambda ls: [ls[0], ls[2]]),
    "lines swapped": lambda f: _lines(f, lambda ls: [ls[0], ls[2], ls[1]]),
    "the end dropped": lambda f: _lines(f, lambda ls: ls[:-1]),
    "line ends": lambda f: _lines(f, lambda ls: [line.replace(b"\n", b"\r\n") for line in ls]),
    "epsilon": lambda f: _receipt(f, epsilon=0.1),
    "the list": lambda f: (f / "SHA256SUMS").write_text(""),
    "no list": lambda f: (f / "SHA256SUMS").unlink(),
    "no receipt": lambda f: (f / "receipt.json").unlink(),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_it_refuses_what_verify_refuses(program: Path, release: Path, tmp_path: Path, what: str) -> None:
    folder = Path(shutil.copytree(release, tmp_path / "r"))
    TAMPERED[what](folder)
    assert not vs.verify(folder).ok
    done = run(program, folder)
    assert done.returncode != 0 and "whole" not in done.stdout


def test_the_page_is_linked_where_auditors_look() -> None:
    assert "(docs/verify-by-hand.md)" in (ROOT / "README.md").read_text()
    assert "(verify-by-hand.md)" in (ROOT / "docs" / "threat-model.md").read_text()
