"""`load`: from a name or path to opaque private images and public facts, without reading a record."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from veilset.core.errors import DataError, suggest
from veilset.core.types import Images, PublicInfo
from veilset.data import declare, public
from veilset.data.faults import Faults
from veilset.data.source import Source, detect
from veilset.privacy.private import Opened, PrivateImages

if TYPE_CHECKING:
    import torch


class Dataset:
    """A set as it was declared: public facts, an opaque training split, perhaps a test split.

    Attributes:
        info: the declared facts.
        train: the private training split; only a gate opens it.
    """

    __slots__ = ("__given", "__source", "__test", "info", "train")

    def __init__(self, info: PublicInfo, source: Callable[[], Source], name: str):
        self.info = info
        self.__source, self.__given = source, name
        self.__test: tuple[Images | PrivateImages | None] | None = None
        self.train = PrivateImages(info, lambda: opened(source, info, "train", name))

    @property
    def name(self) -> str:
        """The declared name."""
        return self.info.name

    @property
    def test(self) -> Images | PrivateImages | None:
        """The test split, read when asked for: `Images` if it is declared public, else opaque; None if there is none.

        Raises:
            DataError: a public test split has a file fault.
        """
        if self.__test is None:
            info, name = self.info, self.__given
            with readable(name):
                source = self.__source()
                there = source.has_test()
            if not there:
                self.__test = (None,)
            elif info.access == "public":
                self.__test = (_public(info, opened(self.__source, info, "test", name)),)
            else:
                self.__test = (PrivateImages(info, lambda: opened(self.__source, info, "test", name)),)
        return self.__test[0]

    def __repr__(self) -> str:
        i = self.info
        return f"Dataset({i.name!r}, declared: {i.units} units, {len(i.classes)} classes, shape {list(i.shape)})"


def load(source: str | Path) -> Dataset:
    """Load an image set. Reads its declaration only; records are checked and opened when a gate asks for them.

    Args:
        source: a built-in name (digits, mnist, fashion-mnist), or the path of an image folder (a sub-folder a class,
            labels.csv, or CelebA's layout), an .npz file, or IDX files (folder or prefix). A folder called digits is
            ./digits.

    Raises:
        DataError: no such set, no declaration, or one that the owner has not confirmed.
    """
    info = public.info(str(source)) if public.named(source) else declare.confirmed(existing(Path(source)))
    return Dataset(info, lambda: reader(source), str(source))


def reader(source: str | Path) -> Source:
    """The reader of a set; looks at names only."""
    return public.source(str(source)) if public.named(source) else detect(Path(source))


def existing(path: Path) -> Path:
    """The path, or DataError if no file, folder or IDX prefix is there."""
    if not path.exists() and not (path.parent.is_dir() and any(path.parent.glob(f"{escape(path.name)}*images?idx*"))):
        names = ", ".join(public.NAMES)
        raise DataError(
            f"{path}: no such file or folder, nor a built-in set ({names}).{suggest(str(path), public.NAMES)}"
        )
    return path


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """One line where the system refuses to read a file."""
    try:
        yield
    except OSError as e:
        raise DataError(f"{name}: cannot be read ({e.filename}: {e.strerror}); repair it or its permissions") from None


def opened(source: Callable[[], Source], info: PublicInfo, split: str, name: str) -> Opened:
    """Check one split and open it.

    Raises:
        DataError: the first file fault, and how many others there are.
    """
    faults = Faults(name)
    with readable(name):
        found = source().scan(info, split, faults)
    faults.raise_first()
    assert found is not None, "a split without faults opens"
    return found


def _public(info: PublicInfo, split: Opened) -> Images:
    """A declared public split as images that may be looked at."""
    import torch

    n = split.records.count
    x = np.empty((n, *info.shape), split.records.dtype)
    split.records.read(np.arange(n), x)
    y: torch.Tensor = torch.from_numpy(split.labels.astype(np.int64))
    return Images(
        torch.from_numpy(to_bytes(info, x)), y, info.classes, label=f"PUBLIC TEST SPLIT OF {info.name.upper()}"
    )


def to_bytes(info: PublicInfo, x: np.ndarray) -> np.ndarray:
    """Values in the declared range as uint8 0..255."""
    low, high = info.value_range
    if x.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return x
    scaled: np.ndarray = np.rint((x.astype(np.float32) - low) * (255.0 / (high - low))).clip(0, 255)
    return scaled.astype(np.uint8)
