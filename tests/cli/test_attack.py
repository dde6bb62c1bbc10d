"""`veilset attack`: what it prints and writes, and every folder that it refuses."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.audit.membership.records import inspect
from veilset.cli.main import main
from veilset.core.types import Images

SMALL = ("--targets", "300", "--shadows", "4", "-n", "300")


@pytest.fixture
def research(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "research", tmp_path / "research"))


def write_set(folder: Path, x: torch.Tensor, y: torch.Tensor, extra: str = "", **more: Any) -> Path:
    """An .npz set of 8x8 images in ten classes, with its declaration."""
    folder.mkdir()
    np.savez(folder / "set.npz", x=x.numpy(), y=y.numpy(), **more)
    (folder / "set.veilset.toml").write_text(
        f'name = "part"\nclasses = {json.dumps([str(k) for k in range(10)])}\nshape = [1, 8, 8]\n'
        f"value_range = [0.0, 255.0]\nunits = {len(x)}\nconfirmed = true\n{extra}"
    )
    return folder / "set.npz"


@pytest.fixture(scope="module")
def records() -> Images:
    found = inspect(vs.load("digits").train, 0)
    return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


@pytest.fixture
def part(records: Images, tmp_path: Path, tiny: Any) -> tuple[Path, Path, Path]:
    """A run on 500 digits, its set, and a set of 500 other digits."""
    ours = write_set(tmp_path / "ours", records.x[:500], records.y[:500])
    others = write_set(tmp_path / "others", records.x[500:1000], records.y[500:1000])
    fit = ["fit", "tiny", "--data", str(ours), "--epsilon", "2", "--seed", "1", "--json"]
    assert main([*fit, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run", ours, others


def test_a_run_is_attacked_with_a_declared_hold_out(veilset: Callable[..., Any], part: tuple[Path, Path, Path]) -> None:
    folder, _, others = part
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    done = veilset("attack", folder, "--outsiders", others, *SMALL, "--json")
    facts = done.json
    assert done.status == (0 if facts["ok"] else 1)
    assert facts["outsiders_from"] == "training split of part, declared not to be in the run"
    assert facts["candidates"] == 300 and facts["trained_on"] == 500 and facts["shadows"] == 4
    assert facts["stamp"].startswith("NOT A RELEASE") and facts["claim"]["epsilon"] == pytest.approx(2.0)
    (headline,) = [a for a in facts["attacks"] if a["name"] == facts["headline"]]
    assert headline["leaky"]["auc"] > 0.95 and headline["run"]["low"] < 0.55
    assert headline["run"]["rates"][0]["tpr"] is None and headline["run"]["rates"][1]["tpr"] is not None
    written = folder / "private" / "membership.json"
    assert json.loads(written.read_text()) == facts and stat.S_IMODE(written.stat().st_mode) == 0o600
    assert (folder / "private" / "membership.svg").read_text().startswith("<svg")
    assert all(p.read_bytes() == data for p, data in before.items()), "the run itself is unchanged"
    assert veilset("verify", folder, "--json").json["ok"]


def test_people_get_a_table(veilset: Callable[..., Any], research: Path) -> None:
    done = veilset("attack", research, *SMALL)
    assert "test split of digits, declared public" in done.out and "calibrated-logistic*" in done.out
    assert "takes 2,995" in done.out and "NOT A RELEASE" in done.out and "shadow model 1 of 4" in done.err
    assert done.status in (0, 1) and ("NOT VALID" in done.out) == (done.status == 1)


# ---------------------------------------------------------------------- bad input


def test_a_release_is_not_attacked(veilset: Callable[..., Any], made: Path) -> None:
    veilset("attack", made / "run", *SMALL, "--json").refused("release mode", "fit the same method", "--seed S")
    veilset("attack", made / "public", *SMALL, "--json").refused("release mode", "--seed S")


def test_a_sampled_folder_is_not_attacked(veilset: Callable[..., Any], made: Path, tmp_path: Path) -> None:
    veilset("attack", made / "out", *SMALL).refused("no model here", "run folder")
    veilset("attack", tmp_path / "nothing", *SMALL).refused("no model here")


@pytest.mark.parametrize("name", ["run.json", "data.json"])
def test_a_cleaned_run_is_not_attacked(veilset: Callable[..., Any], research: Path, name: str) -> None:
    (research / "private" / name).unlink()
    veilset("attack", research, *SMALL).refused("is gone", "not known who was a member")


def test_outsiders_that_were_members_are_refused(
    veilset: Callable[..., Any], part: tuple[Path, Path, Path], records: Images, tmp_path: Path
) -> None:
    folder, ours, _ = part
    veilset("attack", folder, "--outsiders", ours, *SMALL).refused("that is the set of the run")
    mixed = write_set(tmp_path / "mixed", records.x[497:900], records.y[497:900])
    veilset("attack", folder, "--outsiders", mixed, *SMALL).refused("3 of 403", "equal a member", "--drop-duplicates")
    done = veilset("attack", folder, "--outsiders", mixed, *SMALL, "--drop-duplicates", "--json")
    assert done.json["dropped_duplicates"] == 3


def test_a_set_without_a_hold_out_is_refused(veilset: Callable[..., Any], part: tuple[Path, Path, Path]) -> None:
    veilset("attack", part[0], *SMALL).refused("no test split", "--outsiders D")


def test_other_records_than_those_fitted_are_refused(
    veilset: Callable[..., Any], part: tuple[Path, Path, Path], records: Images
) -> None:
    folder, ours, others = part
    np.savez(ours, x=records.x[600:1100].numpy(), y=records.y[600:1100].numpy())
    veilset("attack", folder, "--outsiders", others, *SMALL).refused("not those that the run was fitted on")
    text = (ours.parent / "set.veilset.toml").read_text()
    (ours.parent / "set.veilset.toml").write_text(text.replace("units = 500", "units = 501"))
    veilset("attack", folder, "--outsiders", others, *SMALL).refused("declared otherwise")


def test_units_of_several_images_are_refused(veilset: Callable[..., Any], records: Images, tmp_path: Path) -> None:
    many = 'unit = "one writer"\nmax_images_per_unit = 3\n'
    data = write_set(tmp_path / "many", records.x[:400], records.y[:400], many, unit=np.arange(400) // 2)
    fit = ("fit", "tiny", "--data", data, "--epsilon", "2", "--seed", "1", "--json", "--out", tmp_path / "run")
    assert veilset(*fit).status == 0
    veilset("attack", tmp_path / "run", *SMALL).refused("max_images_per_unit = 3", "single images")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--shadows", "3", "shadows = 3: must be even"),
        ("--targets", "50", "candidates = 50 of each kind"),
        ("--targets", "0", "targets = 0: must be at least 1"),
        ("-n", "0", "images = 0: must be at least 1"),
        ("--outsiders", "mnits", "mnits: no such file"),
    ],
)
def test_values_out_of_range_are_refused(
    veilset: Callable[..., Any], research: Path, option: str, value: str, words: str
) -> None:
    veilset("attack", research, *SMALL, option, value).refused(words)
    assert not (research / "private" / "membership.json").exists()
