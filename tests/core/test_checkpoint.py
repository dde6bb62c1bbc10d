"""Training state on disk: exact, whole or absent, and written no more often than it is worth."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from veilset.audit.selftest.together import alone
from veilset.core.errors import RunError
from veilset.privacy.run import run_store as store_module
from veilset.privacy.run.checkpoint import decode, encode, freeze, pack, thaw, unpack
from veilset.privacy.run.run_store import RunStore, drop_torn_line


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(*pair) for pair in zip(a, b, strict=True))
    return a == b and type(a) is type(b)


def trained() -> tuple[torch.nn.Module, torch.optim.Adam]:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), 1e-2, betas=(0.5, 0.9))
    for _ in range(3):
        net(torch.randn(2, 3, 8, 8)).square().sum().backward()
        adam.step()
    return net, adam


def test_state_comes_back_as_it_was():
    net, adam = trained()
    state = {
        "net": dict(net.state_dict()),
        "adam": adam.state_dict(),
        "random": torch.get_rng_state(),
        "numbers": [1, 2.5, -0.0, 1e300, float("inf"), True, None, "text"],
        "by number": {0: {"a": 1}, "0": {"b": 2}},
        "kinds": [torch.tensor(3), torch.zeros(0, 2), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor([True])],
        "turned": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        "wide": torch.randn(2, 5, 4, 4).contiguous(memory_format=torch.channels_last),
        "empty": {},
    }
    got = unpack(pack(state))
    state["adam"]["param_groups"][0]["betas"] = list(state["adam"]["param_groups"][0]["betas"])
    assert same(got, state)


def test_tied_and_sliced_tensors_are_kept():
    w = torch.randn(3, 4)
    got = decode(encode({"a": w, "b": w, "row": w[1], "column": w[:, 2], "wide": w[:1].expand(3, 4)}))
    assert torch.equal(got["a"], w) and torch.equal(got["b"], w) and torch.equal(got["column"], w[:, 2])
    assert torch.equal(got["row"], w[1]) and torch.equal(got["wide"], w[:1].expand(3, 4))


def test_one_update_after_a_restore_is_that_without_it():
    def update(net, adam):
        net(torch.randn(2, 3, 8, 8)).square().sum().backward()
        adam.step()
        return {"net": dict(net.state_dict()), "adam": adam.state_dict()}

    net, adam = trained()
    net.zero_grad()
    kept = unpack(pack(freeze({"net": net, "adam": adam}, 3)))
    whole = update(net, adam)
    fresh = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    other = torch.optim.Adam(fresh.parameters(), 1.0)
    torch.manual_seed(99)
    assert thaw(kept, {"net": fresh, "adam": other}, "loop") == 3
    again = update(fresh, other)
    assert same(again["net"], whole["net"]) and same(again["adam"]["state"], whole["adam"]["state"])


@pytest.mark.parametrize("thing", [object(), {1, 2}, b"bytes", lambda: 0])
def test_what_cannot_be_kept_is_named(thing):
    with pytest.raises(RunError, match="cannot be kept"):
        pack({"thing": thing})


def test_a_state_of_other_things_is_refused_in_one_line():
    net, adam = trained()
    kept = unpack(pack(freeze({"net": net, "adam": adam}, 3)))
    wider = torch.nn.Sequential(torch.nn.Conv2d(3, 9, 3), torch.nn.BatchNorm2d(9))
    for things in ({"net": wider, "adam": adam}, {"net": net}, {"net": net, "ema": adam}, {"net": adam, "adam": net}):
        with pytest.raises(RunError, match="does not fit") as caught:
            thaw(kept, things, "loop")
        assert "\n" not in str(caught.value)


def test_every_cut_shows():
    whole = pack({"w": torch.randn(5), "step": 3})
    for n in [*range(0, len(whole), 7), len(whole) - 1]:
        with pytest.raises(RunError, match="cut short"):
            unpack(whole[:n])
    for i in (0, 70, len(whole) - 1):
        with pytest.raises(RunError, match="cut short or changed"):
            unpack(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])


# ---------------------------------------------------------------------- the run's store


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "private" / "checkpoints").iterdir())


def test_the_last_two_are_kept_and_a_cut_one_is_passed_over(tmp_path):
    store, net = RunStore(tmp_path), torch.nn.Linear(2, 2)
    for step in (1, 2, 9, 10):
        store.keep_checkpoint("a", step, {"net": net}, last=True)
    assert files(tmp_path) == ["a.000000009.ckpt", "a.000000010.ckpt"]
    newest = tmp_path / "private" / "checkpoints" / "a.000000010.ckpt"
    assert store.checkpoint("a")["step"] == 10
    newest.write_bytes(newest.read_bytes()[:-1])
    assert store.checkpoint("a")["step"] == 9
    (tmp_path / "private" / "checkpoints" / "a.000000009.ckpt").write_bytes(b"")
    assert store.checkpoint("a") is None and store.checkpoint("b") is None
    assert newest.stat().st_mode & 0o777 == 0o600


def test_writing_takes_about_one_percent_of_the_time(tmp_path, monkeypatch):
    """First after one step; then the time that it took decides, whatever a step takes."""
    store, net, clock, real = RunStore(tmp_path), torch.nn.Linear(2, 2), [0.0], store_module.write_bytes

    def slow(*a, **k):
        clock[0] += 0.5
        real(*a, **k)

    monkeypatch.setattr(store_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(store_module, "write_bytes", slow)
    spent, steps = 0.0, 2000
    for step in range(steps):
        clock[0] += 0.25
        before = clock[0]
        store.keep_checkpoint("a", step + 1, {"net": net}, last=step + 1 == steps)
        spent += clock[0] - before
        if step == 0:
            assert files(tmp_path) == ["a.000000001.ckpt"]
    assert 0.005 < spent / clock[0] < 0.012
    assert files(tmp_path)[-1] == f"a.{steps:09d}.ckpt"


def test_a_killed_writer_leaves_a_whole_checkpoint(tmp_path, monkeypatch):
    net = torch.nn.Linear(20, 20)
    RunStore(tmp_path).keep_checkpoint("a", 1, {"net": net}, last=True)
    for call in ("fsync", "replace"):

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        with monkeypatch.context() as m:
            m.setattr(os, call, die)
            status, _ = alone(lambda: RunStore(tmp_path).keep_checkpoint("a", 2, {"net": net}, last=True), tmp_path)
        assert status == -signal.SIGKILL
        assert files(tmp_path) == [".a.000000002.ckpt.partial", "a.000000001.ckpt"]
        assert RunStore(tmp_path).checkpoint("a")["step"] == 1
        assert files(tmp_path) == ["a.000000001.ckpt"]


def test_a_full_disk_is_one_line_and_leaves_the_older_ones(tmp_path):
    """A real limit of the system: no file may grow beyond 8 KB."""
    RunStore(tmp_path).keep_checkpoint("a", 1, {"net": torch.nn.Linear(2, 2)}, last=True)

    def write():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
        RunStore(tmp_path).keep_checkpoint("a", 2, {"net": torch.nn.Linear(200, 200)}, last=True)

    status, said = alone(write, tmp_path)
    assert status == 1 and said.startswith("RunError: cannot write a.000000002.ckpt: File too large; free some space")
    assert "\n" not in said and files(tmp_path) == ["a.000000001.ckpt"]


def test_without_a_folder_nothing_is_kept():
    store = RunStore(None)
    store.keep_checkpoint("a", 1, {"net": object()}, last=True)
    assert store.checkpoint("a") is None and store.answer("a") is None


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "private").write_text("in the way")
    with pytest.raises(RunError, match="choose another folder") as caught:
        RunStore(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b"one\n", b"one\n"), (b"one\ntw", b"one\n"), (b"on", b""), (b"a\nb\n\0", b"a\nb\n")],
)
def test_a_line_without_an_end_is_dropped(tmp_path, before, after):
    path = tmp_path / "lines"
    drop_torn_line(path)
    assert not path.exists()
    path.write_bytes(before)
    drop_torn_line(path)
    assert path.read_bytes() == after


def test_a_run_goes_on_with_the_version_that_began_it_only(tmp_path: Path) -> None:
    """Its receipt names one version, and claims of some versions are too small."""
    import json

    store = RunStore(tmp_path)
    store.data_key(None, started=False)
    store.same_data("ab")
    assert RunStore(tmp_path).data_key(None, started=True)
    path = tmp_path / "private" / "data.json"
    kept = json.loads(path.read_text())
    for other in (kept | {"version": "0.1.0"}, {k: v for k, v in kept.items() if k != "version"}):
        path.write_text(json.dumps(other))
        with pytest.raises(RunError, match="started by another version"):
            RunStore(tmp_path).data_key(None, started=True)
