"""Built-in public sets: where their files are looked for, and digits, which comes with scikit-learn."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data import declare, partition
from veilset.data.columns import Extra
from veilset.data.faults import Faults
from veilset.data.formats.detect import Glimpse, Source
from veilset.data.formats.idx import IdxSource
from veilset.data.records import Array
from veilset.privacy.private import InMemory, Opened

NAMES = ("digits", "mnist", "fashion-mnist", *partition.DIGITS)
FILES = tuple(f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
SYSTEM = {"fashion-mnist": (Path("/usr/share/datasets/fashion-mnist"),)}
DEBIAN = {"fashion-mnist": "dataset-fashion-mnist"}
DIGITS_TEST = 360  # the last 360 of 1797: a fixed public split


def named(source: str | Path) -> bool:
    """Whether a source is a built-in name; a path object never is."""
    return isinstance(source, str) and source in NAMES


def info(name: str) -> PublicInfo:
    """The declaration that ships with the package."""
    path = Path(__file__).parent / "builtin" / f"{name}.toml"
    return declare.parse(path.read_text(encoding="utf-8"), path.name).info


def cache(name: str) -> Path:
    """The folder in the user's cache that `fetch` fills."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "veilset" / name


def find(name: str) -> Path | None:
    """The first folder that has all four files: VEILSET_DATA/NAME, the user's cache, Debian's package."""
    own = os.environ.get("VEILSET_DATA")
    places: list[Path] = [Path(own) / name] if own else []
    places += [cache(name), *SYSTEM.get(name, ())]
    for folder in places:
        if all((folder / f).is_file() or (folder / f).with_suffix("").is_file() for f in FILES):
            return folder
    return None


def source(name: str) -> Source:
    """The reader of a built-in set.

    Raises:
        DataError: its files are nowhere; says how to get them.
    """
    if name == "digits":
        return DigitsSource()
    if name in partition.DIGITS:
        return partition.PartSource(name, source(partition.WHOLE), info(partition.WHOLE))
    folder = find(name)
    if folder is None:
        debian = f", install Debian's package {DEBIAN[name]}" if name in DEBIAN else ""
        raise DataError(
            f"{name}: its files are not on this machine; run `veilset data fetch {name}`{debian}, "
            f"or set VEILSET_DATA to a folder that has {name}/{FILES[0]} and the other three"
        )
    return IdxSource(folder)


def digits() -> tuple[Array, Array]:
    """x uint8 [1797, 1, 8, 8] scaled from 0..16 to 0..255, y uint8 [1797]."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return np.rint(x * 255 / 16).astype(np.uint8).reshape(-1, 1, 8, 8), y.astype(np.uint8)


class DigitsSource:
    """scikit-learn's 8x8 digits. They ship inside a package, so there is no file to be faulty."""

    uses: tuple[str, ...] = ()

    def has_test(self) -> bool:
        """Always: the last 360."""
        return True

    def extras(self) -> list[Extra]:
        """Nothing."""
        return []

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """One split, in memory."""
        x, y = digits()
        part = slice(None, -DIGITS_TEST) if split == "train" else slice(-DIGITS_TEST, None)
        return Opened(InMemory(x[part]), y[part])

    def glimpse(self) -> Glimpse:
        """Never drafted: the declaration ships with the package."""
        raise DataError("digits is built in and needs no declaration")
