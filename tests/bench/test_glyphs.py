"""The unseen set: the same for everybody, balanced, readable like any other set, and named where fonts are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import veilset as vs
from benchmarks.runner import glyphs
from veilset.core.errors import ConfigError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyphs.make(tmp_path_factory.mktemp("set"), 200, 40)


def test_it_is_a_set_like_others(path: Path) -> None:
    data = vs.load(path)
    assert data.info.classes == tuple("ΓΔΘΛΞΠΣΦΨΩ") and data.info.units == 200 and data.info.shape == (1, 28, 28)
    assert isinstance(data.test, vs.Images) and len(data.test) == 40
    assert data.test.y.bincount().tolist() == [4] * 10


def test_it_is_the_same_again(path: Path, tmp_path: Path) -> None:
    first, again = np.load(path), np.load(glyphs.make(tmp_path, 200, 40))
    assert all(np.array_equal(first[k], again[k]) for k in first.files)


def test_letters_are_drawn_in_every_font_and_moved(path: Path) -> None:
    masters = glyphs._masters()
    ink = (masters > 127).mean((2, 3))
    assert masters.shape[:2] == (14, 10) and ink.min() > 0.01 and ink.max() < 0.4
    edge = np.concatenate([masters[..., 0, :], masters[..., -1, :], masters[..., 0], masters[..., -1]], -1)
    assert not edge.any(), "no letter is cut off"
    assert len(np.unique(masters.reshape(140, -1), axis=0)) == 140, "all fonts and letters differ"
    x = np.load(path)["x"].astype(float)
    contrast = x.max((1, 2)) - x.min((1, 2))
    assert contrast.min() > 25 and len({i.tobytes() for i in x}) == 200


def test_without_fonts_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match="pip install"):
        glyphs.make(tmp_path)
    assert not list(tmp_path.iterdir())
