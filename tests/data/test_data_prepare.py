"""prepare converts by declared rules; fetch downloads whole files or none; clean removes the private folder."""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, pixels, png, table_folder

from veilset.core.errors import ConfigError, DataError, RunError
from veilset.data import check, clean, declare, fetch, load, prepare, public


def confirmed(root: Path) -> Path:
    """Confirm the draft that `prepare` wrote; the result must be without faults."""
    path = root / "veilset.toml"
    path.write_text(path.read_text().replace("confirmed = false", "confirmed = true"))
    assert [f for f in check(root) if f.severity == "fault"] == []
    return root


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_every_kind_becomes_grey_of_one_size(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for mode, name in (
        ("CMYK", "a.jpg"),
        ("P", "b.png"),
        ("RGBA", "c.png"),
        ("LA", "d.png"),
        ("1", "e.png"),
        ("L", "f.tif"),
    ):
        (root / "cat").mkdir(parents=True, exist_ok=True)
        Image.new(mode, (9, 7)).save(root / "cat" / name)
    out = prepare(root, tmp_path / "out", size=(5, 4), grey=True)
    assert sorted(p.name for p in (out / "cat").iterdir()) == [f"{c}.png" for c in "abcdef"]
    assert {read(p).shape for p in (out / "cat").iterdir()} == {(5, 4)}
    assert load(confirmed(out)).info.shape == (1, 5, 4)


def test_colour_kinds_become_rgb_and_transparency_black(tmp_path: Path) -> None:
    cat = tmp_path / "s" / "cat"
    cat.mkdir(parents=True)
    Image.new("RGBA", (4, 5), (200, 100, 50, 0)).save(cat / "clear.png")
    Image.new("RGBA", (4, 5), (200, 100, 50, 255)).save(cat / "solid.png")
    Image.new("CMYK", (4, 5), (0, 255, 255, 0)).save(cat / "red.tif")
    out = prepare(tmp_path / "s", tmp_path / "out")
    colours = {p.stem: read(p)[0, 0].tolist() for p in (out / "cat").iterdir()}
    assert colours == {"clear": [0, 0, 0], "solid": [200, 100, 50], "red": [255, 0, 0]}
    assert load(confirmed(out)).info.shape == (3, 5, 4)


def test_grey_stays_exact_through_alpha(tmp_path: Path) -> None:
    x = np.arange(256, dtype=np.uint8).reshape(16, 16)
    (tmp_path / "s" / "cat").mkdir(parents=True)
    Image.merge("LA", (Image.fromarray(x), Image.new("L", (16, 16), 255))).save(tmp_path / "s" / "cat" / "a.png")
    assert (read(prepare(tmp_path / "s", tmp_path / "out") / "cat" / "a.png") == x).all()


def deep(path: Path, values: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint16)).save(path)


def test_16_bits_need_a_declared_window(tmp_path: Path) -> None:
    deep(tmp_path / "s" / "cat" / "a.png", [0, 1000, 1500, 2000, 65535])
    deep(tmp_path / "s" / "cat" / "b.tif", [1000, 1000, 1001, 1002, 1000])
    with pytest.raises(DataError, match=r"a\.png: has 16 bits a channel; declare a window"):
        prepare(tmp_path / "s", tmp_path / "out")
    with pytest.raises(ConfigError, match="bits = 16: needs window"):
        prepare(tmp_path / "s", tmp_path / "out", bits=16)
    out = prepare(tmp_path / "s", tmp_path / "out", window=(1000, 2000))
    assert read(out / "cat" / "a.png").tolist() == [[0, 0, 128, 255, 255]]
    assert read(out / "cat" / "b.png").max() <= 1, "the window is declared, never stretched to what a picture holds"
    confirmed(out)


def test_a_window_is_for_one_depth(tmp_path: Path) -> None:
    png(tmp_path / "s" / "cat" / "a.png", np.array([[[0, 100, 200]]], np.uint8))
    with pytest.raises(DataError, match="has 8 bits a channel, declared are 16"):
        prepare(tmp_path / "s", tmp_path / "out", window=(100, 200))
    out = prepare(tmp_path / "s", tmp_path / "out", window=(100, 200), bits=8)
    assert read(out / "cat" / "a.png").tolist() == [[0, 0, 255]]


def test_crop_and_pad(tmp_path: Path) -> None:
    wide = np.full((1, 4, 8), 200, np.uint8)
    wide[:, :, :2] = wide[:, :, -2:] = 10
    png(tmp_path / "s" / "cat" / "a.png", wide)
    crop = prepare(tmp_path / "s", tmp_path / "crop", size=4)
    pad = prepare(tmp_path / "s", tmp_path / "pad", size=8, fit="pad")
    assert (read(crop / "cat" / "a.png") == 200).all(), "the centre is kept"
    padded = read(pad / "cat" / "a.png")
    assert (padded[:2] == 0).all() and (padded[-2:] == 0).all() and (padded[2:-2] == wide[0]).all()


