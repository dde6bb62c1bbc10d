"""A release folder as Python sees it: `veilset.open_release(folder)` gives images, in several forms, and claim."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils.data import Dataset

from veilset.core.io import no_links
from veilset.core.pictures import open_pictures, picture_table, read_images
from veilset.core.rendering import legible
from veilset.core.types import Images, PublicInfo
from veilset.privacy.receipt import Receipt, Verification, read_receipt, verify

if TYPE_CHECKING:
    import pyarrow


class ReleaseFolder:
    """What `model.write_samples` or `veilset sample` wrote, in any format. Its claim holds only if `verify()` says so.

    Attributes:
        folder: where it lies.
        receipt: the claim; `receipt.epsilon`, or `receipt.stamp` if it is no release.
        info: the declared facts that the receipt names.
        labels: of all images, as indices into `info.classes`.

    Examples:
        >>> release = vs.open_release("release")
        >>> len(release), release.info.name
        (200, 'digits')
        >>> x, label = release.to_dataset()[0]  # float32 [C, H, W] in [0, 1], for a DataLoader
        >>> x.shape
        torch.Size([1, 8, 8])
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if self.folder.is_dir():
            no_links(self.folder)
        self.receipt: Receipt = read_receipt(self.folder)
        self.info = PublicInfo.from_json(self.receipt.facts["data"])
        self.labels = open_pictures(self.folder, self.info).labels

    @cached_property
    def images(self) -> Images:
        """All images; read when first asked for, and then kept: uint8 [N, C, H, W].

        Raises:
            RunError: a damaged picture, or more pixels than a folder of its size can hold.
        """
        return read_images(self.folder, self.info, self.receipt.facts["stamp"] or "SYNTHETIC")

    def verify(self, public_key: str | Path | None = None) -> Verification:
        """Recompute the claim and every hash, offline, as `veilset.verify` does; never raises for a bad folder."""
        return verify(self.folder, public_key)

    def to_dataset(self) -> LabelledImages:
        """For `torch.utils.data.DataLoader`: (float32 [C, H, W] in [0, 1], label) at each place."""
        return LabelledImages(self.images)

    def to_arrow(self) -> pyarrow.Table:
        """A pyarrow table of `image` (PNG bytes and path), `label`, `class`: the layout of Hugging Face image sets.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        return picture_table(self.images, "to_arrow")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        facts = self.receipt.facts
        claim = facts["stamp"] or f"epsilon {facts['epsilon']:.6g} at delta {facts['delta']:g}, not verified yet"
        return legible(f"ReleaseFolder({len(self)} images by {facts['method']} of {self.info.name}: {claim})")


class LabelledImages(Dataset[tuple[torch.Tensor, int]]):
    """Images as a map-style dataset of torch.

    Args:
        images: what it shows; kept as uint8, and made float when asked for.
    """

    def __init__(self, images: Images):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images.x[index].float() / 255, int(self.images.y[index])


def open_release(folder: str | Path) -> ReleaseFolder:
    """Open a release folder: PNGs, npz or parquet. Reads the receipt and the labels; images when they are asked for.

    Args:
        folder: what `model.write_samples` or `veilset sample` wrote.

    Raises:
        RunError: no receipt or no images there, or images that the receipt does not describe.
        ConfigError: a receipt of another format.

    Examples:
        >>> vs.open_release("release").verify().ok
        True
    """
    return ReleaseFolder(folder)
