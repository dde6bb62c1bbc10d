"""Receipts and their check: whatever is changed after the fact, `verify` says so; it never crashes."""

from __future__ import annotations

import json
import math
import shutil
import subprocess

import pytest
import torch
from sets import facts, gate_for, pixels, private

from veilset.core.errors import ConfigError, RunError
from veilset.core.io import canonical, sha256, sha256_file
from veilset.core.signing import new_key, sign
from veilset.privacy.ledger import Ledger, _seal, parse
from veilset.privacy.plan import Release
from veilset.privacy.receipt import make_receipt, read_receipt, verify, write_release


def release_into(folder, *, seed=None, epsilon=1.0, inspect=False):
    """A small release folder: two files, a ledger and a receipt."""
    gate = gate_for(private(), Release(name="a"), Release(name="c", partition="class"), seed=seed, epsilon=epsilon)
    answer = gate.sum("a", pixels)
    for part in range(3):
        gate.sum("c", pixels, part=part)
    if inspect:
        gate.inspect("panel")
    ledger = gate.close()
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "0.bin").write_bytes(answer.numpy().tobytes())
    (folder / "labels.csv").write_text("file,label\n")
    write_release(folder, make_receipt(ledger, gate.plan, "tester", {"width": 3}), ledger.to_bytes())
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return release_into(tmp_path_factory.mktemp("made") / "r")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "r")


def failing(folder, *a) -> set[str]:
    """The names of the checks that fail."""
    got = verify(folder, *a)
    assert got.ok is (not [c for c in got.checks if not c["ok"]])
    if not got.ok:
        assert not got.release
    return {c["name"] for c in got.checks if not c["ok"]}


def rewrite_ledger(folder, change):
    """Re-seal the whole chain after `change(bodies)`, and make the receipt fit: what an able forger would do."""
    bodies = [line["body"] for line in parse((folder / "ledger.jsonl").read_bytes())]
    changed = change(bodies)
    bodies = bodies if changed is None else changed
    forged = Ledger()
    for i, body in enumerate(bodies):
        forged.lines.append(_seal(i, forged.head, body))
    (folder / "ledger.jsonl").write_bytes(forged.to_bytes())
    sums = (folder / "SHA256SUMS").read_text().splitlines()
    digest = sha256_file(folder / "ledger.jsonl")
    sums = [f"{digest}  ledger.jsonl" if s.endswith("  ledger.jsonl") else s for s in sums]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    edit_receipt(
        folder,
        ledger_lines=len(forged.lines),
        ledger_head=forged.head,
        ledger_sha256=digest,
        files_sha256=sha256_file(folder / "SHA256SUMS"),
    )


def edit_receipt(folder, seal=True, **changes):
    """Change facts in the receipt, and its seal with them."""
    path = folder / "receipt.json"
    said = json.loads(path.read_text()) | changes
    if seal:
        said["seal"] = sha256(canonical({k: v for k, v in said.items() if k != "seal"}))
    path.write_text(json.dumps(said))


def test_an_untouched_release_verifies(folder):
    got = verify(folder)
    assert got.ok and got.release and got.stamp == ""
    assert [c["name"] for c in got.checks] == ["receipt", "chain", "plan", "epsilon", "files"]
    assert 1 - 1e-6 < got.epsilon <= 1 + 1e-9
    assert got.delta == 1e-5
    assert "VERIFIED: epsilon = 1" in str(got)
    assert json.loads(json.dumps(got.to_json()))["ok"] is True