def test_layouts_are_kept(tmp_path: Path) -> None:
    root = table_folder(tmp_path / "t", pixels(4), split=["train"] * 3 + ["test"], unit=list("aabc"))
    out = prepare(root, tmp_path / "t2", size=3)
    assert (out / "labels.csv").read_text().splitlines()[:2] == ["file,label,split,unit", "img/000.png,cat,train,a"]
    info = declare.read(out).info
    assert info.unit == "one unit id" and info.shape == (1, 3, 3)
    confirmed(out)
    for split in ("train", "test"):
        class_folder(tmp_path / "f" / split, pixels(4))
    out = confirmed(prepare(tmp_path / "f", tmp_path / "f2", size=3))
    assert load(out).test is not None and len(list(out.rglob("*.png"))) == 8


def test_prepare_says_what_does_not_fit_and_leaves_nothing(tmp_path: Path) -> None:
    def refused(message: str, **rules: object) -> None:
        with pytest.raises((DataError, ConfigError, RunError), match=message) as e:
            prepare(tmp_path / "s", tmp_path / "out", **rules)  # type: ignore[arg-type]
        assert "\n" not in str(e.value)
        assert [p.name for p in tmp_path.iterdir()] == ["s"]

    cat = tmp_path / "s" / "cat"
    png(cat / "a.png", pixels(1)[0])
    for rules, message in (
        ({"size": 0}, "size = 0"),
        ({"size": (5, 4, 1)}, "size ="),
        ({"fit": "stretch"}, "crop or pad"),
        ({"bits": 12}, "8 or 16"),
        ({"window": (5, 5)}, "low < high"),
        ({"window": (0, float("nan"))}, "window ="),
    ):
        refused(message, **rules)  # type: ignore[arg-type]
    png(cat / "b.png", pixels(1, (1, 9, 9))[0])
    refused("sizes are mixed")
    png(cat / "b.png", pixels(1, (3, 5, 4))[0])
    refused("grey and colour are mixed")
    png(cat / "b.png", pixels(1)[0])
    Image.new("L", (4, 5)).save(cat / "a.bmp")
    refused("two files would become")
    (cat / "a.bmp").write_bytes((cat / "a.png").read_bytes()[:40])
    refused("a.bmp: (truncated|cannot be decoded)")
    (cat / "a.bmp").rename(cat / "scan.dcm")
    refused("not an image file by its name")
    (cat / "scan.dcm").unlink()
    prepare(tmp_path / "s", tmp_path / "out")
    with pytest.raises(RunError, match="exists"):
        prepare(tmp_path / "s", tmp_path / "out")
    with pytest.raises(DataError, match="not an .npz or"):
        prepare(cat / "a.png", tmp_path / "out2")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mirror of four small files, as a file URL."""
    module = sys.modules["veilset.data.fetch"]
    folder = tmp_path / "mirror"
    folder.mkdir()
    for i, file in enumerate(public.FILES):
        (folder / file).write_bytes(gzip.compress(b"content %d" % i))
    monkeypatch.setitem(module.MIRRORS, "mnist", f"{folder.as_uri()}/")
    digests = tuple(hashlib.sha256(b"content %d" % i).hexdigest() for i in range(4))
    monkeypatch.setitem(module.SHA256, "mnist", digests)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("VEILSET_DATA", raising=False)
    return folder


def test_fetch(mirror: Path, tmp_path: Path) -> None:
    assert fetch("mnist") == tmp_path / "cache" / "veilset" / "mnist" == public.find("mnist")
    (mirror / public.FILES[0]).unlink()
    fetch("mnist")  # what is there and correct is not downloaded again
    with pytest.raises(DataError, match="cannot download"):
        fetch("mnist", tmp_path / "other")


def test_fetch_refuses_other_bytes(mirror: Path, tmp_path: Path) -> None:
    (mirror / public.FILES[1]).write_bytes(gzip.compress(b"something else"))
    with pytest.raises(DataError, match="pinned SHA-256.*VEILSET_DATA"):
        fetch("mnist")
    assert [p.name for p in (tmp_path / "cache" / "veilset" / "mnist").iterdir()] == [public.FILES[0]]
    assert public.find("mnist") is None
    (mirror / public.FILES[1]).write_bytes(b"<html>")
    with pytest.raises(DataError, match="pinned SHA-256"):
        fetch("mnist")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_fetch_without_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules["veilset.data.fetch"].MIRRORS, name, "http://127.0.0.1:9/")
    with pytest.raises(DataError, match="VEILSET_DATA") as e:
        fetch(name, tmp_path / "out")
    assert ("dataset-fashion-mnist" in str(e.value)) == (name == "fashion-mnist") and "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_pinned_checksums_are_those_of_the_real_files(name: str) -> None:
    module, folder = sys.modules["veilset.data.fetch"], public.find(name)
    if folder is None or not (folder / public.FILES[0]).is_file():
        pytest.skip(f"{name} is not on this machine")
    for file, digest in zip(public.FILES, module.SHA256[name], strict=True):
        assert module._digest((folder / file).read_bytes()) == digest


def test_fetch_names() -> None:
    with pytest.raises(ConfigError, match="nothing to fetch"):
        fetch("digits")
    with pytest.raises(ConfigError, match="Did you mean 'mnist'"):
        fetch("minst")


def test_clean(tmp_path: Path) -> None:
    (tmp_path / "run" / "private" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "private" / "deep" / "x").write_text("x")
    (tmp_path / "run" / "receipt.json").write_text("{}")
    assert clean(tmp_path / "run") and not clean(tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["receipt.json"]
    with pytest.raises(RunError, match="no such folder"):
        clean(tmp_path / "nowhere")
