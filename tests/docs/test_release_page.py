"""Other packages open a release as docs/release.md prints it, where they are installed."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import veilset as vs
from veilset.core.pictures import class_folders
from veilset.core.types import Images

PAGE = (Path(__file__).parents[2] / "docs" / "release.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SHOWN = {"release": "folder", "release-parquet": "parquet", "release-npz": "npz"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("elsewhere")
    model = vs.synthesizers.DPMoments(basis_size=20, mc_samples=20).fit(vs.load("digits").train, vs.Privacy(1.0))
    images = model.sample(60, seed=1)
    for name, kind in SHOWN.items():
        model.write_samples(images, root / name, kind)
    return root


def needed(name: str) -> Any:
    """A package that is none of ours, or a skip: it is absent, or does not run beside this torch."""
    try:
        return import_module(name)
    except Exception as e:
        pytest.skip(f"{name}: {e}")


def snippet(home: Path, name: str, monkeypatch: pytest.MonkeyPatch, which: int = 0) -> dict[str, Any]:
    """The names that are there after an example of the page has run."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    needed(name)
    text, found = [s for s in SNIPPETS if re.search(rf"^(from|import) {name}\b", s)][which], dict[str, Any]()
    assert len([line for line in text.splitlines() if line]) <= 5
    exec(compile(text, "docs/release.md", "exec"), found)
    return found


@pytest.mark.parametrize("which", [0, 1])
def test_datasets_finds_images_and_names_of_classes(home: Path, monkeypatch: pytest.MonkeyPatch, which: int) -> None:
    found = snippet(home, "datasets", monkeypatch, which)
    kinds = {n: type(f).__name__ for n, f in found["pictures"].features.items()}
    assert (kinds["image"], kinds["label"]) == ("Image", "ClassLabel") and found["names"] == list("0123456789")
    assert len(found["pictures"]) == 60 and found["image"].size == (8, 8) and found["name"] == "0"


@pytest.mark.parametrize("folder", ["release", "release-parquet"])
def test_datasets_opens_a_release_by_its_folder_alone(home: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("HF_HOME", str(home / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = needed("datasets").load_dataset(str(home / folder))["train"]
    assert found.features["label"].names == list("0123456789") and type(found.features["image"]).__name__ == "Image"


def test_torchvision_opens_a_folder_of_classes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = snippet(home, "torchvision", monkeypatch)
    assert len(found["pictures"]) == 60 and found["name"] == "0" and found["image"].size == (8, 8)


def test_keras_opens_a_folder_of_classes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = snippet(home, "keras", monkeypatch)
    assert found["names"] == list("0123456789") and found["images"].shape[1:] == (8, 8, 1)


def test_a_folder_of_classes_holds_pictures_and_nothing_else(home: Path) -> None:
    """What torchvision's ImageFolder and Keras ask for, looked at without them."""
    pictures = home / "release" / "images"
    assert sorted(p.name for p in pictures.iterdir()) == list("0123456789")
    assert all(p.is_dir() and {q.suffix for q in p.iterdir()} == {".png"} for p in pictures.iterdir())
    assert len(list(pictures.glob("*/*.png"))) == 60


def test_pandas_reads_labels_and_parquet(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = snippet(home, "pandas", monkeypatch)
    assert found["counts"].to_dict() == dict.fromkeys("0123456789", 6) and list(found["table"]) == [
        "file",
        "label",
        "class",
    ]
    assert found["pictures"]["image"][0]["bytes"][:4] == b"\x89PNG"


def test_scikit_learn_learns_from_arrays(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    found: dict[str, Any] = {}
    exec(compile(next(s for s in SNIPPETS if "sklearn" in s), "docs/release.md", "exec"), found)
    assert found["model"].classes_.tolist() == list("0123456789") and found["model"].n_features_in_ == 64


def test_parquet_says_which_columns_are_what() -> None:
    table = vs.Images(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([1, 0]), ("cat", "a/b"))
    from veilset.core.pictures import picture_table

    words = picture_table(table, "x").schema.metadata[b"huggingface"].decode()
    assert '"label":{"_type":"ClassLabel","names":["cat","a/b"]}' in words and '{"_type":"Image"}' in words


@pytest.mark.parametrize("name", ["a/b", "..", ".x", "what?", "x" * 61, "CAT", "end.", " a", "a\nb", ""])
def test_classes_with_odd_names_lie_in_numbered_folders(tmp_path: Path, name: str) -> None:
    assert class_folders(["cat", "é", "not Male and Smiling"]) == ["cat", "é", "not Male and Smiling"]
    assert class_folders(["cat", name]) == ["class-0", "class-1"]
    images = Images(torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([1, 0, 1]), ("cat", name or "?"))
    images.save(tmp_path / "out")
    assert Images.load(tmp_path / "out").classes == ("cat", name or "?")
    assert len(list((tmp_path / "out" / "images" / "class-1").iterdir())) == 2
