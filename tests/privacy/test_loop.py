"""`gate.loop`: a run killed at any moment goes on: to the bit in research mode, at no larger charge in release mode."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from sets import facts, gate_for, linear_loss, linear_params, pictures, priced, private

from veilset.audit.selftest.together import alone
from veilset.core.errors import BudgetExceeded, PlanError, RunError
from veilset.learning.dp_sgd import average, descend
from veilset.privacy import gate as gate_module
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays
from veilset.privacy.run import run_store as store_module

INFO = facts(shape=(1, 8, 8))
FIRST = Release(name="first", verb="grad", sample_rate=0.5, steps=5)
SECOND = Release(name="second", verb="grad", sample_rate=0.5, steps=3)
STAGES = (Release(name="mean"), FIRST, SECOND)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A checkpoint after every step unless said otherwise; that the budget is kept is tested elsewhere."""
    priced(STAGES, 1.0, INFO)
    monkeypatch.setattr(gate_module, "check_within", lambda *a: None)
    monkeypatch.setattr(store_module, "KEEPING", 1e9)


class Net(torch.nn.Module):
    """A small convolutional network whose loss draws at random."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.GroupNorm(2, 4)
        self.out = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def loss(net, x, y):
    return torch.nn.functional.cross_entropy(net(x[None] + 0.1 * torch.randn_like(x)), y[None])


def train(folder: Path | None, seed: int | None = 0, data=None, stages=STAGES, **how) -> dict:
    """A sum and two loops, with public randomness between; the public seed is fixed, as `fit` does it."""
    torch.manual_seed(1)
    gate = gate_for(private(50, INFO) if data is None else data, *stages, folder=folder, seed=seed, **how)
    steps, out = {}, {}
    if seed is not None:
        out["mean"] = gate.sum("mean", lambda x, y: x, by_class=True)
    for name in ("first", "second"):
        net = Net().to(memory_format=torch.channels_last)
        adam, ema = torch.optim.Adam(net.parameters(), 1e-2), average(net, 0.9)
        steps[name] = []
        for t in gate.loop(name, {"net": net, "adam": adam, "ema": ema}):
            torch.randn(3)
            descend(adam, net, gate.grad(name, loss, net))
            ema.update_parameters(net)
            steps[name].append(t)
        out[name] = {**net.state_dict(), **{f"ema.{k}": v for k, v in ema.state_dict().items()}}
        out[f"then {name}"] = torch.randn(2)
    gate.close()
    return out | {"steps": steps, "ledger": gate.ledger.to_bytes().decode()}


def same(a: dict, b: dict) -> bool:
    return all(
        same(v, b[k]) if isinstance(v, dict) else torch.equal(v, b[k]) if isinstance(v, torch.Tensor) else v == b[k]
        for k, v in a.items()
        if k != "steps"
    )


def charged(folder: Path, name: str) -> int:
    return Ledger(folder / "ledger.jsonl").steps(name, None) if (folder / "ledger.jsonl").exists() else 0


class Killer:
    """Kills this process at the k-th moment: before and after a charge, a noise draw, and each part of a write."""

    def __init__(self, monkeypatch, k: int | None):
        self.k, self.seen = k, 0
        for owner, name in (
            (Ledger, "append"),
            (Gate, "_noised"),
            (store_module, "pack"),
            (store_module.RunStore, "keep_checkpoint"),
            (store_module.RunStore, "keep_answer"),
            (os, "fsync"),
            (os, "replace"),
        ):
            monkeypatch.setattr(owner, name, self.watched(getattr(owner, name)))

    def moment(self) -> None:
        self.seen += 1
        if self.seen == self.k:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self, real):
        def call(*a, **k):
            self.moment()
            got = real(*a, **k)
            self.moment()
            return got

        return call


def moments(monkeypatch, tmp_path: Path, seed: int | None) -> int:
    """How many there are in an undisturbed run."""

    def count():
        with monkeypatch.context() as m:
            killer = Killer(m, None)
            train(tmp_path / "counted", seed)
            return killer.seen

    return alone(count, tmp_path)[1]


def killed(monkeypatch, tmp_path: Path, folder: Path, seed: int | None, k: int) -> None:
    def run():
        Killer(monkeypatch, k)
        train(folder, seed)

    assert alone(run, tmp_path)[0] == -signal.SIGKILL


def test_a_research_run_killed_at_any_moment_repeats_to_the_bit(tmp_path, monkeypatch):
    whole = train(None)
    n = moments(monkeypatch, tmp_path, 0)
    assert n > 100
    for k in range(1, n + 1, 23):
        folder = tmp_path / f"r{k}"
        killed(monkeypatch, tmp_path, folder, 0, k)
        if k % 3 == 0:  # and once more on the way
            alone(lambda: (Killer(monkeypatch, 11), train(folder)), tmp_path)  # noqa: B023
        again = train(folder)
        assert same(whole, again), f"killed at moment {k} of {n}"
        assert not list(folder.rglob("*.partial"))


def test_a_release_killed_at_any_moment_is_never_charged_more(tmp_path, monkeypatch):
    n = moments(monkeypatch, tmp_path, None)
    for k in range(1, n + 1, 13):
        folder = tmp_path / f"r{k}"
        killed(monkeypatch, tmp_path, folder, None, k)
        before = {r.name: charged(folder, r.name) for r in (FIRST, SECOND)}
        got = train(folder, None)
        for r in (FIRST, SECOND):
            assert charged(folder, r.name) == r.steps
            assert got["steps"][r.name] == list(range(before[r.name], r.steps)), "a charged step was drawn again"
        assert [line["body"]["kind"] for line in Ledger(folder / "ledger.jsonl").lines][-1] == "close"


def test_a_release_goes_on_from_the_newest_checkpoint_behind_what_was_charged(tmp_path, monkeypatch):
    """Blocks of ten steps were reserved: the rest of the block in use is lost, and what was learned is not."""
    long = Release(name="g", verb="grad", sample_rate=0.5, steps=1000)
    plan, net, seen = priced((long,), 1.0, facts()), torch.nn.Linear(16, 3), []

    def some(stop):
        gate = Gate(private(), plan, folder=tmp_path / "r")
        for t in gate.loop("g", {"net": net}):
            gate.grad("g", lambda net, x, y: net(x.flatten()[None]).sum(), net)
            with torch.no_grad():
                net.bias += 1
            seen.append(t)
            if len(seen) == stop:
                break

    some(13)
    assert seen == list(range(13)) and charged(tmp_path / "r", "g") == 20
    with torch.no_grad():
        net.bias.zero_()
    some(14)
    assert seen[13:] == [20]
    assert float(net.bias[0].detach()) == pytest.approx(
        13, abs=1.01
    )  # twelve or thirteen steps were kept, and one was made


def test_a_finished_loop_keeps_its_end_for_a_later_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "KEEPING", 1e-9)  # only after the first and the last step
    whole, folder = train(None), tmp_path / "r"

    def run():
        real = Gate.grad

        def grad(self, name, *a, **k):
            if name == "second":
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, name, *a, **k)

        monkeypatch.setattr(Gate, "grad", grad)
        train(folder)

    assert alone(run, tmp_path)[0] == -signal.SIGKILL
    again = train(folder)
    assert again["steps"] == {"first": [], "second": [0, 1, 2]} and same(whole, again)


@pytest.mark.parametrize("seed", [0, None])
def test_ctrl_c_is_an_interruption_like_any_other(tmp_path, seed):
    """It may come in the middle of a step; the half-made step is not kept."""
    folder, calls = tmp_path / "r", []

    class Stop(Net):
        def state_dict(self, *a, **k):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return super().state_dict(*a, **k)

    real, globals()["Net"] = Net, Stop
    try:
        with pytest.raises(KeyboardInterrupt):
            train(folder, seed)
    finally:
        globals()["Net"] = real
    before = charged(folder, "first")
    again = train(folder, seed)
    assert charged(folder, "first") == 5 and charged(folder, "second") == 3
    if seed == 0:
        assert same(train(None), again)
    else:
        assert again["steps"]["first"] == list(range(before, 5))


# ---------------------------------------------------------------------- what is refused


def interrupted(folder: Path, monkeypatch, tmp_path: Path, seed: int | None = 0) -> None:
    """A run that was killed in its second loop."""

    def run():
        real = Gate.grad

        def grad(self, name, *a, **k):
            if name == "second" and self._taken[name, None] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, name, *a, **k)

        monkeypatch.setattr(Gate, "grad", grad)
        train(folder, seed)

    assert alone(run, tmp_path)[0] == -signal.SIGKILL


def test_another_schedule_budget_data_or_seed_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    interrupted(folder, monkeypatch, tmp_path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    longer = (STAGES[0], FIRST, Release(name="second", verb="grad", sample_rate=0.5, steps=4))
    x, y = pictures(50, INFO)
    x[7, 0, 0, 0] ^= 1
    more = np.concatenate([x, x[:1]]), np.r_[y, 0]
    refused = {
        "another plan": [{"stages": longer}, {"epsilon": 2.0}],
        "data changed": [{"data": from_arrays(INFO, x, y)}, {"data": from_arrays(INFO, *more)}],
        "another seed": [{"seed": 1}, {"seed": None}],
    }
    for words, changes in refused.items():
        for changed in changes:
            with pytest.raises(RunError, match=words) as caught:
                train(folder, **{"seed": 0} | changed)
            assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_another_network_is_refused_in_one_line(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    interrupted(folder, monkeypatch, tmp_path)

    class Wider(Net):
        def __init__(self):
            super().__init__()
            self.out = torch.nn.Linear(4, 5)

    real, globals()["Net"] = Net, Wider
    try:
        with pytest.raises(RunError, match="checkpoint does not fit") as caught:
            train(folder)
    finally:
        globals()["Net"] = real
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, None])
def test_a_cut_checkpoint_gives_way_to_the_one_before(tmp_path, monkeypatch, seed):
    folder = tmp_path / "r"
    interrupted(folder, monkeypatch, tmp_path, seed)
    for path in sorted((folder / "private" / "checkpoints").glob("second.*"))[-1:]:
        path.write_bytes(path.read_bytes()[:-100])
    again = train(folder, seed)
    assert again["steps"]["second"] == ([1, 2] if seed == 0 else [2])
    assert charged(folder, "second") == 3
    if seed == 0:
        assert same(train(None), again)


def test_a_checkpoint_without_its_charge_is_refused(tmp_path, monkeypatch):
    """An older copy of the ledger must not turn paid steps into free ones."""
    folder = tmp_path / "r"
    interrupted(folder, monkeypatch, tmp_path)
    path = folder / "ledger.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(RunError, match="not in the ledger"):
        train(folder)


def test_a_ledger_line_cut_by_a_power_failure_was_not_answered(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    interrupted(folder, monkeypatch, tmp_path)
    path = folder / "ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"body":{"kind":"charge","mech')
    assert same(train(None), train(folder))


@pytest.mark.parametrize("room", [3000, 9000])
def test_a_full_disk_is_one_line_and_the_run_goes_on(tmp_path, room):
    """Under a real limit on the size of files: the ledger, an answer or a checkpoint cannot be written."""
    folder, whole = tmp_path / "r", train(None)

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        train(folder)

    status, said = alone(run, tmp_path)
    assert status == 1 and said.startswith("RunError: cannot write") and "File too large" in said and "\n" not in said
    assert not list(folder.rglob("*.partial"))
    assert same(whole, train(folder))


# ---------------------------------------------------------------------- the body


def steps_of(gate: Gate, body, name: str = "first") -> None:
    for t in gate.loop(name, {}):
        body(t)


def test_the_body_asks_exactly_once():
    params = linear_params(INFO)
    for times in (0, 2):
        gate = gate_for(private(50, INFO), *STAGES)
        with pytest.raises(PlanError, match="exactly once"):
            steps_of(gate, lambda t: [gate.grad("first", linear_loss, params) for _ in range(times)])  # noqa: B023
    gate = gate_for(private(50, INFO), *STAGES)
    with pytest.raises(PlanError, match="was planned as 'sum'"):
        steps_of(gate, lambda t: None, "mean")


@pytest.mark.parametrize("seed", [0, None])
@pytest.mark.parametrize("keep", [True, False])
def test_a_loop_cannot_be_begun_again(tmp_path, seed, keep):
    """Beginning again would draw the noise of the same steps for other questions, and charge nothing."""
    params = linear_params(INFO)
    for stop in (5, 2, 0):
        gate = gate_for(private(50, INFO), *STAGES, seed=seed, folder=tmp_path / f"r{stop}" if keep else None)
        if stop:
            for t in gate.loop("first", {}):
                gate.grad("first", linear_loss, params)
                if t + 1 == stop:
                    break
        else:
            gate.grad("first", linear_loss, params)
        with pytest.raises(PlanError, match="begun already"):
            next(gate.loop("first", {}))


def test_steps_without_a_loop_cannot_be_asked_again_in_a_release(tmp_path):
    gate = gate_for(private(50, INFO), *STAGES, seed=None, folder=tmp_path)
    gate.grad("first", linear_loss, linear_params(INFO))
    gate = gate_for(private(50, INFO), *STAGES, seed=None, folder=tmp_path)
    with pytest.raises(BudgetExceeded, match="its answer is lost"):
        gate.grad("first", linear_loss, linear_params(INFO))


@pytest.mark.parametrize("n", [0, 1, 50])
def test_empty_batches_and_physical_batches_of_one_are_steps_like_others(monkeypatch, n):
    rare = (
        Release(name="mean"),
        *(Release(name=r, verb="grad", sample_rate=0.02, steps=4) for r in ("first", "second")),
    )
    data, fixed = private(n, INFO), []
    for room in (1, 1 << 25):
        monkeypatch.setattr(gate_module, "CHUNK_BYTES", room)
        gate = gate_for(data, *rare)
        got = [gate.grad("first", linear_loss, linear_params(INFO))["w"] for _ in gate.loop("first", {})]
        assert len(got) == 4 and all(bool(torch.isfinite(g).all()) and float(g.std()) > 0 for g in got)
        fixed.append(torch.stack(got))
    assert torch.allclose(*fixed, atol=1e-6)
