"""What every reader offers, and which reader a path calls for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from veilset.core.errors import DataError
from veilset.core.types import PublicInfo
from veilset.data.columns import Extra
from veilset.data.decode import Look
from veilset.data.faults import Faults
from veilset.data.reading import Reading
from veilset.privacy.private import Opened

LARGEST = 128  # the side up to which methods are meant to be used
USUAL = 64  # the side that a draft proposes for larger images


@dataclass(frozen=True)
class Glimpse:
    """What `veilset data init` drafts from a set; the owner corrects it.

    Attributes:
        classes: class names, in label order.
        first: what the header of the first image says.
        value_range: (low, high) of the format.
        count: images in the training split, exact; the draft rounds it.
        people: name of a column (or array) that can be the unit -> how many different values the training split has.
        remark: what the draft says about classes of this layout, in a line or a few.
    """

    classes: tuple[str, ...]
    first: Look
    value_range: tuple[float, float]
    count: int
    people: dict[str, int] = field(default_factory=dict)
    remark: str = ""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the first image."""
        return self.first.shape

    @property
    def options(self) -> str:
        """The options of `prepare` that make the set fit; empty if the first image fits as it is."""
        c, h, w = self.shape
        size = f"--size {USUAL}x{USUAL}" if max(h, w) > LARGEST else ""
        return " ".join(filter(None, [size, self.first.window and f"--window={self.first.window}"]))

    def words(self, people: str = "") -> str:
        """What was found, in one line: "64 patients, 200 images, 3 classes, 512 x 512, 12 bits stored in 16"."""
        named = "patients" if "patient" in people.casefold() else f"units by {people}"
        who = [f"{self.people[people]} {named}"] if people in self.people else []
        k, (c, h, w) = len(self.classes), self.shape
        kind = [f"{self.count} images", f"{k} class{'es' if k != 1 else ''}", f"{h} x {w}"]
        return ", ".join([*who, *kind, "grey" if c == 1 else "colour", self.first.bits or "8 bits"])


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts names as people do: "2" before "10", "image 9" before "image 10"."""
    parts = re.split("([0-9]+)", name)
    # Even parts are texts, odd ones numbers; a longer number without leading zeros is a larger one.
    return [(len(p.lstrip("0")) if i % 2 else -1, p.lstrip("0") if i % 2 else p) for i, p in enumerate(parts)]


class Source(Protocol):
    """One kind of image set. Making one looks at names only; records are read by `scan`.

    Attributes:
        uses: the fields of `Reading` that mean something for it.
    """

    uses: tuple[str, ...]

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


def detect(path: Path, reading: Reading | None = None) -> Source:
    """The reader for a path, which reads as it is declared.

    Raises:
        DataError: nothing there, or nothing that veilset reads.
    """
    found = _detect(path, reading or Reading())
    for name, value in (reading or Reading()).given().items():
        if name not in (*found.uses, "source"):
            allowed = ", ".join(found.uses) or "none of them"
            raise DataError(f"{name} = {value!r}: says nothing about {path}, whose layout uses {allowed}; leave it out")
    return found


def _detect(path: Path, how: Reading) -> Source:
    """The reader for a path."""
    from veilset.data.formats.idx import IMAGES, IdxSource
    from veilset.data.formats.npz import NpzSource

    if path.is_dir():
        if found := _folder(path, how):
            return found
        raise DataError(
            f"{path}: no sub-folder per class, no labels.csv, nor files of another layout; see docs/data.md"
        )
    if path.suffix == ".npz" and path.is_file():
        return NpzSource(path, how)
    if path.is_file() and (found := _file(path, how)):
        return found
    if path.is_file() and not IMAGES.match(path.name):
        raise DataError(f"{path}: not an .npz or *-images-idx3-ubyte file, nor of another format; see docs/data.md")
    return IdxSource(path, how)


def _folder(path: Path, how: Reading) -> Source | None:
    """The reader for a folder, by the first of these that it is."""
    from veilset.data.formats import celeba, cifar, dicom, hub, metadata, shards, volumes
    from veilset.data.formats.folder import FolderSource, folders
    from veilset.data.formats.idx import IMAGES, IdxSource
    from veilset.data.formats.table import FILE, TableSource

    if (path / FILE).is_file() and how.labels != FILE:
        return TableSource(path, how)
    if celeba.listing(path, celeba.ATTRIBUTES):
        return celeba.CelebASource(path, how)
    if any(IMAGES.match(p.name) for p in path.iterdir()):
        return IdxSource(path, how)
    for fits, make in (
        (cifar.is_cifar, cifar.CifarSource),
        (hub.is_hub, hub.HubSource),
        (shards.is_shards, shards.ShardSource),
        (metadata.is_described, metadata.MetadataSource),
        (dicom.is_set, dicom.DicomSource),
        (volumes.is_nifti, volumes.NiftiSource),
        (volumes.is_stack, volumes.TiffSource),
    ):
        if fits(path):
            return make(path, how)
    return FolderSource(path) if folders(path) else None


def _file(path: Path, how: Reading) -> Source | None:
    """The reader for one file, by what it is called or how it begins."""
    from veilset.data.formats import archive, dicom, hub, shards, volumes

    for fits, make in (
        (archive.is_zip, archive.ZipSource),
        (hub.is_hub, hub.HubSource),
        (shards.is_shards, shards.ShardSource),
        (volumes.is_nifti, volumes.NiftiSource),
        (dicom.is_dicom, dicom.DicomSource),
        (volumes.is_stack, volumes.TiffSource),
    ):
        if fits(path):
            return make(path, how)
    return None
