"""Which claims of earlier versions are too small, which are not known, and that `verify` says so."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import pytest
import torch
from sets import gate_for, linear_loss, linear_params, private

import veilset
from veilset.cli.main import main
from veilset.core.facts import versions
from veilset.core.io import canonical, sha256
from veilset.core.signing import new_key
from veilset.methods.catalogue import BUILT_IN, TEACHERS
from veilset.privacy.known_faults import DRAWN, MENDED, known_fault
from veilset.privacy.plan import Release
from veilset.privacy.receipt import make_receipt, verify, write_release

torch.set_num_threads(1)
GRAD = {"releases": [{"name": "a", "verb": "sum"}, {"name": "b", "verb": "grad"}]}
AFFECTED = {"dp-diffusion", "dp-feta", "dp-cvae", "vae-gm"}


def facts(method="dp-gan", version="0.1.0", **config):
    return {"method": method, "versions": {"veilset": version}, "config": config}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A release with one clipped gradient, made by this version."""
    gate = gate_for(private(), Release(name="g", verb="grad"), seed=None)
    gate.grad("g", linear_loss, linear_params(gate.info))
    ledger = gate.close()
    home = tmp_path_factory.mktemp("old") / "r"
    home.mkdir()
    (home / "answer.txt").write_text("x")
    write_release(home, make_receipt(ledger, gate.plan, "dp-gan", {"fakes": "paired"}), ledger.to_bytes())
    return home


def stated(folder, **changes):
    """Rewrite facts of the receipt, with a new seal: what an old version would have written."""
    said = json.loads((folder / "receipt.json").read_text()) | changes
    said["seal"] = sha256(canonical({k: v for k, v in said.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(said))
    return folder


def test_the_table_names_every_method_of_the_first_version():
    later = {"tiny", "private-evolution", "gs-wgan", "dp-gan-dpac", "pate-gan", "g-pate", "datalens", "dpmi"}
    assert {*BUILT_IN, *TEACHERS} - later <= set(DRAWN)
    assert {name for name, drawn in DRAWN.items() if drawn} == AFFECTED


def test_this_version_has_no_known_fault_and_names_itself():
    """The code that runs is named, not what an installer noted of an earlier one."""
    assert versions()["veilset"] == veilset.__version__
    assert tuple(map(int, veilset.__version__.split(".")[:3])) >= MENDED
    assert known_fault({"method": "dp-gan", "versions": versions(), "config": {}}, GRAD) == ""


def test_an_installers_note_is_not_believed(monkeypatch):
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0.7" if name == "veilset" else real(name))
    assert versions()["veilset"] == veilset.__version__


@pytest.mark.parametrize("method", sorted(DRAWN))
def test_methods_of_old_versions(method):
    assert bool(known_fault(facts(method, fakes="public"), GRAD)) is (method in AFFECTED)
    assert "true epsilon is larger" in (known_fault(facts(method, fakes="paired"), GRAD) or "true epsilon is larger")
    assert known_fault(facts(method, "0.2.0", fakes="paired"), GRAD) == ""


def test_a_conditional_gan_is_affected_where_it_drew_generated_images():
    assert "a generated image" in known_fault(facts("dp-cgan", fakes="paired"), GRAD)
    assert known_fault(facts("dp-cgan", fakes="public"), GRAD) == ""
    assert known_fault(facts("dp-cgan"), GRAD)  # not stated, so not known to be public


def test_plug_ins_that_asked_for_gradients_are_not_known():
    assert "not known whether" in known_fault(facts("portraits"), GRAD)
    assert known_fault(facts("portraits"), {"releases": GRAD["releases"][:1]}) == ""
    assert known_fault(facts("portraits", "0.2.0"), GRAD) == ""


@pytest.mark.parametrize(
    "version", [None, 7, "", "new", "not installed", "0.1", "0.1.99", "9" * 5000, "0.2.0.0", "v0.3.0"]
)
def test_a_version_that_cannot_be_read_counts_as_old(version):
    assert known_fault(facts(version=version), GRAD)
    assert known_fault({"method": "dp-gan", "config": {}, "versions": version}, GRAD)
    assert known_fault({"method": "dp-gan", "config": {}}, GRAD)


@pytest.mark.parametrize("version", ["0.2.0", "0.2.1", "0.10.0", "1.0.0", "0.2.0rc1"])
def test_versions_that_are_mended(version):
    assert known_fault(facts(version=version), GRAD) == ""


@pytest.mark.parametrize(("method", "words"), [("dp-gan", "KNOWN TO BE TOO SMALL"), ("portraits", "NOT KNOWN TO HOLD")])
def test_verify_says_so_and_ends_with_status_three(folder, tmp_path, capsys, method, words):
    assert verify(folder).release and main(["verify", str(folder)]) == 0
    copy = tmp_path / "r"
    shutil.copytree(folder, copy)
    stated(copy, method=method, versions={"veilset": "0.1.0"})
    got = verify(copy)
    assert got.recomputes and not got.ok and not got.release
    capsys.readouterr()
    assert main(["verify", str(copy)]) == 3
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{words}: ") and "0.2.0" in last and "VERIFIED" not in last
    assert main(["verify", str(copy), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["release"] is False and said["ok"] is False and said["known_fault"] == got.known_fault != ""
    (copy / "answer.txt").write_text("y")  # what does not even recompute is told as that
    assert main(["verify", str(copy)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "NOT VERIFIED"


def test_nothing_stands_on_a_claim_with_a_known_fault(folder, tmp_path, capsys):
    copy = tmp_path / "r"
    shutil.copytree(folder, copy)
    stated(copy, versions={"veilset": "0.1.0"})
    new_key(tmp_path / "key")
    for command in (["sign", str(copy), "--key", str(tmp_path / "key")], ["audit", str(copy)]):
        assert main(command) != 0
        seen = capsys.readouterr()
        assert seen.out == "" and len(seen.err.splitlines()) == 1
    assert not (copy / "receipt.sig.json").exists()
    assert main(["report", str(copy), "--out", str(tmp_path / "p.html")]) == 0
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "KNOWN TO BE TOO SMALL" in page and 'class="verdict bad"' in page and "What is promised" not in page
