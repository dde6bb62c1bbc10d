"""What every reader offers, and which reader a path calls for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra
from veilset.data.faults import Faults
from veilset.privacy.private import Opened


@dataclass(frozen=True)
class Glimpse:
    """What `veilset data init` drafts from a set; the owner corrects it.

    Attributes:
        classes: class names, in label order.
        shape: (channels, height, width) of the first image.
        value_range: (low, high) of the format.
        count: images in the training split, exact; the draft rounds it.
        people: name of a column (or array) that can be the unit -> how many different values the training split has.
        remark: what the draft says about classes of this layout, in a line or a few.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    value_range: tuple[float, float]
    count: int
    people: dict[str, int] = field(default_factory=dict)
    remark: str = ""


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people do: "2" before "10", "image 9" before "image 10"."""
    parts = re.split("([0-9]+)", name)
    # Even parts are texts, odd ones numbers; a longer number without leading zeros is a larger one.
    return [(len(p.lstrip("0")) if i % 2 else -1, p.lstrip("0") if i % 2 else p) for i, p in enumerate(parts)]


class Source(Protocol):
    """One kind of image set. Making one looks at names only; records are read by `scan`."""

    def has_test(self) -> bool:
        """Whether the set's structure has a test split."""

    def extras(self) -> list[Extra]:
        """What the set holds beside pictures, labels and splits, by names alone; nothing of what cannot be read."""

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """Check every record of "train" or "test", adding what is wrong to `faults`; `unit` names one of the extras.

        Returns:
            The opened split if `keep` and nothing prevents it, else None. Use it only if `faults` has no fault.
        """

    def glimpse(self) -> Glimpse:
        """What a draft declaration says."""


def detect(path: Path) -> Source:
    """The reader for a path.

    Raises:
        DataError: nothing there, or nothing that veilset reads.
    """
    from veilset.data.formats import celeba
    from veilset.data.formats.folder import FolderSource, folders
    from veilset.data.formats.idx import IMAGES, IdxSource
    from veilset.data.formats.npz import NpzSource
    from veilset.data.formats.table import FILE, TableSource

    if path.is_dir():
        if (path / FILE).is_file():
            return TableSource(path)
        if celeba.listing(path, celeba.ATTRIBUTES):
            return celeba.CelebASource(path)
        if any(IMAGES.match(p.name) for p in path.iterdir()):
            return IdxSource(path)
        if folders(path):
            return FolderSource(path)
        raise DataError(
            f"{path}: no sub-folder per class, no {FILE}, no {celeba.ATTRIBUTES}.txt, no IDX files; "
            "see `veilset data --help` for the layouts"
        )
    if path.suffix == ".npz" and path.is_file():
        return NpzSource(path)
    if path.is_file() and not IMAGES.match(path.name):
        raise DataError(f"{path}: not an .npz or *-images-idx3-ubyte file; see `veilset data --help` for the layouts")
    return IdxSource(path)
