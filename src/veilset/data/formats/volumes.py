"""Files that hold several images: NIfTI volumes, by nibabel, and TIFF stacks or fractions, by tifffile.

A file is the unit where it holds several images. Its label is the folder that it lies in, or comes from a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from veilset.core.errors import DataError
from veilset.data.columns import Extra, beside
from veilset.data.decode import Look, Unfit, decoding, open_picture
from veilset.data.faults import Faults
from veilset.data.formats.folder import below, class_of, first_file, note_litter
from veilset.data.formats.items import Item, ItemSource, library, windowed
from veilset.data.formats.lookup import Lookup
from veilset.data.records import Array

KEYS = dict.fromkeys(("file", "filename", "path", "image", "volume"), "file")
UNIT = "volume"
MOST_VALUES = 1 << 31  # of one file, which is in memory as a whole


def is_nifti(path: Path) -> bool:
    """Whether a path is such a file, or a folder whose first file that is no table is one."""
    first = first_file(path)
    return first is not None and first.name.lower().endswith(NiftiSource.SUFFIXES)


def is_stack(path: Path) -> bool:
    """Whether a path is a TIFF, or a folder that begins with one, that Pillow does not read as one image of bits."""
    first = first_file(path)
    if first is None or not first.name.lower().endswith(TiffSource.SUFFIXES):
        return False
    try:
        return open_picture(first.read_bytes()).mode.startswith("F")
    except Unfit:
        return True


class VolumeSource(ItemSource):
    """A folder of files, or one. A reader of such files offers SUFFIXES and `volume`."""

    SUFFIXES: tuple[str, ...] = ()

    def volume(self, path: Path) -> Array:
        """All images of a file: [n, H, W] or [n, H, W, 3]. Raises Unfit."""
        raise NotImplementedError

    def count(self, path: Path) -> int:
        """How many images a file holds, by its header. Raises Unfit."""
        raise NotImplementedError

    def has_test(self) -> bool:
        """Whether a folder at the top is called test, or the table of labels has splits."""
        return any(class_of(self._where(p))[1] == 1 for p in self._files()) or bool(self._table and self._table.splits)

    def extras(self) -> list[Extra]:
        """The file, if the first holds several images, and columns of the table of labels."""
        table = self._table.extras() if self._table else []
        tables = beside(self._path, (self._reading.labels,)) if self._path.is_dir() else []
        own = [Extra(UNIT, "file", self._path.name, UNIT, default=True)] if self._several else []
        return [*own, *table, *tables]

    @cached_property
    def _several(self) -> bool:
        try:
            return any(self.count(p) > 1 for p in list(self._files())[:1])
        except Unfit:
            return False

    @cached_property
    def _table(self) -> Lookup | None:
        root = self._path if self._path.is_dir() else self._path.parent
        return Lookup(root, self._reading, KEYS) if self._reading.labels else None

    def _files(self) -> Iterator[Path]:
        if self._path.is_file():
            yield self._path
            return
        for path in below(self._path):
            if path.name.lower().endswith(self.SUFFIXES):
                yield path

    def _where(self, path: Path) -> str:
        return path.relative_to(self._path).as_posix() if path != self._path else path.name

    def items(self, faults: Faults, headers: bool = False) -> Iterator[Item]:
        """Every image of every file; one file at a time is in memory."""
        note_litter(self._path, faults)
        for path in self._files():
            where = self._where(path)
            found = self._table.get(where, where, faults) if self._table else None
            if self._table and found is None:
                continue
            label, part, row = found or (*class_of(where), dict[str, str]())
            row[UNIT] = where
            try:
                n = self.count(path)
                held = list[Array]()
                for i in range(n):
                    yield Item(
                        f"{where} image {i + 1}" if n > 1 else where,
                        label,
                        part,
                        partial(self._one, path, i, held),
                        row,
                    )
            except Unfit as e:
                faults.add(where, str(e), "restore or remove this file")
        if self._table:
            self._table.report_unseen(faults)

    def _one(self, path: Path, i: int, held: list[Array]) -> Array:
        """Image i of a file as uint8; `held` keeps the file between its images."""
        if not held:
            held.append(self.volume(path))
        values = held[0][i]
        if values.dtype.kind not in "buif":
            raise Unfit(f"holds {values.dtype}, which are no grey values")
        if self._reading.window:
            return windowed(values, *self._reading.window)
        if values.dtype == np.uint8:
            return np.ascontiguousarray(values)
        whole = np.iinfo(values.dtype) if values.dtype.kind in "ui" else None
        self.bits = f"{values.dtype} values"
        self.window = f"{whole.min},{whole.max}" if whole and whole.bits <= 16 else "0,1"
        raise Unfit(f"holds {values.dtype} values and no window is declared", True, f"--window={self.window}")

    def _look(self, item: Item) -> Look:
        """As the base, also of values that need a window: a draft proposes one."""
        try:
            return super()._look(item)
        except DataError:
            if not self.window:
                raise
        path, i, held = item.pixels.args  # type: ignore[attr-defined]
        a = held[0][i]
        return Look((1 if a.ndim == 2 else 3, a.shape[0], a.shape[1]), self.bits, self.window)


class NiftiSource(VolumeSource):
    """NIfTI files, turned to the closest canonical axes (right, anterior, superior) and cut along the declared one."""

    uses: tuple[str, ...] = ("label_from", "labels", "window", "axis")
    SUFFIXES = (".nii", ".nii.gz")

    def _image(self, path: Path) -> Any:
        with decoding():
            return library("nibabel", "nifti").load(path)

    def count(self, path: Path) -> int:
        """Slices along the declared axis of the canonical volume."""
        nibabel = library("nibabel", "nifti")
        image = self._image(path)
        if len([n for n in image.shape[3:] if n > 1]) or len(image.shape) < 3:
            raise Unfit(f"has shape {list(image.shape)}: a volume has three axes; split it")
        with decoding():
            axes = nibabel.orientations.io_orientation(image.affine)[:, 0]
        _bounded(image.shape)
        places = np.flatnonzero(axes == self._reading.axis)
        if len(places) != 1:
            raise Unfit("has a matrix (affine) that does not say which axis is which")
        return int(image.shape[int(places[0])])

    def volume(self, path: Path) -> Array:
        """[n, rows, columns]: the other two axes, the later one downwards from the top."""
        nibabel = library("nibabel", "nifti")
        with decoding():
            image = nibabel.as_closest_canonical(self._image(path))
            values = np.asanyarray(image.dataobj)
        values = values.reshape(values.shape[:3])
        # Rows run from superior (or anterior) down, columns from left to right, as atlases show them.
        a: Array = np.moveaxis(values, self._reading.axis, 0).transpose(0, 2, 1)[:, ::-1]
        return a


class TiffSource(VolumeSource):
    """TIFF files with several pages, or values that Pillow does not hand out."""

    uses: tuple[str, ...] = ("label_from", "labels", "window")
    SUFFIXES = (".tif", ".tiff")

    def count(self, path: Path) -> int:
        """Pages of the first series."""
        with decoding(), library("tifffile", "tiff").TiffFile(path) as f:
            return _stack(f.series[0].shape, f.series[0].axes)[0]

    def volume(self, path: Path) -> Array:
        """[n, H, W] or [n, H, W, 3]."""
        with decoding(), library("tifffile", "tiff").TiffFile(path) as f:
            series = f.series[0]
            n, colour = _stack(series.shape, series.axes)
            a: Array = series.asarray()
            if colour and series.axes[-1] != "S":  # channels in front of rows
                a = np.moveaxis(a, -3, -1)
            a = a.reshape(n, *a.shape[-3 if colour else -2 :])
            return a[..., 0] if colour and a.shape[-1] == 1 else a


def _stack(shape: tuple[int, ...], axes: str) -> tuple[int, bool]:
    """(number of images, whether they are colour) of a series. Raises Unfit."""
    colour = "S" in axes
    if colour and shape[axes.index("S")] not in (1, 3):
        raise Unfit(f"has {shape[axes.index('S')]} samples a pixel: grey has 1, colour 3")
    if axes[-2:] != "YX" and axes[-3:] not in ("YXS", "SYX"):
        raise Unfit(f"has axes {axes}, which do not end in rows and columns")
    _bounded(shape)
    return int(np.prod(shape[: -3 if colour else -2], dtype=np.int64)), colour


def _bounded(shape: tuple[int, ...]) -> None:
    """Refuse a file that would fill the memory, or holds nothing. Raises Unfit."""
    if math.prod(shape) < 1:
        raise Unfit(f"has shape {list(shape)}: it is empty")
    if (size := math.prod(shape)) > MOST_VALUES:
        raise Unfit(f"has {size} values, at most {MOST_VALUES} are read at once; split it")