def test_the_hash_list_is_checkable_by_others(folder):
    done = subprocess.run(["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "labels.csv").write_text("other\n")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True).returncode != 0


@pytest.mark.parametrize("line", range(6))
def test_a_ledger_line_dropped(folder, line):
    path = folder / "ledger.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:line] + kept[line + 1 :]))
    assert failing(folder) == {"chain"}


def test_ledger_lines_swapped_edited_added_or_cut(folder):
    path = folder / "ledger.jsonl"
    raw = path.read_bytes()
    rows = raw.splitlines(keepends=True)
    assert len(rows) == 6
    for forged in (
        b"".join([rows[0], rows[2], rows[1], *rows[3:]]),
        raw.replace(b'"steps":1', b'"steps":2', 1),
        raw + rows[-1],
        raw[:-5],
        raw[:-1],
        raw + b"\n",
        b"",
    ):
        path.write_bytes(forged)
        assert failing(folder) == {"chain"}
    path.write_bytes(b"".join(rows[:3]))  # a valid chain: only the receipt knows that the end is gone
    assert "added, dropped or replaced" in verify(folder).checks[-1]["detail"]
    path.unlink()
    assert failing(folder) == {"chain"}


@pytest.mark.parametrize("epsilon", [0.5, 0.999, 1.2, float("nan"), -1, 0, "1", None])
def test_a_claim_that_does_not_recompute(folder, epsilon):
    edit_receipt(folder, seal=epsilon == epsilon, epsilon=epsilon)
    assert failing(folder) == {"receipt" if isinstance(epsilon, str) or epsilon != epsilon else "epsilon"}


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("epsilon_rdp", 0.1),
        ("delta", 1e-9),
        ("unit", "one hospital"),
        ("relation", "replace one unit"),
        ("mode", "research"),
        ("stamp", "fine"),
        ("inspected", True),
        ("release", False),
        ("generator", "dice"),
        ("max_images_per_unit", 7),
        ("epsilon_budget", 0.1),
        ("data", {"name": "other"}),
        ("ledger_lines", 5),
        ("ledger_head", "0" * 64),
        ("files_sha256", "0" * 64),
        ("format", "veilset-receipt/9"),
    ],
)
def test_a_fact_that_the_ledger_contradicts(folder, fact, value):
    edit_receipt(folder, **{fact: value})
    assert failing(folder)


@pytest.mark.parametrize(
    ("fact", "value"), [("method", "other"), ("config", {}), ("versions", {}), ("accountant", "guess")]
)
def test_any_edited_fact_breaks_the_seal(folder, fact, value):
    edit_receipt(folder, seal=False, **{fact: value})
    assert failing(folder) == {"receipt"}


def test_files_changed_missing_or_extra(folder):
    victim = folder / "images" / "0.bin"
    raw = victim.read_bytes()
    victim.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    assert failing(folder) == {"files"}
    victim.unlink()
    assert "is missing" in verify(folder).checks[-1]["detail"]
    victim.write_bytes(raw)
    assert not failing(folder)
    for extra in ("notes.txt", "images/1.bin", ".hidden"):
        (folder / extra).write_text("x")
        assert "not covered" in verify(folder).checks[-1]["detail"]
        (folder / extra).unlink()
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(sums.read_text().splitlines(keepends=True)[1:]))
    assert failing(folder) == {"files"}


# ---------------------------------------------------------------------- forged chains that are whole


def edited(index, **changes):
    def change(bodies):
        bodies[index] |= changes

    return change


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (edited(1, noise_multiplier=1.0), "plan"),
        (edited(1, sensitivity=0.5), "plan"),
        (edited(1, sample_rate=0.01), "plan"),
        (edited(1, release="b"), "plan"),
        (edited(1, steps=2), "plan"),
        (edited(1, steps=0), "plan"),
        (edited(1, steps=-1), "plan"),
        (edited(1, steps=0.5), "plan"),
        (edited(1, part=0), "plan"),
        (edited(2, part=None), "plan"),
        (edited(2, part=3), "plan"),
        (edited(2, part=1), "plan"),
        (edited(1, mechanism="laplace"), "plan"),
        (edited(1, noise_multiplier=1e-200), "plan"),
        (edited(1, noise_multiplier="3"), "plan"),
        (edited(0, mode="research"), "plan"),
        (lambda bodies: bodies[:-1], "chain"),  # no closing line: the end was dropped
        (lambda bodies: [], "chain"),
        (lambda bodies: [*bodies[:2], bodies[1], *bodies[2:]], "plan"),
        (lambda bodies: [*bodies[:-1], {"kind": "inspect", "purpose": "x"}, bodies[-1]], "plan"),
    ],
)
def test_a_forged_chain_must_still_keep_to_its_plan(folder, change, fails):
    rewrite_ledger(folder, change)
    assert fails in failing(folder)


