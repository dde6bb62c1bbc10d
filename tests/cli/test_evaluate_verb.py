"""`veilset evaluate`: its list, its groups, what it needs from outside, and a choice that is paid for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Run = Callable[..., Any]


def test_the_list_names_every_metric_with_unit_and_direction(veilset: Run) -> None:
    from veilset.evaluation import entries

    rows = veilset("evaluate", "--list", "--json").json["metrics"]
    assert [r["name"] for r in rows] == list(entries())
    assert all(r["unit"] and r["doc"] and r["better"] in ("higher", "lower") for r in rows)
    text = veilset("evaluate", "--list").out
    assert "* gen2real-cnn " in text and "groups: default, utility, three, six" in text


def test_a_group_is_measured_and_neighbours_are_percent(veilset: Run, made: Path) -> None:
    options = ("--metrics", "gabor", "--seeds", "1", "--json")
    facts = veilset("evaluate", made / "out", "--against", "digits", *options).json
    names = [m["name"] for m in facts["metrics"]]
    assert names == ["fd-gabor", *(f"{w}-gabor" for w in ("precision", "recall", "density", "coverage"))]
    assert all(m["unit"] == "%" for m in facts["metrics"][1:]) and facts["notes"] == []


def test_research_looks_for_copies_and_stamps(veilset: Run, made: Path) -> None:
    options = ("--metrics", "fd-gabor", "--seeds", "1", "--research", "--json")
    facts = veilset("evaluate", made / "out", "--against", "digits", *options).json
    assert facts["metrics"][0]["reads_private"] is True and facts["notes"] == []  # digits have no near copies


def test_a_private_choice_is_paid_and_verifies(veilset: Run, made: Path, tmp_path: Path) -> None:
    paid = ("--select", "private", "--candidates", "logreg,mlp", "--select-epsilon", "2", "--select-out")
    common = ("evaluate", made / "out", "--against", "digits", "--metrics", "gen2real-logreg", "--seeds", "1")
    facts = veilset(*common, *paid, tmp_path / "choice", "--json").json
    last = facts["metrics"][-1]
    assert last["name"] == "gen2real-selected-private" and last["reads_private"] is False
    assert last["detail"]["paid"]["epsilon"] == pytest.approx(2, rel=0.01)
    assert veilset("verify", tmp_path / "choice", "--json").status == 0
    veilset(*common, *paid, tmp_path / "choice").refused("choice exists")
    account = ("--account", tmp_path / "a.jsonl")
    assert veilset("account", "create", account[1], "--data", "digits", "--epsilon", "3").status == 0
    assert veilset(*common, *paid, tmp_path / "second", *account, "--json").status == 0
    left = veilset("account", "show", account[1], "--json").json
    assert left["epsilon_left"] < 2
    veilset(*common, *paid, tmp_path / "third", *account).refused("account")
    assert not (tmp_path / "third").exists()
    veilset(*common, "--select", "synthetic", *account).refused("--account is for")
    veilset(*common, "--select", "private").refused("needs --select-epsilon")
    veilset(*common, "--select", "synthetic", "--select-epsilon", "1").refused("--select-epsilon is for")
    veilset(*common, "--select", "best").refused("must be synthetic or private")
    veilset(*common, "--select", "synthetic", "--candidates", "mlp").refused("at least two")


def test_weights_are_asked_for_pinned_and_refused(veilset: Run, made: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1)}, weights)  # noqa: TID251
    common = ("evaluate", made / "out", "--against", "digits", "--metrics", "fid", "--seeds", "1")
    veilset(*common).refused("--inception-weights")
    veilset(*common, "--inception-weights", weights).refused("expected 6726825d", "refused unopened")
    veilset(*common, "--inception-weights", weights, "--inception-sha256", "12").refused("64 hexadecimal digits")
    veilset(*common, "--inception-sha256", "0" * 64).refused("give it by --inception-weights")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    veilset(*common, "--inception-weights", weights, "--inception-sha256", digest).refused("does not fit")
    veilset(*common, "--inception-weights", tmp_path / "none.pth").refused("no such file")


def test_other_bad_words(veilset: Run, made: Path) -> None:
    veilset("evaluate").refused("--against D")
    common = ("evaluate", made / "out", "--against", "digits")
    veilset(*common, "--protocol", "pgs").refused("Did you mean 'psg'")
    veilset(*common, "--domain-network", "vgg").refused("Did you mean 'vgg11'")
    veilset(*common, "--metrics", "lite").refused("Did you mean 'lite0'")


def test_protocol_stands_in_the_detail(veilset: Run, made: Path) -> None:
    options = ("--metrics", "gen2real-mlp", "--seeds", "1", "--protocol", "dpdm", "--json")
    facts = json.loads(veilset("evaluate", made / "out", "--against", "digits", *options).out)
    assert facts["metrics"][0]["detail"]["protocol"] == "dpdm"
