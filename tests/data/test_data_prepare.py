"""prepare converts by declared rules; fetch downloads whole files or none; clean removes the private folder."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_sets import class_folder, pixels, png, table_folder

from veilset.cli.main import main
from veilset.core.errors import ConfigError, DataError, RunError
from veilset.data import check, clean, convert, declare, fetch, load, prepare, public
from veilset.data.prepare import prepared, rules_of


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
    (cat / "a.bmp").rename(cat / "d.bmp").write_bytes((cat / "a.png").read_bytes()[:40])
    refused("d.bmp: (truncated|cannot be decoded)")
    (cat / "d.bmp").rename(cat / "scan.dcm")
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


# ---------------------------------------------------------------------- several processes, kills, and the report


def contents(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def many(root: Path, kind: str) -> Path:
    if kind == "table":
        return table_folder(root, pixels(70, (3, 9, 7)), patient=[f"p{i // 2}" for i in range(70)])
    class_folder(root, pixels(70, (3, 9, 7)))
    if kind == "folder":
        return root
    with zipfile.ZipFile(f"{root}.zip", "w") as z:
        for name, data in contents(root).items():
            z.writestr(name, data)
    return Path(f"{root}.zip")


@pytest.mark.parametrize("kind", ["folder", "table", "zip"])
def test_two_processes_make_the_same_set(tmp_path: Path, kind: str) -> None:
    root = many(tmp_path / "s", kind)
    one, two = (prepared(root, tmp_path / str(n), rules_of((4, 4), "pad", True, None, None), None, n) for n in (1, 2))
    assert contents(tmp_path / "1") | {"veilset.toml": b""} == contents(tmp_path / "2") | {"veilset.toml": b""}
    assert one.done == two.done == {"made grey": 70, "resized from 9 x 7": 70}
    assert "70 images, 2 classes, 4 x 4, grey" in str(two) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_any_process_is_one_line_and_leaves_nothing(tmp_path: Path, jobs: int) -> None:
    root = many(tmp_path / "s", "folder")
    bad = sorted(root.rglob("*.png"))[40]  # of the second process, where there are two
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(DataError, match=f"{bad.name}: (truncated|cannot be decoded)"):
        prepare(root, tmp_path / "out", size=4, jobs=jobs)
    png(bad, pixels(1, (1, 9, 7))[0])
    with pytest.raises(DataError, match="grey and colour are mixed"):
        prepare(root, tmp_path / "out", jobs=jobs)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def killed(root: Path, out: Path, kind: str) -> None:
    """`prepare` in another process, which is killed after its 20th picture."""
    script = f"""
import os
from veilset.data import making, prepare
real, count = os.replace, [0]
def replace(a, b):
    real(a, b)
    count[0] += str(b).endswith(".png")
    if count[0] == 20:
        os.kill(os.getpid(), 9)
making.os.replace = replace
making.FLUSH = 1
prepare({str(root)!r}, {str(out)!r}, size=4)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -9, kind


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_was_killed_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    root, out = many(tmp_path / "s", kind), tmp_path / "out"
    prepare(root, tmp_path / "whole", size=4)
    killed(root, out, kind)
    assert not out.exists() and (tmp_path / ".out.partial").is_dir()
    rules = rules_of(4, "crop", False, None, None)
    done = prepared(root, out, rules, None, 2).done
    assert done == {"made before it was interrupted": 20, "resized from 9 x 7": 50}
    assert contents(out) | {"veilset.toml": b""} == contents(tmp_path / "whole") | {"veilset.toml": b""}
    assert not list(tmp_path.glob(".*"))


def test_what_was_killed_begins_anew_under_other_rules_or_in_a_set_that_was_changed(tmp_path: Path) -> None:
    root, out = many(tmp_path / "s", "folder"), tmp_path / "out"
    killed(root, out, "rules")
    assert prepared(root, out, rules_of(5, "crop", False, None, None), None, 1).done == {"resized from 9 x 7": 70}
    killed(root, tmp_path / "again", "set")
    first = sorted((root / "cat").iterdir())[0]
    first.rename(first.with_name("zzz.png"))
    with pytest.raises(DataError, match="the set was changed after `prepare` was interrupted; run it again"):
        prepare(root, tmp_path / "again", size=4)
    assert not list(tmp_path.glob(".*"))
    prepare(root, tmp_path / "again", size=4)


def test_a_process_that_is_ended_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, real = os.getpid(), convert.convert

    def ended(data: bytes, rules: object, tally: object) -> object:
        if os.getpid() != here:
            os._exit(9)
        return real(data, rules, tally)  # type: ignore[arg-type]

    monkeypatch.setattr(sys.modules["veilset.data.prepare"], "convert", ended)
    with pytest.raises(RunError, match="a process of `prepare` was ended"):
        prepare(many(tmp_path / "s", "folder"), tmp_path / "out", jobs=2)
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    with pytest.raises(ConfigError, match="jobs = 0: must be 1 to 64 processes"):
        prepare(tmp_path / "s", tmp_path / "out", jobs=0)


def test_the_report_counts_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s" / "a").mkdir(parents=True)
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("L", (8, 6)).save(tmp_path / "s" / "a" / "1.png", exif=tag)
    Image.new("RGBA", (8, 6), (9, 9, 9, 90)).save(tmp_path / "s" / "a" / "2.png")
    Image.new("L", (4, 4)).save(tmp_path / "s" / "a" / "3.png")
    command = [
        "data",
        "prepare",
        str(tmp_path / "s"),
        "--out",
        str(tmp_path / "o"),
        "--size",
        "4x4",
        "--grey",
        "--jobs",
        "2",
    ]
    assert main([*command, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["done"] == {
        "made grey": 1,
        "resized from 6 x 8": 1,
        "resized from 8 x 6": 1,
        "transparent, laid on black": 1,
        "turned upright": 1,
    }
    assert said["found"] == "3 images, 1 class, 4 x 4, grey, 8 bits"
