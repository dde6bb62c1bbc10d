"""The commands that others rely on: names, keys, one JSON object on stdout, exit status."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import veilset as vs

Run = Callable[..., Any]
SOURCE = Path(__file__).parents[2] / "src"
BASE = ("tiny", "--data", "digits", "--epsilon", "2")
RELEASE = {"name", "mechanism", "noise_multiplier", "sample_rate", "steps", "epsilon_share", "epsilon_alone"}
METRIC = {"name", "value", "spread", "unit", "better", "reads_private"}


def test_plan_keys(veilset: Run) -> None:
    facts = veilset("plan", *BASE, "--delta", "1e-6", "--json").json
    assert {"epsilon", "delta", "seconds", "memory_mb", "releases"} <= set(facts)
    assert facts["delta"] == 1e-6 and 1.99 < facts["epsilon"] <= 2
    (release,) = facts["releases"]
    assert set(release) >= RELEASE
    assert release["epsilon_share"] == 1 and release["epsilon_alone"] == pytest.approx(facts["epsilon"])


def test_plan_for_people(veilset: Run) -> None:
    outcome = veilset("plan", *BASE)
    assert outcome.status == 0 and "mean" in outcome.out and "no record has been read" in outcome.out
    assert "10 declared classes: one without private images" in outcome.out


def test_plan_reads_no_record(veilset: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from veilset.data.public import DigitsSource

    monkeypatch.setattr(DigitsSource, "scan", lambda *a, **k: pytest.fail("a record was read"))
    assert veilset("plan", *BASE, "--json").status == 0


def test_parameters_reach_the_method(veilset: Run) -> None:
    for words in (("--bound", "7"), ("--bound=7",)):
        assert veilset("plan", *BASE, *words, "--json").json["releases"][0]["bound"] == 7


def test_a_flag_needs_no_value(veilset: Run) -> None:
    command = ("plan", "private-set", "--data", "digits", "--epsilon", "1", "--json")
    given, without, false = (veilset(*command, *words).json for words in (["--prior"], [], ["--prior", "false"]))
    assert given == veilset(*command, "--prior", "true", "--per-class", "10").json
    assert given != without == false
    veilset(*command, "--prior", "maybe").refused("prior = 'maybe': must be true or false")


def test_a_large_delta_is_shown(veilset: Run, tmp_path: Path) -> None:
    fit = ("fit", *BASE, "--delta", "0.01", "--allow-large-delta", "--out", tmp_path / "run", "--json")
    assert veilset(*fit).json["receipt"]["large_delta"] is True


def test_fit_keys_and_folder(veilset: Run, tmp_path: Path) -> None:
    receipt = veilset("fit", *BASE, "--out", tmp_path / "run", "--json").json["receipt"]
    assert {"epsilon", "delta", "relation", "unit", "ledger_sha256"} <= set(receipt)
    assert receipt == json.loads((tmp_path / "run" / "receipt.json").read_text())
    assert receipt["relation"] == "add or remove one unit" and receipt["unit"] == "one image"
    files = {"model.safetensors", "model.json", "ledger.jsonl", "receipt.json", "SHA256SUMS", "private"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == files
    assert (tmp_path / "run" / "private").stat().st_mode & 0o077 == 0
    again = veilset("fit", *BASE, "--out", tmp_path / "run", "--resume", "--json")
    assert again.status == 0 and again.json["receipt"] == receipt


def test_fit_for_people(veilset: Run, tmp_path: Path) -> None:
    outcome = veilset("fit", *BASE, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert "epsilon" in outcome.out and "no record has been read" in outcome.err


def test_fit_says_what_the_answers_decided(veilset: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert veilset("fit", *BASE, "--out", tmp_path / "silent", "--json").json["notes"] == []
    monkeypatch.setattr(vs.Synthesizer, "_notes", lambda self, state: (f"keeps {len(state)} tensors", "is small"))
    fit = ("fit", *BASE, "--out", tmp_path / "run")
    lines = veilset(*fit).out.splitlines()
    count = len(vs.open_model(tmp_path / "run")._state)
    assert lines[-3:] == [f"note      keeps {count} tensors", "note      is small", f"run       {tmp_path / 'run'}"]
    assert veilset(*fit, "--resume", "--json").json["notes"] == [f"keeps {count} tensors", "is small"]


def test_research_mode_repeats_and_is_stamped(veilset: Run, made: Path, tmp_path: Path) -> None:
    receipt = veilset("fit", *BASE, "--seed", "1", "--out", tmp_path / "run", "--json").json["receipt"]
    assert receipt["stamp"].startswith("NOT A RELEASE") and receipt["release"] is False
    a, b = (p / "model.safetensors" for p in (made / "research", tmp_path / "run"))
    assert a.read_bytes() == b.read_bytes()
    checked = veilset("verify", tmp_path / "run", "--json")
    assert checked.status == 0 and checked.json["ok"] is True and checked.json["release"] is False
    assert "RECOMPUTES, BUT NOT A RELEASE" in veilset("verify", tmp_path / "run").out


def test_without_noise_there_is_no_receipt(veilset: Run, made: Path, tmp_path: Path) -> None:
    assert not (made / "public" / "receipt.json").exists() and (made / "public" / "NON-PRIVATE.json").exists()
    assert veilset("verify", made / "public", "--json").status == 1
    outcome = veilset("sample", made / "public", "-n", "10", "--out", tmp_path / "out", "--json")
    assert outcome.status == 0 and outcome.json["label"].startswith("NON-PRIVATE")
    assert (tmp_path / "out" / "NON-PRIVATE.json").exists()


def test_sample_folder(veilset: Run, made: Path, tmp_path: Path) -> None:
    facts = veilset("sample", made / "run", "-n", "25", "--out", tmp_path / "out", "--json").json
    assert facts["n"] == 25 and facts["label"] == "SYNTHETIC"
    rows = list(csv.DictReader((tmp_path / "out" / "labels.csv").open()))
    assert len(rows) == 25 and all((tmp_path / "out" / r["file"]).exists() for r in rows)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "images", "labels.csv", "ledger.jsonl", "receipt.json", "SHA256SUMS"
    }  # fmt: skip
    assert veilset("verify", tmp_path / "out", "--json").json["release"] is True


def test_sample_classes_and_mix(veilset: Run, made: Path, tmp_path: Path) -> None:
    def counts(*options: str) -> list[int]:
        out = tmp_path / "-".join(options).replace("=", "")
        assert veilset("sample", made / "run", "-n", "30", "--out", out, "--format", "npz", *options).status == 0
        with np.load(out / "images.npz", allow_pickle=False) as z:
            assert z["x"].shape == (30, 1, 8, 8) and z["x"].dtype == np.uint8 and z["y"].dtype == np.int64
            return np.bincount(z["y"], minlength=10).tolist()

    assert counts("--class", "3", "--class", "5") == [0, 0, 0, 15, 0, 15, 0, 0, 0, 0]
    assert counts("--mix", "3=2,5=1") == [0, 0, 0, 20, 0, 10, 0, 0, 0, 0]


def test_sample_seed_repeats_a_draw(veilset: Run, made: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = ("sample", made / "run", "-n", "20", "--seed", "5", "--format", "npz", "--out", tmp_path / name)
        assert veilset(*command).status == 0
    a, b = (np.load(tmp_path / name / "images.npz")["x"] for name in ("a", "b"))
    assert (a == b).all()


def test_verify_keys(veilset: Run, made: Path) -> None:
    for folder in ("run", "out"):
        facts = veilset("verify", made / folder, "--json").json
        assert {"ok", "epsilon", "checks"} <= set(facts) and facts["ok"] is True
        assert 1.99 < facts["epsilon"] <= 2
        assert [set(c) for c in facts["checks"]] == [{"name", "ok", "detail"}] * len(facts["checks"])
    assert "VERIFIED: epsilon" in veilset("verify", made / "out").out


def test_verify_reads_only_its_folder(
    veilset: Run, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from veilset.methods import catalogue

    out = copy("out")
    monkeypatch.delitem(catalogue.BUILT_IN, "tiny")
    monkeypatch.chdir("/")
    assert veilset("verify", out, "--json").status == 0


@pytest.mark.parametrize("folder", ["run", "out"])
def test_evaluate_keys(veilset: Run, made: Path, tmp_path: Path, folder: str) -> None:
    scores = ("--metrics", "gen2real-logreg,fd-gabor", "--seeds", "2", "-n", "300", "--out", tmp_path / "s.json")
    facts = veilset("evaluate", made / folder, "--against", "digits", *scores, "--json").json
    assert [m["name"] for m in facts["metrics"]] == ["gen2real-logreg", "fd-gabor"]
    for m in facts["metrics"]:
        assert set(m) >= METRIC and m["better"] in ("higher", "lower") and m["reads_private"] is False
    assert json.loads((tmp_path / "s.json").read_text()) == facts
    assert veilset("verify", made / folder, "--json").status == 0  # measuring changes nothing that was released


def test_report(veilset: Run, made: Path, tmp_path: Path) -> None:
    facts = veilset("report", made / "out", "--out", tmp_path / "page.html", "--json").json
    assert Path(facts["report"]) == tmp_path / "page.html"
    assert "<html" in (tmp_path / "page.html").read_text()


def test_sign_and_verify_with_a_key(veilset: Run, copy: Callable[[str], Path], tmp_path: Path) -> None:
    out, key, other = copy("out"), tmp_path / "key", tmp_path / "other"
    mark = veilset("sign", "--new-key", key, "--json").json["fingerprint"]
    veilset("sign", "--new-key", other)
    assert veilset("verify", out, "--key", f"{key}.pub", "--json").status == 1  # not signed yet
    assert veilset("sign", out, "--key", key, "--json").json["fingerprint"] == mark
    assert veilset("verify", out, "--json").json["fingerprint"] == mark
    assert veilset("verify", out, "--key", f"{key}.pub", "--json").status == 0
    assert veilset("verify", out, "--key", f"{other}.pub", "--json").status == 1
    assert veilset("verify", out, "--key", tmp_path / "absent.pub", "--json").status == 1
    assert key.stat().st_mode & 0o077 == 0


def test_methods_and_help(veilset: Run) -> None:
    table = veilset("methods", "--json").json["methods"]
    assert {"dp-merf", "dp-moments", "tiny"} <= set(table)
    for verb in ("methods", "data", "plan", "fit", "sample", "evaluate", "report", "verify", "sign", "bench"):
        outcome = veilset(verb, "--help")
        assert outcome.status == 0 and f"usage: veilset {verb}" in outcome.out
    words = veilset("fit", "tiny", "--help").out
    assert "--spread" in words and "noise on sampled pixels" in words and ">= 0, <= 1" in words
    assert vs.__version__ in veilset("--version").out


def test_data_clean(veilset: Run, copy: Callable[[str], Path]) -> None:
    run = copy("run")
    assert veilset("data", "clean", run, "--json").json == {"removed": True}
    assert not (run / "private").exists()
    assert veilset("verify", run, "--json").status == 0


# ---------------------------------------------------------------------- as a real process


def process(*argv: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "veilset.cli.main", *map(str, argv)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


@pytest.mark.long
def test_a_process_verifies_and_fails_by_its_exit_status(copy: Callable[[str], Path], tmp_path: Path) -> None:
    out = copy("out")
    good = process("verify", out, "--json", cwd=tmp_path)
    assert good.returncode == 0 and json.loads(good.stdout)["ok"] is True and good.stderr == ""
    (out / "labels.csv").write_text("")
    assert process("verify", out, cwd=tmp_path).returncode == 1


def test_a_process_refuses_in_one_line(tmp_path: Path) -> None:
    bad = process("fit", "dp-moments", "--data", "digits", "--epsilon", "nan", "--out", "run", cwd=tmp_path)
    assert bad.returncode == 2 and bad.stdout == "" and len(bad.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
