"""What a folder that `Images.save` wrote says of itself: no receipt declares its shape and classes."""

from __future__ import annotations

import csv
import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from veilset.core.errors import DataError, RunError
from veilset.core.io import no_links, read_capped
from veilset.core.listing import SUMS
from veilset.core.pictures import MOST_TABLE, PNG, npz_array, picture_faults, pictures_file, plain_size
from veilset.core.types import PublicInfo

Named = Iterable[tuple[int, str]]
CHANNELS = {0: 1, 2: 3}  # colour types of a PNG that are written: grey, RGB


def described(folder: Path, classes: Sequence[str] | None = None) -> PublicInfo:
    """Shape and class names of saved images, so that the reader of releases can check all of them against these.

    Args:
        folder: a folder that `Images.save` wrote.
        classes: class names in label order, if they are known; else those that the file names.

    Raises:
        RunError: no images, damaged ones, a class without a name, or a release.
        DataError: `classes` is no list of distinct names.
    """
    folder = no_links(folder) if folder.is_dir() else folder
    if (folder / SUMS).exists():
        raise RunError(
            f"{folder}: a release, whose claim and stamp would be lost; use veilset.open_release(folder).images"
        )
    name = pictures_file(folder)
    with picture_faults(folder / name):
        shape, named = HEADS[name](folder)
        info = PublicInfo(name=folder.name, classes=("any",), shape=shape, units=1)  # a shape that images may have
        if classes is None:
            return replace(info, classes=_names(named))
    if isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"classes = {classes!r}: must be a list of names in label order, such as ['cat', 'dog']")
    return replace(info, classes=tuple(classes))


def _names(named: Named) -> tuple[str, ...]:
    names: dict[int, str] = {}
    for label, name in named:
        if type(label) is not int or type(name) is not str:
            raise ValueError(f"{label!r} and {name!r} are no label and class name")
        if names.setdefault(label, name) != name:
            raise ValueError(f"label {label} is called {names[label]!r} and {name!r}")
    if sorted(names) != list(range(len(names))):
        missing = next(k for k in range(len(names)) if k not in names)
        raise ValueError(f"no image is of class {missing}, so that its name is unknown; give classes = [...]")
    return tuple(names[k] for k in range(len(names)))


def _png_shape(data: bytes) -> tuple[int, int, int]:
    if data[:8] != PNG or data[12:16] != b"IHDR":
        raise ValueError("a picture is no PNG")
    width, height, _, colour = struct.unpack(">IIBB", data[16:26])
    if colour not in CHANNELS:
        raise ValueError(f"a picture has the PNG colour type {colour}: must be grey or RGB")
    return CHANNELS[colour], height, width


def _pngs(folder: Path) -> tuple[tuple[int, int, int], Named]:
    rows = list(csv.DictReader(io.StringIO(read_capped(folder / "labels.csv", MOST_TABLE).decode()), strict=True))
    if not rows:
        raise ValueError("there are no images")
    plain_size(folder, rows[0]["file"])
    with open(folder / rows[0]["file"], "rb") as f:
        shape = _png_shape(f.read(64))
    return shape, ((int(row["label"]), row["class"]) for row in rows)


def _npz(folder: Path) -> tuple[tuple[int, int, int], Named]:
    import numpy as np

    path = folder / "images.npz"
    with npz_array(path, "x") as (shape, _, _):
        if len(shape) != 4:
            raise ValueError(f"x has {len(shape)} axes, not 4")
    with npz_array(path, "classes") as (size, dtype, f):
        if dtype.kind != "U" or len(size) != 1 or size[0] * dtype.itemsize > MOST_TABLE:
            raise ValueError(f"classes is {dtype} {list(size)}, not a list of names")
        names = np.frombuffer(f.read(size[0] * dtype.itemsize), dtype).tolist() if size[0] else []
    return (shape[1], shape[2], shape[3]), enumerate(names)


def _parquet(folder: Path) -> tuple[tuple[int, int, int], Named]:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise RunError("images.parquet: reading it needs pyarrow; pip install 'veilset[parquet]'") from None
    table = pq.ParquetFile(folder / "images.parquet")
    first: Any = next(table.iter_batches(1, columns=["image"]), None)
    if first is None or not len(first):
        raise ValueError("there are no images")

    def named() -> Iterator[tuple[int, str]]:
        for batch in table.iter_batches(columns=["label", "class"]):
            yield from zip(batch["label"].to_pylist(), batch["class"].to_pylist(), strict=True)

    return _png_shape(first["image"][0]["bytes"].as_py()), named()


HEADS = {"labels.csv": _pngs, "images.npz": _npz, "images.parquet": _parquet}
