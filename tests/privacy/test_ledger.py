"""The ledger: any change of a line shows, and every line is on disk before `append` returns."""

from __future__ import annotations

import errno
import json
import os

import pytest

from veilset.core.errors import LedgerError, RunError
from veilset.core.io import canonical
from veilset.privacy.ledger import FORMAT, GENESIS, Ledger, _seal, parse


def charge(release="a", steps=1, part=None, noise=3.0):
    return {
        "release": release, "part": part, "mechanism": "gaussian", "sensitivity": 1.0, "noise_multiplier": noise,
        "sample_rate": 1.0, "steps": steps,
    }  # fmt: skip


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    out = Ledger(tmp_path / "ledger.jsonl")
    out.append("open", format=FORMAT, mode="research")
    for steps in (1, 2, 3):
        out.append("charge", **charge(steps=steps))
    out.append("close")
    return out


def lines(ledger: Ledger) -> list[bytes]:
    return ledger.to_bytes().splitlines(keepends=True)


def test_file_and_memory_agree_and_chain(ledger, tmp_path):
    raw = (tmp_path / "ledger.jsonl").read_bytes()
    assert raw == ledger.to_bytes()
    again = Ledger(tmp_path / "ledger.jsonl")
    assert (again.lines, again.head) == (ledger.lines, ledger.head)
    assert ledger.lines[0]["prev"] == GENESIS
    for before, after in zip(ledger.lines, ledger.lines[1:], strict=False):
        assert after["prev"] == before["hash"]
    assert ledger.steps("a", None) == 6
    assert [s.steps for s in ledger.spent()] == [1, 2, 3]
    again.append("inspect", purpose="x")
    assert len(Ledger(tmp_path / "ledger.jsonl").lines) == 6


@pytest.mark.parametrize("gone", [0, 1, 2, 3])
def test_a_dropped_line_shows(ledger, gone):
    kept = [line for i, line in enumerate(lines(ledger)) if i != gone]
    with pytest.raises(LedgerError, match=f"line {gone}"):
        list(parse(b"".join(kept)))


@pytest.mark.parametrize(("i", "j"), [(1, 2), (0, 1), (2, 4)])
def test_swapped_lines_show(ledger, i, j):
    moved = lines(ledger)
    moved[i], moved[j] = moved[j], moved[i]
    with pytest.raises(LedgerError, match=f"line {i}"):
        list(parse(b"".join(moved)))


def test_a_line_added_or_doubled_shows(ledger):
    all_lines = lines(ledger)
    with pytest.raises(LedgerError, match="line 2"):
        list(parse(b"".join([*all_lines[:2], all_lines[1], *all_lines[2:]])))
    forged = canonical(_seal(5, GENESIS, {"kind": "charge", **charge()})) + b"\n"
    with pytest.raises(LedgerError, match="line 5"):
        list(parse(b"".join(all_lines) + forged))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"steps":2', b'"steps":1'),
        (b'"noise_multiplier":3.0', b'"noise_multiplier":2.0'),
        (b'"sample_rate":1.0', b'"sample_rate":0.1'),
        (b'"release":"a"', b'"release":"b"'),
        (b'"mode":"research"', b'"mode":"release"'),
        (b'"seq":3', b'"seq":4'),
        (b'"kind":"close"', b'"kind":"inspect"'),
        (b'"steps":2', b'"extra":0,"steps":2'),
    ],
)
def test_every_edit_shows(ledger, old, new):
    raw = ledger.to_bytes()
    assert old in raw
    with pytest.raises(LedgerError):
        list(parse(raw.replace(old, new, 1)))


def test_any_changed_byte_of_the_text_shows(ledger):
    raw = ledger.to_bytes()
    for i in range(0, len(raw), 3):
        if raw[i] in b"\n":
            continue
        changed = raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :]
        with pytest.raises(LedgerError):
            list(parse(changed))


def test_a_line_resealed_without_the_rest_shows(ledger):
    all_lines = lines(ledger)
    line = json.loads(all_lines[2])
    body = line["body"] | {"noise_multiplier": 99.0}
    all_lines[2] = canonical(_seal(2, line["prev"], body)) + b"\n"
    with pytest.raises(LedgerError, match="line 3"):
        list(parse(b"".join(all_lines)))


@pytest.mark.parametrize("cut", [1, 2, 30, 150])
def test_a_torn_end_shows(ledger, cut, tmp_path):
    with pytest.raises(LedgerError):
        list(parse(ledger.to_bytes()[:-cut]))


@pytest.mark.parametrize("raw", [b"x\n", b"{}\n", b"[]\n", b"null\n", b'"a"\n', b"\xff\xfe\n", b"\n", b"{\n"])
def test_what_is_no_ledger_is_refused(raw):
    with pytest.raises(LedgerError, match="line 0"):
        list(parse(raw))


def test_nan_cannot_stand_in_a_ledger(ledger):
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("charge", **charge(noise=float("nan")))
    line = ledger.to_bytes().replace(b'"noise_multiplier":3.0', b'"noise_multiplier":NaN')
    with pytest.raises(LedgerError):
        list(parse(line))


def test_another_format_is_refused():
    other = Ledger()
    other.append("open", format="veilset-ledger/99")
    with pytest.raises(LedgerError, match="version that wrote it"):
        list(parse(other.to_bytes()))
    headless = Ledger()
    headless.append("charge", **charge())
    with pytest.raises(LedgerError):
        list(parse(headless.to_bytes()))


def test_dropped_last_lines_leave_a_valid_chain_and_so_need_the_receipt(ledger):
    """The chain alone cannot show a missing end; `verify` compares length and head with the receipt."""
    assert len(list(parse(b"".join(lines(ledger)[:3])))) == 3


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_full_disk_leaves_whole_lines(ledger, tmp_path, monkeypatch, call):
    path = tmp_path / "ledger.jsonl"
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        import builtins

        real = builtins.open

        def half(name, mode="r", *a, **k):
            f = real(name, mode, *a, **k)
            if mode == "ab":
                os.write(f.fileno(), b'{"body":{"kind"')  # a part reaches the disk, then it is full
                f.flush = full
            return f

        monkeypatch.setattr(builtins, "open", half)
    with pytest.raises(RunError, match="No space left"):
        ledger.append("charge", **charge(steps=9))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert len(ledger.lines) == 5
    ledger.append("charge", **charge(steps=9))
    assert len(Ledger(path).lines) == 6
