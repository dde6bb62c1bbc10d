"""Declarations: needed, drafted, confirmed, strict. And the built-in sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sets import class_folder, confirm, idx_pair, pixels, png, table_folder

from veilset.core.errors import DataError
from veilset.core.types import Images, PublicInfo
from veilset.data import check, declare, draft, init, load, public


def test_no_declaration(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "s", pixels(2))
    with pytest.raises(DataError, match=f"veilset data init {root}"):
        load(root)


@pytest.mark.parametrize("source", ["nowhere", "minst", "nowhere/at/all"])
def test_no_such_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    for act in (load, check, init):
        with pytest.raises(DataError, match="no such file or folder") as e:
            act(source)
        assert ("Did you mean 'mnist'?" in str(e.value)) == (source == "minst")


def test_unknown_layouts(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "s.txt").write_text("x")
    for source in ("empty", "s.txt"):
        confirm(tmp_path / source)
        with pytest.raises(DataError, match="layouts"):
            check(tmp_path / source)


def test_draft_must_be_confirmed_and_is_never_overwritten(tmp_path: Path) -> None:
    root = class_folder(tmp_path / "pets", pixels(6, (3, 20, 13)))
    path = init(root)
    assert path == root / "veilset.toml"
    text = path.read_text()
    assert "EVERYTHING YOU CONFIRM HERE BECOMES PUBLIC" in text and "rounded" in text
    read = declare.read(root)
    info, confirmed = read.info, read.confirmed
    assert not confirmed
    assert (info.name, info.classes, info.shape, info.units, info.access) == (
        "pets",
        ("cat", "dog"),
        (3, 20, 13),
        10,
        "private",
    )
    with pytest.raises(DataError, match="confirmed = true"):
        load(root)
    assert "not confirmed" in str(check(root)[0])
    with pytest.raises(DataError, match="exists"):
        init(root)
    path.write_text(text.replace("confirmed = false", "confirmed = true"))
    assert load(root).info == info


def test_drafts_of_the_other_layouts(tmp_path: Path) -> None:
    x = pixels(150, (1, 20, 13))
    y = np.arange(150, dtype=np.uint8) % 3
    idx_pair(tmp_path / "idx", "train", x[:, 0], y)
    idx_pair(tmp_path, "some", x[:, 0], y, gz=True)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez(tmp_path / "b.npz", x=x[:, 0].astype(np.float32) * 7, y=np.array(["u", "v", "w"])[y], unit=y)
    table_folder(tmp_path / "t", x, unit=[str(i // 10) for i in range(150)])
    expect = {
        "idx": ("idx/veilset.toml", ("0", "1", "2"), 150, (0.0, 255.0), 1),
        "some": ("some.veilset.toml", ("0", "1", "2"), 150, (0.0, 255.0), 1),
        "a.npz": ("a.veilset.toml", ("0", "1", "2"), 150, (0.0, 255.0), 1),
        "b.npz": ("b.veilset.toml", ("u", "v", "w"), 10, (0.0, 1.0), 10),
        "t": ("t/veilset.toml", ("cat", "dog"), 20, (0.0, 255.0), 10),
    }
    for source, (name, classes, units, span, cap) in expect.items():
        assert init(tmp_path / source) == tmp_path / name
        info = declare.read(tmp_path / source).info
        got = (info.classes, info.units, info.value_range, info.max_images_per_unit)
        assert got == (classes, units, span, cap) and info.shape == (1, 20, 13)


def test_init_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "s" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no image in any class folder"):
        init(tmp_path / "s")
    png(tmp_path / "s" / "cat" / "a.png", pixels(1)[0])
    (tmp_path / "s" / "cat" / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="cannot be decoded"):
        init(tmp_path / "s")
    with pytest.raises(DataError, match="built in"):
        init("mnist")
    for arrays in (
        {"x": pixels(2)},
        {"x": np.zeros(()), "y": np.zeros(1, int)},
        {"x": np.array([None]), "y": np.zeros(1, int)},
    ):
        np.savez(tmp_path / "s.npz", **arrays)
        with pytest.raises(DataError):
            init(tmp_path / "s.npz")
    assert not list(tmp_path.rglob("*veilset.toml"))


def test_rounding() -> None:
    assert [draft.rounded(n) for n in (0, 1, 4, 37, 96, 101, 1437, 1450, 60000, 123456)] == [
        10, 10, 10, 40, 100, 100, 1400, 1500, 60000, 120000,
    ]  # fmt: skip


def test_what_is_drafted_is_read_back() -> None:
    info = PublicInfo(
        name='a "b" \\',
        classes=("é\n", "'x'", "日本"),
        shape=(3, 1, 64),
        value_range=(-1e-7, 1e22),
        units=7,
        unit="one\tpatient",
        max_images_per_unit=3,
        access="public",
    )
    assert declare.parse(draft.text(info), "x") == declare.Declaration(info, confirmed=False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("units = 6", "", "units is missing"),
        ("units = 6", "units = 6.5", "units = 6.5: must be a whole number"),
        ("units = 6", "units = true", "units = True: must be a whole number"),
        ("units = 6", "units = 0", "units = 0: must be at least 1"),
        ("units = 6", "units = 6\nunit_s = 1", "unknown key 'unit_s'. Did you mean 'units'"),
        ("shape = [1, 5, 4]", "shape = [5, 4]", "must be [channels, height, width]"),
        ("shape = [1, 5, 4]", "shape = [2, 5, 4]", "must be [1 or 3, height, width]"),
        ('["cat", "dog"]', '"cat"', "must be a list of names"),
        ('["cat", "dog"]', '["cat", "cat"]', "distinct"),
        ('["cat", "dog"]', "[]", "one or more"),
        ("[0.0, 255.0]", "[255, 0]", "low < high"),
        ("[0.0, 255.0]", "[0, nan]", "low < high"),
        ('access = "private"', 'access = "secret"', "public or private"),
        ('name = "pets"', "name = pets", "not valid TOML"),
        ("confirmed = true", 'confirmed = "true"', "confirmed = 'true': must be true or false"),
        ("confirmed = true", "", "confirmed = true"),
    ],
)
def test_bad_declarations(pets: Callable[..., Path], old: str, new: str, message: str) -> None:
    path = pets() / "veilset.toml"
    text = path.read_text()
    assert old in text
    head, _, tail = text.rpartition(old)
    path.write_text(head + new + tail)
    with pytest.raises(DataError) as e:
        load(path.parent)
    assert message in str(e.value) and "veilset.toml" in str(e.value) and "\n" not in str(e.value)


def test_digits() -> None:
    data = load("digits")
    assert data.info.shape == (1, 8, 8) and data.info.units == 1437 and data.info.access == "public"
    got = data.train._open()
    x = np.empty((1437, 1, 8, 8), np.uint8)
    got.records.read(np.arange(1437), x)
    assert got.records.count == 1437 and (x.min(), x.max()) == (0, 255) and len(got.labels) == 1437
    assert isinstance(data.test, Images) and len(data.test) == 360 and data.test.label == "PUBLIC TEST SPLIT OF DIGITS"


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_downloaded_sets(name: str) -> None:
    if public.find(name) is None:
        pytest.skip(f"{name} is not on this machine")
    data = load(name)
    got = data.train._open()
    assert got.records.count == len(got.labels) == data.info.units == 60000
    assert isinstance(data.test, Images) and len(data.test) == 10000 and check(name) == []


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_missing_built_in_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Planning needs the declaration only; opening says how to get the files."""
    monkeypatch.delenv("VEILSET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(public, "SYSTEM", {})
    data = load(name)
    assert data.info.units == 60000 and len(data.info.classes) == 10
    for act in (data.train._open, lambda: data.test, lambda: check(name)):
        with pytest.raises(DataError, match=f"veilset data fetch {name}.*VEILSET_DATA") as e:
            act()
        assert ("dataset-fashion-mnist" in str(e.value)) == (name == "fashion-mnist")


def test_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VEILSET_DATA", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(public, "SYSTEM", {"mnist": (tmp_path / "system",)})
    for place in (tmp_path / "system", tmp_path / "cache" / "veilset" / "mnist", tmp_path / "own" / "mnist"):
        place.mkdir(parents=True)
        (place / public.FILES[0]).touch()
        assert public.find("mnist") != place, "three of four files are no set"
        for file in public.FILES:
            (place / file).touch()
        assert public.find("mnist") == place


def test_a_folder_with_a_built_in_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    confirm(class_folder(tmp_path / "digits", pixels(6)))
    assert load("digits").info.units == 1437 and load("./digits").info.units == load(Path("digits")).info.units == 6