def test_a_forged_plan_with_less_noise_does_not_give_the_claim(folder):
    def quieter(bodies):
        for r in bodies[0]["plan"]["releases"]:
            r["noise_multiplier"] /= 2
        for b in bodies[1:-1]:
            b["noise_multiplier"] /= 2

    rewrite_ledger(folder, quieter)
    assert failing(folder) == {"epsilon"}


def test_a_forged_budget_does_not_help(folder):
    def change(bodies):
        bodies[0]["plan"]["privacy"]["epsilon"] = 0.5

    rewrite_ledger(folder, change)
    assert failing(folder) == {"plan", "epsilon"}


def test_a_delta_above_one_in_n_needs_its_permission(folder):
    def change(bodies):
        bodies[0]["plan"]["info"]["units"] = 10**6

    rewrite_ledger(folder, change)
    assert "epsilon" in failing(folder)


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b'{"format": 3}', b"\xff\xff", b'"x"', b"7"]
)
def test_a_broken_receipt_is_an_answer_and_not_a_crash(folder, raw):
    (folder / "receipt.json").write_bytes(raw)
    assert failing(folder) == {"receipt"}


def test_a_broken_start_of_the_ledger_is_an_answer(folder):
    def change(bodies):
        bodies[0]["plan"] = {"releases": "none"}

    rewrite_ledger(folder, change)
    assert {"plan", "epsilon"} <= failing(folder)


def test_no_folder_at_all(tmp_path):
    assert failing(tmp_path / "nothing") == {"receipt"}
    with pytest.raises(RunError):
        read_receipt(tmp_path)
    (tmp_path / "receipt.json").write_text("[]")
    with pytest.raises(ConfigError):
        read_receipt(tmp_path)


# ---------------------------------------------------------------------- stamps


def test_research_runs_recompute_but_are_stamped(tmp_path):
    folder = release_into(tmp_path / "r", seed=0)
    got = verify(folder)
    assert got.ok and not got.release and "NOT A RELEASE" in got.stamp
    assert "RECOMPUTES, BUT NOT A RELEASE" in str(got)
    edit_receipt(folder, stamp="", release=True, mode="release")
    assert "plan" in failing(folder)


def test_a_receipt_names_the_relation_that_was_accounted(made):
    """Under replace-one the same noise would give a larger epsilon; the words are part of the claim."""
    assert read_receipt(made).relation == "add or remove one unit"
    assert "relation  add or remove one unit" in str(read_receipt(made))


@pytest.mark.parametrize("bound", [0.01, 1.0, 40.0])
def test_a_claim_holds_for_any_bound(bound):
    """The accountant gets the noise multiplier: noise / bound, whatever the bound is."""
    gate = gate_for(private(), Release(name="a", bound=bound))
    gate.sum("a", pixels)
    assert make_receipt(gate.close(), gate.plan, "tester", {}).epsilon == pytest.approx(1.0, rel=1e-6)


def test_an_inspected_run_is_no_release(tmp_path):
    folder = release_into(tmp_path / "r", seed=0, inspect=True)
    assert read_receipt(folder).inspected and not verify(folder).release
    edit_receipt(folder, inspected=False)
    assert "plan" in failing(folder)


@pytest.mark.parametrize("seed", [None, 0])
def test_row_37_without_noise_there_is_no_receipt(tmp_path, seed):
    folder = release_into(tmp_path / "r", seed=seed, epsilon=math.inf)
    assert (folder / "NON-PRIVATE.json").exists() and not (folder / "receipt.json").exists()
    got = verify(folder)
    assert not got.ok and not got.release and "NON-PRIVATE" in got.stamp
    assert read_receipt(folder).epsilon is None
    # Renaming the stamp, and lending it a number, gives no receipt either.
    (folder / "NON-PRIVATE.json").rename(folder / "receipt.json")
    for changes in ({}, {"epsilon": 1.0, "epsilon_rdp": 1.0, "stamp": "", "release": True}):
        edit_receipt(folder, **changes)
        assert "epsilon" in failing(folder)


