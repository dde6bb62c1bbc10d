"""`torchrun ... -m veilset.cli.main fit`: one run on two processes, and one voice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from two_sums import Climb
from veilset.audit.selftest.together import together
from veilset.cli.main import main
from veilset.core.types import PublicInfo
from veilset.privacy.private import from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy


@pytest.mark.long
def test_a_release_fit_by_two_processes_speaks_once_and_verifies(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "veilset.cli.main"]
    fit = ["fit", "dp-merf", "--data", "digits", "--epsilon", "1", "--frequencies", "9", "--steps", "2", "--json"]
    out = ["--out", str(tmp_path / "r")]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *fit, *out], env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and json.loads(done.stdout)["receipt"]["release"] is True
    assert verify(tmp_path / "r").release


@pytest.mark.long
def test_the_wire_is_closed_before_the_interpreter_ends(tmp_path: Path) -> None:
    """gloo's threads must not outlive it: one run in ten ended by SIGABRT after all its work was done."""
    script = tmp_path / "run.py"
    script.write_text(
        "import atexit, os, torch.distributed as dist\n"
        "from veilset.core import wire\n"
        "atexit.register(lambda: os.write(1, b'open ' if dist.is_initialized() else b'closed '))  # after later ones\n"
        "assert wire.spread(b'all') == b'all' and dist.is_initialized()\n"
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(launch, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0 and done.stdout.split() == ["closed"] * 2, done.stdout + done.stderr


def quiet(job: Callable[[], Any], tmp: Path) -> list[tuple[int, str, str]]:
    """(status, stdout, stderr) of main in two processes."""

    def run(rank: int) -> list[Any]:
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(tmp / f"{name}{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), fd)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        status = job()
        sys.stdout.flush()
        sys.stderr.flush()
        return [status]

    found = together(run, tmp)
    return [(v[0], (tmp / f"out{r}").read_text(), (tmp / f"err{r}").read_text()) for r, (_, v) in enumerate(found)]


@pytest.mark.parametrize("verb", [["methods"], ["verify", "x"], ["sample", "x", "-n", "1", "--out", "y"]])
def test_other_verbs_are_refused_in_one_line_each(tmp_path: Path, verb: list[str]) -> None:
    first, second = quiet(lambda: main(verb), tmp_path)
    for (status, out, err), who in ((first, "veilset: "), (second, "veilset (process 1): ")):
        assert status == 2 and out == "" and err.startswith(who) and "only fit" in err and err.count("\n") == 1


def test_an_error_of_the_first_process_is_told_by_all_and_ends_all(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    fit = ["fit", "dp-merf", "--data", "digits", "--epsilon", "1", "--out", str(tmp_path / "r")]
    for status, out, err in quiet(lambda: main(fit), tmp_path):
        assert status == 2 and out == "" and "exists; choose another folder" in err and err.count("\n") == 1


def test_processes_of_a_release_stay_in_step(tmp_path: Path) -> None:
    """Without a common folder too: the seed of what is public is the first one's."""
    info = PublicInfo(name="set", classes=("a", "b"), shape=(1, 4, 4), units=40)
    g = np.random.default_rng(0)
    data = from_arrays(info, g.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8), g.integers(0, 2, 40))

    def fit(rank: int) -> dict[str, Any]:
        model = Climb().fit(data, Privacy(1.0), folder=tmp_path if rank == 0 else None)
        return {**(model._state or {}), "ledger": model.ledger.decode()}

    (_, first), (_, second) = together(fit, tmp_path)
    assert first.keys() == second.keys() and "mean" in first
    for name, value in first.items():
        assert torch.equal(value, second[name]) if isinstance(value, torch.Tensor) else value == second[name]
