"""`load`: from a name or path to opaque private images and public facts, without reading a record."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from veilset.core.errors import DataError, ModeError, Note, suggest
from veilset.core.types import Images, PublicInfo
from veilset.data import declare, public
from veilset.data.columns import Choice, choose
from veilset.data.faults import Faults
from veilset.data.formats.detect import Source, detect
from veilset.data.formats.folder import utf8
from veilset.data.reading import Reading
from veilset.privacy.private import Opened, PrivateImages

if TYPE_CHECKING:
    import torch


class Dataset:
    """A set as it was declared: public facts, an opaque training split, perhaps a test split.

    Attributes:
        info: the declared facts.
        train: the private training split; only a gate opens it.
    """

    __slots__ = ("__open", "__source", "__test", "info", "train")

    def __init__(self, info: PublicInfo, source: Callable[[], Source], name: str, choice: Choice | None = None):
        self.info = info
        self.__source = source
        self.__open = lambda split: opened(source, info, split, name, choice)
        self.__test: tuple[Images | PrivateImages | None] | None = None
        self.train = PrivateImages(info, lambda: self.__open("train"))

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
            info = self.info
            with readable(info.name):
                there = self.__source().has_test()
            if not there:
                self.__test = (None,)
            elif info.access == "public":
                self.__test = (images_of(info, self.__open("test")),)
            else:
                self.__test = (PrivateImages(info, lambda: self.__open("test")),)
        return self.__test[0]

    def public_test(self) -> Images:
        """The test split, which may be looked at because it is declared public.

        Raises:
            ModeError: it is private. DataError: there is none, or it has a file fault.
        """
        test = self.test
        if isinstance(test, PrivateImages):
            raise ModeError(
                f"the test split of {self.name} is private: it may not be looked at; declare access = public if it is, "
                "or measure by a private reference (docs/private-reference.md)"
            )
        if test is None:
            raise DataError(f"{self.name} has no test split; add one, or evaluate against another public set")
        return test

    def __repr__(self) -> str:
        i = self.info
        return f"Dataset({i.name!r}, declared: {i.units} units, {len(i.classes)} classes, shape {list(i.shape)})"


def load(source: str | Path) -> Dataset:
    """Load an image set. Reads its declaration, and names of columns; records are opened when a gate asks for them.

    Args:
        source: a built-in name (digits, mnist, fashion-mnist), or the path of an image folder (a sub-folder per class,
            labels.csv, CelebA's layout, DICOM and others, see docs/data.md), an .npz or another file, IDX files (folder
            or prefix), or a declaration that says where the set is. A folder called digits is ./digits.

    Raises:
        DataError: no such set, no declaration, one that the owner has not confirmed, or one that leaves open whether a
            column that looks like people is the unit. What is not used otherwise is a warning.

    Examples:
        >>> data = vs.load("digits")
        >>> data.info.units, data.info.shape
        (1437, (1, 8, 8))
        >>> len(data.public_test())
        360
    """
    if public.named(source):
        return Dataset(public.info(str(source)), lambda: reader(source), str(source))
    declared, faults = declare.confirmed(existing(Path(source))), Faults(source)
    with readable(str(source)):
        choose(reader(source).extras(), declared.choice, declared.info, faults)
    faults.raise_first()
    for note in faults.found:
        warnings.warn(str(note), Note, stacklevel=2)
    return Dataset(declared.info, lambda: reader(source), str(source), declared.choice)


def reader(source: str | Path) -> Source:
    """The reader of a set; looks at names only."""
    if public.named(source):
        return public.source(str(source))
    reading = _reading(Path(source))
    return detect(declare.place(Path(source), reading), reading)


def _reading(source: Path) -> Reading:
    """How the files of a set are read, as far as it is declared."""
    return declare.read(source).reading if declare.path_for(source).is_file() else Reading()


def existing(path: Path) -> Path:
    """The path, or DataError if no file, folder or IDX prefix is there, or no name that can be written down."""
    utf8(path)
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


def scan(
    files: Source, info: PublicInfo, choice: Choice | None, split: str, faults: Faults, keep: bool = True
) -> Opened | None:
    """Check one split by its reader, as `Source.scan` does, with units as they are declared (None: a built-in set)."""
    unit = choose(files.extras(), choice, info, faults) if choice else None
    return files.scan(info, split, faults, keep, unit.name if unit else None)


def opened(
    source: Callable[[], Source], info: PublicInfo, split: str, name: str, choice: Choice | None = None
) -> Opened:
    """Check one split and open it.

    Raises:
        DataError: the first file fault, and how many others there are.
    """
    faults = Faults(name)
    with readable(name):
        found = scan(source(), info, choice, split, faults)
    faults.raise_first()
    assert found is not None, "a split without faults opens"
    return found


def training_images(source: str) -> Images:
    """The training split of a set that its owner declares public, as images that may be looked at.

    Raises:
        DataError: as `load`, or a file fault.
    """
    found = load(source)
    declared = None if public.named(source) else declare.read(Path(source))
    part = opened(lambda: reader(source), found.info, "train", source, declared.choice if declared else None)
    return replace(images_of(found.info, part), label=f"DECLARED PUBLIC: {found.name}")


def images_of(info: PublicInfo, split: Opened) -> Images:
    """An opened split as images that may be looked at: one that is declared public, or by the owner, in `check`."""
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
