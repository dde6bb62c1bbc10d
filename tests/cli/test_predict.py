"""A teacher from the command line: planned, fitted, verified and asked as synthesizers are, but it labels images."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import veilset as vs
from veilset.cli.main import main
from veilset.methods import catalogue

Run = Callable[..., Any]
PLUGIN = '''
import torch
import veilset as vs

class Blind(vs.Teacher):
    """Always the last class."""

    name = "blind"

    def _plan(self, info, privacy):
        return vs.Plan((vs.Release(name="mean", bound=1.0),), seconds=0.1, memory_mb=200.0)

    def _fit(self, gate, info, plan):
        return {"mean": gate.sum("mean", lambda x, y: x).float()}

    def _predict(self, state, info, x):
        return torch.eye(len(info.classes))[[-1] * len(x)]
'''


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of dp-scatter on digits."""
    folder = tmp_path_factory.mktemp("taught") / "run"
    command = ["fit", "dp-scatter", "--data", "digits", "--epsilon", "8", "--steps", "20", "--json"]
    assert main([*command, "--out", str(folder)]) == 0
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_a_teacher_is_planned_verified_and_labels_images(veilset: Run, taught: Path, tmp_path: Path) -> None:
    plan = veilset("plan", "dp-scatter", "--data", "digits", "--epsilon", "8", "--steps", "20", "--json").json
    assert [r["name"] for r in plan["releases"]] == ["linear"]
    verdict = veilset("verify", taught, "--json").json
    assert verdict["ok"] and verdict["release"]
    test = vs.load("digits").public_test()
    np.savez(tmp_path / "digits.npz", x=test.x.numpy())
    found = veilset("predict", taught, "--images", tmp_path / "digits.npz", "--out", tmp_path / "a.csv", "--json").json
    told = rows(tmp_path / "a.csv")
    assert found["n"] == len(test) == len(told) == sum(found["labels"].values())
    right = np.mean([test.classes[y] == row["label"] for y, row in zip(test.y.tolist(), told, strict=True)])
    assert right > 0.8 and [row["image"] for row in told[:3]] == ["0", "1", "2"]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in told)
    test[:30].save(tmp_path / "pictures")
    (tmp_path / "pictures" / ".hidden.png").write_text("no picture")
    veilset("predict", taught, "--images", tmp_path / "pictures", "--out", tmp_path / "b.csv")
    named = sorted(rows(tmp_path / "b.csv"), key=lambda row: Path(row["image"]).name)  # a folder per class
    assert [row["label"] for row in named] == [row["label"] for row in told[:30]]
    np.savez(tmp_path / "floats.npz", x=test.x[:30, 0].numpy().astype(np.float32))
    veilset("predict", taught, "--images", tmp_path / "floats.npz", "--out", tmp_path / "c.csv")
    assert rows(tmp_path / "c.csv") == told[:30]


