"""Small and uneven sets, and the largest images, from files to a verified release by the default method."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from veilset.cli.main import main
from veilset.data import declare, init
from veilset.methods.catalogue import DEFAULT


def pictures(root: Path, classes: list[str], side: int = 8, colour: bool = False, split: str = "train") -> list[str]:
    """A square or a cross for each entry of `classes`, with noise, in a folder a class; their names."""
    rng, names = np.random.default_rng(0), []
    for i, name in enumerate(classes):
        a = rng.normal(40, 8, (side, side))
        at, most = rng.integers(side // 4, side // 2, 2), side // 2
        a[at[0] : at[0] + most, at[1] : at[1] + (most if name == "a" else side // 8)] += 150
        x = a.clip(0, 255).astype(np.uint8)
        names.append(f"{split}/{name}/{i}.png")
        (root / names[-1]).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.stack([x, 255 - x, x], -1) if colour else x).save(root / names[-1])
    return names


def confirm(root: Path, **facts: object) -> None:
    init(root)
    path = declare.path_for(root)
    lines = path.read_text().replace("confirmed = false", "confirmed = true").splitlines()
    told = {name: f"{name} = {value}" for name, value in facts.items()}
    path.write_text("\n".join(told.get(line.split(" = ")[0], line) for line in lines))


def through(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *more: str, delta: str = "1e-4") -> str:
    """check, plan, fit, sample, verify; what the plan said."""
    data = ["--data", str(root), "--epsilon", "10", "--delta", delta]
    assert main(["data", "check", str(root)]) == 0
    capsys.readouterr()
    assert main(["plan", DEFAULT, *data, *more]) == 0
    plan = capsys.readouterr()
    run, release = str(tmp_path / "run"), tmp_path / "release"
    assert main(["fit", DEFAULT, *data, "--out", run, *more]) == 0
    assert main(["sample", run, "-n", "12", "--out", str(release)]) == 0
    assert main(["verify", str(release)]) == 0
    assert len(list(release.rglob("*.png"))) == 12
    capsys.readouterr()
    return plan.out + plan.err


UNEVEN = {"90 to 9 to 1": ["a"] * 180 + ["b"] * 18 + ["c"] * 2, "one class": ["a"] * 200}


@pytest.mark.long
@pytest.mark.parametrize("kind", UNEVEN)
def test_two_hundred_units_in_uneven_classes(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(tmp_path / "s", UNEVEN[kind])
    confirm(tmp_path / "s", units=200)
    assert "200 are declared" in through(tmp_path / "s", tmp_path, capsys, delta="1e-3")


@pytest.mark.long
def test_units_with_1_to_500_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [1] * 100 + [2] * 60 + [5] * 39 + [500]
    who = [f"p{u}" for u, n in enumerate(sizes) for _ in range(n)]
    labels = ["ab"[i % 2] for i in range(len(who))]
    names = pictures(tmp_path / "s", labels)
    with open(tmp_path / "s" / "labels.csv", "w", newline="") as f:
        csv.writer(f).writerows([["file", "label", "unit"], *zip(names, labels, who, strict=True)])
    confirm(tmp_path / "s", units=200, max_images_per_unit=10)
    assert main(["data", "check", str(tmp_path / "s")]) == 0
    assert "1 units have more than the declared max_images_per_unit = 10 images" in capsys.readouterr().out
    through(tmp_path / "s", tmp_path, capsys, delta="1e-3")


@pytest.mark.long
@pytest.mark.parametrize("colour", [False, True])
def test_images_of_128_by_128(tmp_path: Path, colour: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for split, n in (("train", 40), ("test", 12)):
        pictures(tmp_path / "s", ["a", "b"] * (n // 2), 128, colour, split)
    confirm(tmp_path / "s", units=40, access='"public"')
    through(tmp_path / "s", tmp_path, capsys, delta="1e-2")
    release = str(tmp_path / "release")
    assert (
        main(["evaluate", release, "--against", str(tmp_path / "s"), "--metrics", "gen2real-logreg", "--seeds", "1"])
        == 0
    )
    assert main(["report", release]) == 0 and (tmp_path / "release-report.html").is_file()