def test_row_33_a_release_holds_listed_files_only(folder):
    """The bundle is a whitelist, and what it says about the run is numbers of the plan, never of a record."""
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {"images/0.bin", "labels.csv", "ledger.jsonl", "receipt.json", "SHA256SUMS"}
    kinds = {json.loads(line)["body"]["kind"] for line in (folder / "ledger.jsonl").read_text().splitlines()}
    assert kinds == {"open", "charge", "close"}
    for line in (folder / "ledger.jsonl").read_text().splitlines():
        body = json.loads(line)["body"]
        if body["kind"] == "charge":
            known = {"kind", "release", "part", "mechanism", "sensitivity", "noise_multiplier", "sample_rate", "steps"}
            assert set(body) == known
    said = read_receipt(folder).facts
    known = (
        "format epsilon delta epsilon_rdp accountant epsilon_budget relation unit max_images_per_unit large_delta "
        "mode release stamp inspected generator method config data ledger_lines ledger_head ledger_sha256 versions "
        "processor selftest run account stream files files_sha256 seal"
    )
    assert set(said) == set(known.split())


def test_row_33_ledgers_of_neighbours_are_equal():
    """One record more, or other pixels: not a byte of what is published about the run changes."""
    heads = []
    for n, seed in ((50, 0), (49, 0), (50, 7)):
        gate = gate_for(private(n, seed=seed), Release(name="a"), Release(name="c", partition="class"))
        gate.sum("a", pixels)
        gate.sum("c", lambda x, y: torch.ones(3), part=0)
        heads.append(gate.close().head)
    assert len(set(heads)) == 1


def test_a_large_delta_is_shown(tmp_path):
    from veilset.privacy.gate import Gate
    from veilset.privacy.plan import Plan
    from veilset.privacy.spec import Privacy

    info = facts()
    priced = Plan((Release(name="a"),)).price(Privacy(1.0, 0.05, allow_large_delta=True), info)
    gate = Gate(private(), priced)
    gate.sum("a", pixels)
    receipt = make_receipt(gate.close(), priced, "tester", {})
    assert receipt.large_delta is True
    write_release(tmp_path, receipt, gate.ledger.to_bytes())
    assert verify(tmp_path).ok


# ---------------------------------------------------------------------- signatures


def test_signatures(folder, tmp_path):
    key, other = tmp_path / "key", tmp_path / "other"
    mine, theirs = new_key(key), new_key(other)
    assert key.stat().st_mode & 0o777 == 0o600
    assert failing(folder, f"{key}.pub") == {"signature"}  # unsigned
    signature = folder / "receipt.sig.json"
    assert sign(folder / "receipt.json", key, signature) == mine != theirs
    assert not failing(folder)
    assert not failing(folder, f"{key}.pub")
    assert verify(folder).fingerprint == mine
    assert failing(folder, f"{other}.pub") == {"signature"}
    whole = (folder / "receipt.json").read_bytes()
    edit_receipt(folder, method="other")  # with a fitting seal: only the signature notices
    assert failing(folder) == {"signature"}
    (folder / "receipt.json").write_bytes(whole)
    for wrong in (b"{}", b"[]", b'{"public_key": "zz", "signature": ""}', b"x"):
        signature.write_bytes(wrong)
        assert failing(folder) == {"signature"}


def test_a_signature_defeats_a_rewrite_of_the_whole_chain(folder, tmp_path):
    new_key(tmp_path / "key")
    sign(folder / "receipt.json", tmp_path / "key", folder / "receipt.sig.json")
    rewrite_ledger(folder, lambda bodies: [bodies[0], bodies[-1]])
    edit_receipt(folder, epsilon=0.0, epsilon_rdp=0.0)
    assert failing(folder) == {"signature"}
    (folder / "receipt.sig.json").unlink()
    assert not failing(folder)  # without it the rewrite is whole: this is what the threat model says
    assert failing(folder, tmp_path / "key.pub") == {"signature"}


def test_keys_are_not_overwritten_and_must_be_ed25519(folder, tmp_path):
    new_key(tmp_path / "key")
    with pytest.raises(RunError, match="never overwritten"):
        new_key(tmp_path / "key")
    for name, raw in (("junk", b"junk"), ("key.pub", None)):
        path = tmp_path / name
        if raw:
            path.write_bytes(raw)
        with pytest.raises(ConfigError, match="private key"):
            sign(folder / "receipt.json", path, folder / "receipt.sig.json")
    (tmp_path / "notakey").write_text("x")
    assert failing(folder, tmp_path / "notakey") == {"signature"}
