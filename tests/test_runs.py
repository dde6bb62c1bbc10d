"""Run folders: one user at a time, killed runs go on, and nothing is charged twice or half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import two_sums
from veilset import runs
from veilset.audit.selftest.together import alone, together
from veilset.core import io
from veilset.core.errors import BudgetExceeded, RunError, VeilsetError
from veilset.core.types import PublicInfo
from veilset.data import declare, draft
from veilset.methods import catalogue
from veilset.privacy.receipt import verify
from veilset.privacy.run import run_store as store_module
from veilset.runs import RunSpec, execute

SCRIPT = Path(__file__).with_name("two_sums.py")


@pytest.fixture(scope="module", autouse=True)
def _method():
    real = catalogue._load
    two_sums.install()
    yield
    catalogue._load = real


@pytest.fixture
def data(tmp_path) -> str:
    g = np.random.default_rng(0)
    path = tmp_path / "set.npz"
    np.savez(path, x=g.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8), y=g.integers(0, 2, 40))
    info = PublicInfo(name="set", classes=("a", "b"), shape=(1, 4, 4), units=40)
    declaration = draft.text(info).replace("confirmed = false", "confirmed = true")
    declare.path_for(path).write_text(declaration)
    return str(path)


def spec(data: str, **changes) -> RunSpec:
    return RunSpec(**{"method": "two-sums", "data": data, "epsilon": 1.0, "seed": 0} | changes)


def elsewhere(data: str, out: Path, kill: str, seed: int | None = 0) -> int:
    """Run in another process, which kills itself: its exit status."""

    def run() -> None:
        two_sums.KILL = kill
        execute(spec(data, seed=seed), out)

    return alone(run, out.parent)[0]


def charges(folder: Path) -> list[str]:
    bodies = [json.loads(line)["body"] for line in (folder / "ledger.jsonl").read_text().splitlines()]
    return [b["release"] for b in bodies if b["kind"] == "charge"]


def test_a_run_folder_holds_what_it_should(data, tmp_path):
    execute(spec(data, seed=None), tmp_path / "r")
    names = {p.relative_to(tmp_path / "r").as_posix() for p in (tmp_path / "r").iterdir()}
    assert names == {"model.safetensors", "model.json", "ledger.jsonl", "receipt.json", "SHA256SUMS", "private"}
    got = verify(tmp_path / "r")
    assert got.ok and got.release
    assert (tmp_path / "r" / "private").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "r" / "private").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600) or path.name == "answers"
    receipt = (tmp_path / "r" / "receipt.json").read_text()
    assert "hmac" not in receipt and str(tmp_path) not in receipt


def test_row_33_private_files_never_reach_a_release(data, tmp_path):
    model = execute(spec(data), tmp_path / "r")
    for form in ("folder", "npz"):
        out = model.write_samples(model.sample(6, seed=0), tmp_path / form, form)
        names = {p.relative_to(out).parts[0] for p in out.rglob("*")}
        assert names == {"images", "labels.csv", "ledger.jsonl", "receipt.json", "SHA256SUMS"} or names == {
            "images.npz", "ledger.jsonl", "receipt.json", "SHA256SUMS"
        }  # fmt: skip
    saved = model.save(tmp_path / "saved")
    assert not (saved / "private").exists()


def test_an_existing_folder_is_left_alone(data, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("x")
    with pytest.raises(RunError, match="exists; choose another"):
        execute(spec(data), tmp_path / "r")
    with pytest.raises(RunError, match="no interrupted run"):
        execute(spec(data), tmp_path / "r", resume=True)
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine.txt"]
    with pytest.raises(RunError, match="no interrupted run"):
        execute(spec(data), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kill", ["charged mean", "kept mean"])
def test_row_05_a_killed_research_run_goes_on_bit_identically(data, tmp_path, kill):
    whole = execute(spec(data), tmp_path / "whole")
    assert elsewhere(data, tmp_path / "r", kill=kill) == -signal.SIGKILL
    assert not (tmp_path / "r" / "receipt.json").exists()
    execute(spec(data), tmp_path / "r", resume=True)
    for name in ("model.safetensors", "model.json", "ledger.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert charges(tmp_path / "r") == ["mean", "square"]
    assert verify(tmp_path / "r").ok
    assert whole.receipt_.epsilon == verify(tmp_path / "r").epsilon


@pytest.mark.parametrize("kill", ["kept mean"])
def test_a_killed_release_goes_on_from_kept_answers_and_is_not_charged_again(data, tmp_path, kill):
    assert elsewhere(data, tmp_path / "r", kill=kill, seed=None) == -signal.SIGKILL
    execute(spec(data, seed=None), tmp_path / "r", resume=True)
    assert charges(tmp_path / "r") == ["mean", "square"]
    got = verify(tmp_path / "r")
    assert got.ok and got.release and got.epsilon <= 1 + 1e-9


@pytest.mark.parametrize("kill", ["charged square"])
def test_a_killed_release_whose_answer_is_lost_is_refused(data, tmp_path, kill):
    assert elsewhere(data, tmp_path / "r", kill=kill, seed=None) == -signal.SIGKILL
    before = charges(tmp_path / "r")
    for _ in range(2):
        with pytest.raises(BudgetExceeded, match="its answer is lost"):
            execute(spec(data, seed=None), tmp_path / "r", resume=True)
    assert charges(tmp_path / "r") == before
    assert not (tmp_path / "r" / "receipt.json").exists()


def test_row_31_a_run_goes_on_with_its_own_arguments_only(data, tmp_path):
    assert elsewhere(data, tmp_path / "r", kill="kept mean") == -signal.SIGKILL
    before = {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()}
    for changed in ({"epsilon": 2.0}, {"delta": 1e-6}, {"seed": 1}, {"seed": None}, {"params": {"shift": 0.5}}):
        with pytest.raises(RunError, match=f"{next(iter(changed))} = "):
            execute(spec(data, **changed), tmp_path / "r", resume=True)
    x = np.load(data)
    y = x["y"].copy()
    y[0] = 1 - y[0]
    np.savez(data, x=x["x"], y=y)
    with pytest.raises(RunError, match="data changed"):
        execute(spec(data), tmp_path / "r", resume=True)
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_a_finished_run_is_opened_and_not_repeated(data, tmp_path, monkeypatch):
    first = execute(spec(data, seed=None), tmp_path / "r")
    before = (tmp_path / "r" / "ledger.jsonl").read_bytes()
    again = execute(spec(data, seed=None), tmp_path / "r", resume=True)
    assert (tmp_path / "r" / "ledger.jsonl").read_bytes() == before
    assert np.array_equal(first.sample(9, seed=1).x, again.sample(9, seed=1).x)


def test_two_processes_cannot_share_a_folder(data, tmp_path):
    execute(spec(data), tmp_path / "whole")
    facts = json.dumps({"data": data, "epsilon": 1.0, "seed": 0})
    env = os.environ | {"KILL": "wait", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(tmp_path / "r"), facts]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline().strip() == "ready"
            with pytest.raises(RunError, match="in use by another process"):
                execute(spec(data), tmp_path / "r", resume=True)
            with pytest.raises(RunError, match="exists"):
                execute(spec(data), tmp_path / "r")
        finally:
            other.kill()
    execute(spec(data), tmp_path / "r", resume=True)  # the lock died with its holder
    assert verify(tmp_path / "r").ok
    for name in ("model.safetensors", "model.json", "ledger.jsonl"):  # begun by another interpreter
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("after", range(0, 14, 2))
def test_a_full_disk_gives_one_clear_line_and_no_half_file(data, tmp_path, monkeypatch, after):
    """The disk fills after a number of writes; what is there is whole, and the run goes on when there is room."""
    count, real = [0], os.fsync

    def full(fd):
        count[0] += 1
        if count[0] > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError) as caught:
        execute(spec(data), tmp_path / "r")
    monkeypatch.undo()
    assert "No space left" in str(caught.value) and "\n" not in str(caught.value)
    for path in (tmp_path / "r").rglob("*"):
        assert not path.name.endswith(".partial"), path
        if path.suffix == ".json":
            json.loads(path.read_text())
    assert not (tmp_path / "r" / "receipt.json").exists()
    if (tmp_path / "r" / "private" / "run.json").exists():
        execute(spec(data), tmp_path / "r", resume=True)
        assert verify(tmp_path / "r").ok and charges(tmp_path / "r") == ["mean", "square"]


# ---------------------------------------------------------------------- loops, killed anywhere


def killed_at(monkeypatch, tmp_path, spec, out, k: int | None, resume: bool = False):
    """Run in another process that is killed at its k-th system call on a file: (exit status, calls seen)."""

    def run():
        seen = [0]

        def watched(real):
            def call(*a, **how):
                seen[0] += 1
                if seen[0] == k:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*a, **how)

            return call

        for name in ("open", "fsync", "replace", "mkdir"):
            monkeypatch.setattr(io.os, name, watched(getattr(os, name)))
        execute(spec, out, resume=resume)
        return seen[0]

    return alone(run, tmp_path)


@pytest.fixture
def every_step(monkeypatch):
    """A checkpoint after every step."""
    monkeypatch.setattr(store_module, "KEEPING", 1e9)


RELEASED = ("model.safetensors", "model.json", "ledger.jsonl")


@pytest.mark.long
def test_a_research_loop_killed_at_any_file_access_ends_in_the_same_files(data, tmp_path, monkeypatch, every_step):
    want = spec(data, method="climb")
    execute(want, tmp_path / "whole")
    _, calls = killed_at(monkeypatch, tmp_path, want, tmp_path / "counted", None)
    assert calls > 60
    for k in range(1, calls, 9):
        out = tmp_path / f"r{k}"
        assert killed_at(monkeypatch, tmp_path, want, out, k)[0] == -signal.SIGKILL
        execute(want, out, resume=(out / "private" / "run.json").exists())
        for name in RELEASED:
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (k, name)
        assert verify(out).ok and not list(out.rglob("*.partial"))


def test_a_release_loop_killed_at_any_file_access_is_charged_what_was_planned(data, tmp_path, monkeypatch, every_step):
    want = spec(data, method="climb", seed=None)
    _, calls = killed_at(monkeypatch, tmp_path, want, tmp_path / "counted", None)
    ends = []
    for k in range(5, calls, 11):
        out = tmp_path / f"r{k}"
        assert killed_at(monkeypatch, tmp_path, want, out, k)[0] == -signal.SIGKILL
        try:
            execute(want, out, resume=(out / "private" / "run.json").exists())
        except BudgetExceeded:  # killed between the charge of the sum and its keeping
            ends.append("lost")
            continue
        ends.append("done")
        assert sorted(charges(out)) == ["mean"] + ["step"] * two_sums.Climb.steps
        assert verify(out).ok and verify(out).release and verify(out).epsilon <= 1 + 1e-9
    assert ends.count("lost") <= 1 and ends.count("done") > 3


def test_a_folder_in_which_nothing_was_begun_is_no_obstacle(data, tmp_path, monkeypatch):
    """Killed before the arguments were on disk: neither "exists" nor "no interrupted run" would be a way out."""
    out = tmp_path / "r"
    (out / "private").mkdir(parents=True)
    (out / "private" / "lock").touch()
    (out / "private" / ".run.json.partial").write_text("{")
    with pytest.raises(RunError, match="no interrupted run here; drop --resume"):
        execute(spec(data), out, resume=True)
    execute(spec(data), out)
    assert verify(out).ok
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="exists"):
        execute(spec(data), tmp_path / "empty")


@pytest.mark.parametrize(
    ("changed", "words"),
    [({"epsilon": 2.0}, "epsilon = "), ({"seed": 4}, "seed = "), ({"params": {"shift": 1}}, "params = ")],
)
def test_a_loop_goes_on_with_its_own_arguments_only(data, tmp_path, monkeypatch, every_step, changed, words):
    want, out = spec(data, method="climb"), tmp_path / "r"
    assert killed_at(monkeypatch, tmp_path, want, out, 50)[0] == -signal.SIGKILL
    with pytest.raises(RunError, match=words) as caught:
        execute(spec(data, method="climb", **changed), out, resume=True)
    assert "\n" not in str(caught.value)


def test_another_schedule_is_refused(data, tmp_path, monkeypatch, every_step):
    """Also when the arguments are the same and the method itself has changed."""
    want, out = spec(data, method="climb"), tmp_path / "r"
    assert killed_at(monkeypatch, tmp_path, want, out, 50)[0] == -signal.SIGKILL
    monkeypatch.setattr(two_sums.Climb, "steps", 7)
    with pytest.raises(RunError, match="another plan"):
        execute(want, out, resume=True)


# ---------------------------------------------------------------------- several processes


@pytest.mark.parametrize("size", [2, 3])
def test_processes_make_the_run_folder_that_one_would_make(data, tmp_path, size):
    want = spec(data, method="climb")
    execute(want, tmp_path / "one")
    found = together(lambda r: str(execute(want, tmp_path / "r").receipt_), tmp_path, size)
    assert [status for status, _ in found] == [0] * size, found
    for name in ("model.json", "ledger.jsonl"):
        assert (tmp_path / "r" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert verify(tmp_path / "r").ok
    again = together(lambda r: str(execute(want, tmp_path / "r", resume=True).receipt_), tmp_path, size)
    assert again == found  # a finished run is opened by all


def test_a_fault_before_the_run_ends_all_processes_and_leaves_nothing(data, tmp_path):
    (tmp_path / "taken").mkdir()
    found = together(lambda r: execute(spec(data), tmp_path / "taken"), tmp_path)
    assert all(status == 1 and "exists; choose another folder" in said for status, said in found)
    found = together(lambda r: execute(spec(data), tmp_path / "none", resume=True), tmp_path)
    assert all(status == 1 and "no interrupted run" in said for status, said in found)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("dead", [0, 1])
def test_a_run_whose_process_died_is_gone_on_with_by_one(data, tmp_path, monkeypatch, every_step, dead):
    from veilset.privacy.gate import Gate

    want, out = spec(data, method="climb"), tmp_path / "r"
    execute(want, tmp_path / "whole")

    def run(rank):
        real = Gate.grad

        def grad(self, *a, **k):
            if rank == dead and self._taken["step", None] == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *a, **k)

        monkeypatch.setattr(Gate, "grad", grad)
        execute(want, out)

    found = together(run, tmp_path)
    assert found[dead] == (-signal.SIGKILL, None)
    assert found[1 - dead][0] == 1 and found[1 - dead][1].startswith("RunError: another process of this run ended")
    execute(want, out, resume=True)
    assert (out / "ledger.jsonl").read_bytes() == (tmp_path / "whole" / "ledger.jsonl").read_bytes()
    assert verify(out).ok


def test_plan_reads_the_declaration_only(data, monkeypatch):
    from veilset.privacy.private import PrivateImages

    monkeypatch.setattr(PrivateImages, "_open", lambda self: pytest.fail("a record was read"))
    assert spec(data).plan().claim().epsilon <= 1


def test_nothing_is_left_when_arguments_are_wrong(data, tmp_path):
    for wrong in (
        {"epsilon": -1},
        {"delta": 0.5},
        {"method": "no-such"},
        {"params": {"shiftt": 1}},
        {"data": "no-such-set"},
    ):
        with pytest.raises(VeilsetError):
            execute(spec(**{"data": data} | wrong), tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert runs.RECEIPTS == ("receipt.json", "NON-PRIVATE.json")
