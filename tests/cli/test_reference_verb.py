"""`veilset reference` and `evaluate --reference`: a price first, a purchase, free figures, and refusals in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="module")
def bought(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from veilset.cli.main import main

    out = tmp_path_factory.mktemp("bought") / "ref"
    assert main(["reference", "make", "digits", "--epsilon", "4", "--out", str(out), "--json"]) == 0
    return out


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's set with a private test split."""
    from veilset.data.public import digits

    path = tmp_path_factory.mktemp("clinic") / "set.npz"
    x, y = digits()
    np.savez(path, x_train=x[:1437], y_train=y[:1437], x_test=x[1437:], y_test=y[1437:])
    classes = ", ".join(f'"{k}"' for k in range(10))
    path.with_name("set.veilset.toml").write_text(
        f'name = "clinic"\nvalue_range = [0.0, 255.0]\nclasses = [{classes}]\nshape = [1, 8, 8]\nunits = 1437\n'
        'unit = "one image"\naccess = "private"\nconfirmed = true\n'
    )
    return path


def test_a_price_a_purchase_and_free_figures(veilset: Callable[..., Any], bought: Path, made: Path) -> None:
    plan = veilset("reference", "plan", "digits", "--epsilon", "4", "--json").json
    assert plan["epsilon"] == pytest.approx(4) and [r["name"] for r in plan["releases"]] == [
        "embedding",
        "moments",
        "labels",
    ]
    assert veilset("verify", bought).status == 0
    shown = veilset("reference", "show", bought, "--json").json
    assert shown["noise_sd"]["labels"] > 0 and len(shown["labels"]) == 10
    assert "units" in veilset("reference", "show", bought).out
    run = made / "run"
    seen = veilset("evaluate", run, "--reference", bought, "-n", 500, "--seeds", 2, "--json").json
    assert [m["name"] for m in seen["metrics"]] == ["ref-mmd", "ref-fd", "ref-labels"]
    assert all(m["detail"]["noise_sd"] > 0 and not m["reads_private"] for m in seen["metrics"])
    assert (run / "private" / "reference-metrics.json").exists() and veilset("verify", run).status == 0
    assert "(noise ± " in veilset("evaluate", made / "out", "--reference", bought).out


def test_refusals(veilset: Callable[..., Any], bought: Path, made: Path, tmp_path: Path) -> None:
    veilset("evaluate", made / "run", "--reference", bought, "--against", "digits").refused("leave out --against")
    veilset("evaluate", made / "run", "--reference", tmp_path).refused("no such file")
    veilset("reference", "make", "digits", "--epsilon", "4", "--out", bought).refused("is finished")
    veilset("reference", "make", "digits", "--epsilon", "inf", "--out", tmp_path / "x").refused("finite budget")
    make = ("reference", "make", "digits", "--epsilon", "1", "--split", "test", "--out", tmp_path / "x")
    veilset(*make).refused("public, so exact figures of it cost nothing")
    veilset(
        "reference", "accuracy", made / "run", "--against", "digits", "--epsilon", 1, "--out", tmp_path / "x"
    ).refused("use `veilset evaluate --against`")
    assert not (tmp_path / "x").exists()


def test_a_private_test_split_is_read_with_noise_or_not_at_all(
    veilset: Callable[..., Any], clinic: Path, tmp_path: Path
) -> None:
    run, figures = tmp_path / "run", tmp_path / "accuracy"
    assert veilset("fit", "tiny", "--data", clinic, "--epsilon", 2, "--out", run, "--json").status == 0
    veilset("evaluate", run, "--against", clinic, "-n", 300).refused("is private", "veilset reference")
    ask = ("--against", clinic, "--epsilon", 1, "--classifiers", "logreg", "--seeds", 1, "-n", 300)
    done = veilset("reference", "accuracy", run, *ask, "--out", figures, "--json").json
    assert done["metrics"][0]["name"] == "gen2real-logreg" and done["metrics"][0]["detail"]["noise_sd"] > 0
    checked = veilset("verify", figures, "--json").json
    assert checked["release"] and checked["epsilon"] == pytest.approx(1.0, rel=1e-6)
    made = veilset("reference", "make", clinic, "--split", "test", "--epsilon", 1, "--out", tmp_path / "ref", "--json")
    assert made.json["split"] == "test" and sum(made.json["labels"].values()) == pytest.approx(360, abs=250)
