"""Public sets: made ones, read ones, their declarations, their shapes, and whether private images are in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sets import class_folder, confirm, pixels

from veilset.core.errors import ConfigError, DataError
from veilset.data import check, load
from veilset.data.public_set import converted, declared, open_public
from veilset.data.simulators import dead_leaves, glyphs

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_leaves, "IMAGES", 1000)
    monkeypatch.setattr(glyphs, "IMAGES", 1000)
    open_public.cache_clear()


def say_public(root: Path, **facts: str) -> Path:
    path = root / "veilset.toml"
    facts = {"licence": "CC0-1.0", "declared_by": "the ward"} | facts
    path.write_text(path.read_text() + "".join(f'\n{k} = "{v}"' for k, v in facts.items() if v) + "\n")
    return root


@pytest.mark.parametrize("name", ["glyphs", "dead-leaves"])
def test_a_made_set_is_always_the_same_and_its_recipe_is_its_checksum(name: str) -> None:
    given = open_public(name)
    module = glyphs if name == "glyphs" else dead_leaves
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    x, names = given.images((1, 9, 8))
    assert torch.equal(torch.random.get_rng_state(), before), "it has a generator of its own"
    torch.manual_seed(6)
    assert torch.equal(x, given.images((1, 9, 8))[0]) and x.shape == (1000, 1, 9, 8) and len(names) == 1000
    assert given.images((3, 8, 8))[0].shape == (1000, 3, 8, 8)
    said = given.declaration
    assert (said.name, said.sha256, said.images, said.licence) == (name, module.recipe(), 1000, module.LICENCE)
    assert float(x.float().std()) > 20, "they differ from each other and from grey"


def test_the_checksum_follows_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leaves, printed = dead_leaves.recipe(), glyphs.recipe()
    monkeypatch.setattr(dead_leaves, "LEAVES", 61)
    assert dead_leaves.recipe() != leaves
    (tmp_path / "face.ttf").write_bytes(b"another face")
    monkeypatch.setattr(glyphs, "_file", lambda face: tmp_path / "face.ttf")
    assert glyphs.recipe() != printed, "another release of the fonts is another set"


def test_a_glyph_is_what_its_numbers_say() -> None:
    masters = glyphs.masters("I8")
    plain = torch.zeros(4, glyphs.HOW)
    plain[1, 6], plain[2, 4], plain[3, 0] = 1, 1, 1  # bolder, shifted to the right, turned
    x = glyphs.rendered(masters, torch.tensor([[0, 0]] * 4), plain, (1, 32, 32))[:, 0]
    assert float(x.min()) == 0 and float(x.max()) == 1 and float(x[:, 0].max()) == 0, "light ink, black ground"
    across = torch.arange(32.0)
    middle = [(float((v.sum(0) * across).sum() / v.sum()), float(v.sum())) for v in x]
    assert middle[1][1] > 1.3 * middle[0][1] and middle[2][0] > middle[0][0] + 1
    assert (x[3].sum(0) > 0.1).sum() > (x[0].sum(0) > 0.1).sum() + 2
    one, other = (glyphs.rendered(masters, torch.tensor([[k, 3]]), plain[:1], (1, 32, 32)) for k in (0, 1))
    assert float((one - other).abs().max()) > 0.9


def test_glyphs_without_their_package_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"public = 'glyphs'.*pip install 'veilset\[glyphs\]'"):
        open_public("glyphs")


def test_a_set_of_the_owner_needs_a_licence_and_who_declares_it(pets: Callable[..., Path]) -> None:
    root = pets()
    with pytest.raises(DataError, match="does not say that the set is public.*licence = and declared_by =") as e:
        open_public(str(root))
    assert "\n" not in str(e.value)
    said = open_public(str(say_public(root))).declaration
    assert (said.name, said.images, said.licence, said.declared_by) == ("pets", 6, "CC0-1.0", "the ward")
    x, names = open_public(str(root)).images((1, 5, 4))
    assert sorted(names) == ["cat"] * 3 + ["dog"] * 3
    assert sorted(x.flatten(1).sum(1).tolist()) == sorted(pixels(6).reshape(6, -1).sum(1).tolist())


def test_the_checksum_is_of_what_the_images_show(tmp_path: Path) -> None:
    sums = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        root = class_folder(tmp_path / name / "pets", pixels(6, seed=seed))
        confirm(root)
        sums.append(open_public(str(say_public(root))).declaration.sha256)
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("source", ["glyhps", "no/such/set"])
def test_no_such_set_is_one_line(source: str) -> None:
    with pytest.raises(DataError, match="no such file or folder") as e:
        open_public(source)
    assert "\n" not in str(e.value) and "dead-leaves" in str(e.value) or "/" in source


def test_a_built_in_set_has_a_licence() -> None:
    said = open_public("digits").declaration
    assert (said.name, said.images) == ("digits", 1437) and said.licence.startswith("CC BY 4.0")
    assert declared("digits", load("digits").public_test()).images == 360


def test_images_are_converted_by_their_shapes_alone() -> None:
    x = torch.from_numpy(pixels(3, (3, 8, 8)))
    assert torch.equal(converted(x, (3, 8, 8), "set"), x)
    grey = converted(x, (1, 8, 8), "set")
    wanted = np.rint(0.299 * x[:, 0].numpy() + 0.587 * x[:, 1].numpy() + 0.114 * x[:, 2].numpy())
    assert np.abs(grey[:, 0].numpy().astype(float) - wanted).max() <= 1
    assert torch.equal(converted(grey, (3, 8, 8), "set"), grey.expand(-1, 3, -1, -1))
    flat = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert converted(flat, (3, 28, 24), "set").unique().tolist() == [77]
    with pytest.raises(DataError, match="'set': its images are 8x8, the private ones 8x16.*--size 8x16") as e:
        converted(x, (3, 8, 16), "set")
    assert "\n" not in str(e.value)


def test_check_says_which_public_images_are_private_ones(pets: Callable[..., Path], tmp_path: Path) -> None:
    root = pets()
    x = pixels(6, seed=9)
    x[:2], x[2] = pixels(6)[:2], np.clip(pixels(6)[3].astype(int) + 2, 0, 255)
    mixed = class_folder(tmp_path / "mixed", x)
    confirm(mixed, name="mixed")
    say_public(mixed)
    told = [str(f) for f in check(root, str(mixed)) if f.where == "public"]
    assert len(told) == 1 and "2 of 6 images of mixed equal a private one, 1 nearly do" in told[0]
    assert "the claim does not hold" in told[0]
    assert all(f.severity == "note" for f in check(root, str(mixed))), "whether a run exists does not depend on it"
    load(root).train.check()
    assert [f.what for f in check(root, "dead-leaves") if f.where == "public"] == ["dead-leaves is made from no image"]
    assert not [f for f in check(root) if f.where == "public"]