def test_each_kind_names_the_verb_of_the_other(veilset: Run, taught: Path, copy: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    veilset("sample", taught, "-n", 5, "--out", out).refused("a run of dp-scatter, a teacher", "`veilset predict`")
    run = copy("run")
    veilset("predict", run, "--images", run, "--out", out).refused("a run of tiny, a synthesizer", "`veilset sample`")
    assert not out.exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, "no such folder or file; give a folder of pictures, or an .npz file"),
        (lambda p: p.write_text("a,b"), "neither a folder nor an .npz file"),
        (lambda p: p.mkdir(), "no picture in it"),
        (lambda p: (p.mkdir(), (p / "a.png").write_text("no")), "a.png: cannot be decoded"),
        (lambda p: (p.mkdir(), Image.new("L", (9, 8)).save(p / "a.png")), "a.png: is 8x9, declared are 8x8"),
        (lambda p: (p.mkdir(), Image.new("RGB", (8, 8)).save(p / "a.png")), "a.png: is RGB, declared is grey"),
    ],
)
def test_bad_images(veilset: Run, taught: Path, tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    make(tmp_path / "images")
    out = tmp_path / "labels.csv"
    veilset("predict", taught, "--images", tmp_path / "images", "--out", out).refused(words)
    assert not out.exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((2, 8, 8), np.uint8)}, "no array x in it; write it with numpy.savez(file, x=...)"),
        ({"x": np.zeros((2, 9, 9), np.uint8)}, "images are [9, 9], declared shape is [1, 8, 8]"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, "no image in it"),
        ({"x": np.array([{}, {}])}, "holds Python objects, which are never opened"),
        ({"x": np.full((1, 8, 8), np.nan, np.float32)}, "record 0: holds NaN or infinity"),
        ({"x": np.full((1, 8, 8), 256.0, np.float32)}, "outside the declared value_range"),
        ({"x": np.zeros((2, 8, 8), np.int64)}, "wrong dtype int64"),
        ({}, "not an .npz archive, or cut short"),
    ],
)
def test_bad_arrays(veilset: Run, taught: Path, tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    path, out = tmp_path / "images.npz", tmp_path / "labels.csv"
    np.savez(path, **arrays) if arrays else path.write_bytes(b"PK")
    veilset("predict", taught, "--images", path, "--out", out).refused(words)
    assert not out.exists()


def test_what_is_there_is_not_written_over(veilset: Run, taught: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("mine")
    veilset("predict", taught, "--images", taught, "--out", tmp_path / "labels.csv").refused(
        "exists; choose another file"
    )
    assert (tmp_path / "labels.csv").read_text() == "mine"
    veilset("predict", tmp_path, "--images", taught, "--out", tmp_path / "b.csv").refused("model.json")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 8, 8), np.uint8))
    veilset("predict", taught, "--images", tmp_path / "x.npz", "--out", tmp_path / "no" / "b.csv").refused(
        "cannot write"
    )


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Install a plug-in: entry point group, and what it points to."""
    home = tmp_path / "plugin"
    (home / "blind-1.dist-info").mkdir(parents=True)
    (home / "blind_teacher.py").write_text(PLUGIN)
    (home / "blind-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: blind\nVersion: 1\n")
    monkeypatch.syspath_prepend(home)

    def install(group: str, points: str) -> None:
        (home / "blind-1.dist-info" / "entry_points.txt").write_text(f"[{group}]\n{points}\n")

    return install


def test_a_teacher_that_is_plugged_in(veilset: Run, plugged: Callable[[str, str], None], tmp_path: Path) -> None:
    plugged("veilset.teachers", "blind = blind_teacher:Blind")
    listed = veilset("methods", "--check", "--json").json
    assert listed["teachers"]["blind"] == "plug-in blind_teacher:Blind" and "blind" not in listed["methods"]
    assert not listed["broken"] and isinstance(vs.make_teacher("blind"), vs.Teacher)
    fit = veilset("fit", "blind", "--data", "digits", "--epsilon", "1", "--out", tmp_path / "run", "--json")
    assert fit.status == 0, fit.err
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 8, 8), np.uint8))
    told = veilset("predict", tmp_path / "run", "--images", tmp_path / "x.npz", "--out", tmp_path / "l.csv", "--json")
    assert told.json["labels"]["9"] == 3


def test_a_teacher_that_is_plugged_in_wrongly(veilset: Run, plugged: Callable[[str, str], None]) -> None:
    plugged("veilset.methods", "blind = blind_teacher:Blind")
    outcome = veilset("plan", "blind", "--data", "digits", "--epsilon", "1")
    outcome.refused("plug-in 'blind' (blind_teacher:Blind) is not a veilset.Synthesizer class")
    assert veilset("methods", "--check").status == 1
    plugged("veilset.teachers", "dim = blind_teacher:Blind")
    veilset("plan", "dim", "--data", "digits", "--epsilon", "1").refused(
        "calls itself 'blind'; give both the same name"
    )


def test_every_method_has_one_kind() -> None:
    for name, entry in catalogue.registry().items():
        assert entry.kind in catalogue.KINDS
        base = {"synthesizer": vs.Synthesizer, "teacher": vs.Teacher}[entry.kind]
        assert issubclass(catalogue.any_class(name), base), name
    assert catalogue.KINDS.keys() == catalogue.MAKERS.keys() == catalogue.OPENERS.keys() == {*catalogue.GROUPS.values()}
